package model

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/test/edge"
)

var (
	only = flag.Uint64("seed", 0, "runs this seed alone")
	runs = flag.Int("runs", 5, "how many seeds are run")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// history is the configurations so far, and which of them may be in force.
type history struct {
	mu      sync.Mutex
	all     []config
	inForce int // the newest that is surely
}

// begin notes a configuration that is about to be given to the edge.
func (h *history) begin(c config) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, c)
}

func (h *history) done() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inForce = len(h.all) - 1
}

func (h *history) newest() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inForce
}

// since is every configuration under which what began at from may have ended.
func (h *history) since(from int) []config {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all[from:])
}

// Whatever changes while requests run, each is answered as the model says for
// one of the configurations of its time.
func TestAnswersAreTheModels(t *testing.T) {
	seen := &shadowed{seen: map[string][]string{}, allowed: map[string][][]string{}}
	declared := []resource.Message{edge.Service("m0", seen.start(t, "m0")), edge.Service("m1", seen.start(t, "m1"))}
	for _, name := range services {
		declared = append(declared, startSubsets(t, name))
	}
	for seed := range uint64(*runs) {
		if *only != 0 {
			seed = *only - 1
		}
		t.Run(fmt.Sprint(seed+1), func(t *testing.T) { run(t, seed+1, declared, seen) })
		if *only != 0 {
			return
		}
	}
}

func run(t *testing.T, seed uint64, services []resource.Message, seen *shadowed) {
	e := edge.Start(t, services...)
	h := &history{all: []config{{}}}
	changes := draw{rand.New(rand.NewPCG(seed, 0))}
	for range 5 {
		change(t, e, h, changes)
	}
	due := make(chan struct{}, 1)
	var clients, changer sync.WaitGroup
	changer.Go(func() {
		for range due {
			change(t, e, h, changes)
		}
	})
	for client := range uint64(4) {
		clients.Go(func() {
			tr := &http.Transport{DisableCompression: true}
			defer tr.CloseIdleConnections()
			d := draw{rand.New(rand.NewPCG(seed, client+1))}
			for range 250 {
				if d.IntN(4) == 0 {
					select {
					case due <- struct{}{}:
					default: // a change is under way, and another due
					}
				}
				if !ask(t, tr, e.Addr, h, seen, d.question()) {
					return
				}
			}
		})
	}
	clients.Wait()
	close(due)
	changer.Wait()
	e.Stop() // with all copies
	seen.check(t)
	t.Logf("%d configurations", len(h.all))
}

// change declares a route anew, or takes one away.
func change(t *testing.T, e *edge.Edge, h *history, d draw) {
	next := maps.Clone(h.all[len(h.all)-1]) // there is one changer
	name := fmt.Sprintf("r%d", d.IntN(6))
	u := proxy.Update{Revision: uint64(len(h.all) + 1)}
	if d.IntN(4) == 0 {
		delete(next, name)
		u.Deletes = []resource.Ref{{Kind: resource.KindRoute, Tenant: resource.DefaultTenant, Name: name}}
	} else {
		next[name] = d.route(name)
		u.Puts = []*weirv1.Resource{resource.Wrap(next[name])}
	}
	h.begin(next)
	if err := e.Update(t.Context(), u); err != nil {
		t.Errorf("revision %d: %v", u.Revision, err)
	}
	h.done()
}

// ask compares one answer with the model.
func ask(t *testing.T, tr *http.Transport, addr string, h *history, seen *shadowed, q question) bool {
	from := h.newest()
	r, err := http.NewRequestWithContext(t.Context(), q.method, "http://"+addr+q.path+q.query, strings.NewReader(q.body))
	if err != nil {
		t.Error(err)
		return false
	}
	r.Host, r.Header = q.host, q.fields.Clone()
	if q.origin != "" {
		r.Header.Set("Origin", q.origin)
	}
	if q.wants != "" {
		r.Header.Set("Access-Control-Request-Method", q.wants)
	}
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Errorf("%s: %v", q, err)
		return false
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Errorf("%s: %v", q, err)
		return false
	}
	got := heard(resp, string(body))
	var copies [][]string
	for _, c := range h.since(from) {
		if slices.Contains(c.outcomes(q), got) {
			copies = append(copies, c.copies(q))
		}
	}
	if copies != nil {
		if strings.HasPrefix(got, "500") {
			copies = append(copies, nil) // nobody was sent what is copied
		}
		return seen.await(t, resp.Header.Get("X-Request-Id"), copies)
	}
	last := h.since(from)
	t.Errorf("%s\nwas answered %s\nwant one of %q\nunder %v", q, got, last[len(last)-1].outcomes(q), last[len(last)-1])
	return false
}

// heard is an answer in the words of the model.
func heard(resp *http.Response, body string) string {
	page := " " + pageWords(resp.Header)
	switch {
	case resp.StatusCode == 200:
		return fmt.Sprintf("200 by %s, answer %s", body, words(resp.Header)) + page
	case resp.Header.Get("Location") != "":
		return fmt.Sprintf("%d to %s, answer %s", resp.StatusCode, resp.Header.Get("Location"), words(resp.Header)) + page
	}
	return fmt.Sprint(resp.StatusCode) + page
}

// startService says what it was asked, in the words of the model.
func startService(t *testing.T, name string) (address string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range serviceFields() {
			w.Header()[name] = values
		}
		maps.Copy(w.Header(), pageFields())
		fmt.Fprintf(w, "%s: %s", name, asked(t, r))
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// asked is a request in the words of the model.
func asked(t *testing.T, r *http.Request) question {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	q := question{method: r.Method, host: r.Host, path: r.URL.EscapedPath(), fields: r.Header, body: string(body)}
	if r.URL.RawQuery != "" {
		q.query = "?" + r.URL.RawQuery
	}
	return q
}

// startSubsets starts a service of as many endpoints as there are subsets.
func startSubsets(t *testing.T, name string) *weirv1.Service {
	s := edge.Service(name)
	for _, subset := range subsets {
		labels := map[string]string{"version": subset}
		s.Spec.Endpoints = append(s.Spec.Endpoints, &weirv1.Endpoint{Address: startService(t, name+"/"+subset), Labels: labels})
		s.Spec.Subsets = append(s.Spec.Subsets, &weirv1.Subset{Name: subset, Labels: labels})
	}
	return s
}

// Shares are exact over a whole round, however many ask at once.
func TestSharesAreByWeight(t *testing.T) {
	r := edge.Route("r", "/", "s0")
	three, none, one := uint32(3), uint32(0), uint32(1)
	r.Spec.Rules[0].BackendRefs = []*weirv1.BackendRef{{Name: "s0", Weight: &three}, {Name: "s1", Weight: &none}, {Name: "s2", Weight: &one}}
	e := edge.Start(t, edge.Service("s0", startService(t, "s0")), edge.Service("s1", startService(t, "s1")),
		edge.Service("s2", startService(t, "s2")), r)
	var mu sync.Mutex
	shares := map[string]int{}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			tr := new(http.Transport)
			defer tr.CloseIdleConnections()
			for range 50 {
				r, _ := http.NewRequest("GET", "http://"+e.Addr+"/", nil)
				resp, err := tr.RoundTrip(r)
				if err != nil {
					t.Error(err)
					return
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				mu.Lock()
				shares[string(body[:2])]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if shares["s0"] != 150 || shares["s1"] != 0 || shares["s2"] != 50 {
		t.Errorf("of 200 requests by weights 3, 0 and 1 the services were asked %v", shares)
	}
}
