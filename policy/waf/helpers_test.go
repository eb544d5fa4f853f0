package waf_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/waf"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
	"github.com/weirmesh/weir/test/edge"
)

// settings reads a firewall's.
func settings(t testing.TB, text string) *weirv1.Firewall {
	t.Helper()
	document := "apiVersion: weir/v1\nkind: Policy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Route, name: r}], waf: " + text + "}\n"
	read, err := manifest.Parse("settings.yaml", []byte(document))
	if err != nil {
		t.Fatal(err)
	}
	if wrong := resource.Validate(read[0].Resource); len(wrong) > 0 {
		t.Fatal(wrong)
	}
	return read[0].Resource.GetPolicy().GetSpec().GetWaf()
}

// line is what the firewall tells of an exchange.
type line struct {
	Level, Action, Policy, Route, Client, Method, Path, Score string

	RequestID string `json:"request_id"`
	Status    int
	Hits      int
	Rules     []waf.Hit
}

func (l line) has(rule int) bool {
	for _, h := range l.Rules {
		if h.Rule == rule {
			return true
		}
	}
	return false
}

// journal keeps the lines of a firewall by the ids of requests.
type journal struct {
	mu    sync.Mutex
	lines map[string]line
	raw   bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.raw.Write(b)
	var l line
	if err := json.Unmarshal(b, &l); err != nil {
		return 0, err
	}
	if j.lines == nil {
		j.lines = map[string]line{}
	}
	j.lines[l.RequestID] = l
	return len(b), nil
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.raw.String()
}

func (j *journal) of(id string) (line, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l, ok := j.lines[id]
	return l, ok
}

// site is an edge with a firewall in front of a service.
type site struct {
	*edge.Edge
	host    *waf.Host
	journal journal
	t       testing.TB
	seen    chan seen // what the service was asked
}

// seen is a request as the service has read it.
type seen struct {
	method, path, body string
	header             http.Header
	length             int64
}

// start runs a site whose service answers by the handler; nil: with "ok".
func start(t testing.TB, f *weirv1.Firewall, answer http.HandlerFunc) *site {
	t.Helper()
	warm()
	s := &site{t: t, seen: make(chan seen, 1000)}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			select {
			case s.seen <- seen{r.Method, r.URL.RequestURI(), string(body), r.Header, r.ContentLength}:
			default: // nobody is interested in so many
			}
		}
		if answer != nil {
			r.Body = io.NopCloser(bytes.NewReader(body))
			answer(w, r)
			return
		}
		fmt.Fprint(w, "ok")
	}))
	t.Cleanup(service.Close)
	s.host = waf.NewHost(waf.Config{Logger: slog.New(slog.NewJSONHandler(&s.journal, nil))})
	s.Edge = edge.StartWith(t, func(c *proxy.Config) { c.Policies = s.host },
		edge.Service("s", strings.TrimPrefix(service.URL, "http://")), edge.Route("r", "/", "s"), firewall("shield", f))
	return s
}

// warm keeps a ruleset for the tests' lifetime, so that the engine has the core rules'
// expressions compiled whatever ruleset comes and goes.
var warm = sync.OnceFunc(func() {
	f := &weirv1.Firewall{InspectResponse: true}
	config, err := policy.EncodeFirewall(f)
	if err == nil {
		_, err = waf.NewHost(waf.Config{}).Make(context.Background(), policy.Spec{Native: policy.Firewall, Config: config}, nil)
	}
	if err != nil {
		panic(err)
	}
})

// firewall declares a policy on the route.
func firewall(name string, f *weirv1.Firewall) resource.Message {
	return &weirv1.Policy{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.PolicySpec{
		TargetRefs: []*weirv1.TargetRef{{Kind: "Route", Name: "r"}}, Waf: f}}
}

// answer is what a client gets.
type answer struct {
	*http.Response
	body string
	id   string
}

// ask sends a request: "METHOD target", then fields, an empty line and a body whose
// length is added. It is sent as it stands.
func (s *site) ask(request string) answer {
	s.t.Helper()
	head, body, _ := strings.Cut(request, "\n\n")
	lines := strings.Split(head, "\n")
	lines[0] += " HTTP/1.1"
	for _, field := range []string{"Host: shop.example", "User-Agent: test", "Accept: */*"} {
		if name, _, _ := strings.Cut(field, ":"); !strings.Contains(head, "\n"+name+":") {
			lines = append(lines, field)
		}
	}
	if body != "" && !strings.Contains(head, "Transfer-Encoding") {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return s.send([]byte(strings.Join(lines, "\r\n") + "\r\n\r\n" + body))
}

// send writes bytes and reads one answer.
func (s *site) send(request []byte) answer {
	s.t.Helper()
	a, err := s.exchange(request)
	if err != nil {
		s.t.Fatalf("%.200q: %v", request, err)
	}
	return a
}

func (s *site) exchange(request []byte) (a answer, err error) {
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(edge.Patience))
	go conn.Write(request) // what cannot be written is not answered either
	method, _, _ := strings.Cut(string(request), " ")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return a, err
	}
	body, err := io.ReadAll(response.Body)
	return answer{response, string(body), response.Header.Get("X-Request-Id")}, err
}

// told is the line of an exchange, which is written when it is over; "": there was
// nothing to tell. It asks once more, so that what came before is over.
func (s *site) told(a answer) line {
	s.t.Helper()
	for limit := time.Now().Add(edge.Patience); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		if l, ok := s.journal.of(a.id); ok {
			return l
		}
	}
	s.t.Fatalf("no line tells of exchange %s", a.id)
	return line{}
}

func check(t *testing.T, f *weirv1.Firewall) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), edge.Patience)
	defer cancel()
	return waf.NewHost(waf.Config{}).Check(ctx, f)
}

func update(revision uint64, resources ...resource.Message) proxy.Update {
	u := proxy.Update{Revision: revision}
	for _, r := range resources {
		u.Puts = append(u.Puts, resource.Wrap(r))
	}
	return u
}
