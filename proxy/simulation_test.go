package proxy_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
)

// moody is an endpoint that behaves differently each moment.
type moody struct {
	addr  string
	tally *tally

	mu     sync.Mutex
	mood   string
	change chan struct{} // closed when the mood changes
}

// tally counts how often each request was seen, by whichever endpoint.
type tally struct {
	mu   sync.Mutex
	seen map[string]int

	delay        time.Duration
	retries      int // under way
	mostRetries  int
	totalRetries int
}

func newTally() *tally { return &tally{seen: map[string]int{}} }

// begin notes a request, and returns what notes its end.
func (c *tally) begin(id string) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[id]++; c.seen[id] == 1 {
		return func() {}
	}
	c.retries++
	c.totalRetries++
	c.mostRetries = max(c.mostRetries, c.retries)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.retries--
	}
}

func startMoody(t *testing.T, c *tally, mood string) *moody {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &moody{addr: l.Addr().String(), tally: c, mood: mood, change: make(chan struct{})}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { m.serve(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return m
}

func (m *moody) now() (mood string, change chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mood, m.change
}

func (m *moody) set(mood string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.change)
	m.mood, m.change = mood, make(chan struct{})
}

func (m *moody) serve(c *net.TCPConn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	in := bufio.NewReader(c)
	for {
		if mood, _ := m.now(); mood == "dead" {
			c.SetLinger(0)
			return
		}
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		if !m.answer(c, r) {
			return
		}
	}
}

// answer reports whether the connection can be used again.
func (m *moody) answer(c *net.TCPConn, r *http.Request) bool {
	end := m.tally.begin(r.Header.Get("X-Id"))
	mood, change := m.now()
	time.Sleep(m.tally.delay)
	status := 200
	switch mood {
	case "reset", "dead":
		c.SetLinger(0)
		end()
		return false
	case "hang":
		<-change
		c.SetLinger(0)
		end()
		return false
	case "nonsense":
		end()
		io.WriteString(c, "what?\r\n\r\n")
		return false
	case "slow":
		time.Sleep(3 * time.Millisecond)
	case "busy":
		status = 503
	}
	end()
	_, err := fmt.Fprintf(c, "HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok", status)
	return err == nil && mood != "slow" // which closes without having said so
}

// chaos changes moods until it is told to stop.
func chaos(r *rand.Rand, stop chan struct{}, all []*moody) {
	moods := []string{"well", "well", "slow", "busy", "reset", "dead", "hang", "nonsense"}
	for {
		select {
		case <-stop:
			for _, m := range all {
				m.set("well") // lets go of what hangs
			}
			return
		case <-time.After(time.Duration(r.IntN(5)) * time.Millisecond):
			all[r.IntN(len(all))].set(moods[r.IntN(len(moods))])
		}
	}
}

// clients sends requests from several clients at once, and judges each answer.
func clients(n, each int, url string, judge func(client int, r *rand.Rand, do func(method, id string) (int, error))) {
	var all sync.WaitGroup
	var ids atomic.Int64
	for client := range n {
		all.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			r := rand.New(rand.NewPCG(uint64(client), 3))
			do := func(method, id string) (int, error) {
				var body io.Reader
				if method != "GET" {
					body = strings.NewReader(strings.Repeat("x", r.IntN(10_000)))
				}
				req, err := http.NewRequest(method, url, body)
				if err != nil {
					return 0, err
				}
				req.Header.Set("X-Id", id)
				resp, err := transport.RoundTrip(req)
				if err != nil {
					return 0, err
				}
				defer resp.Body.Close()
				_, err = io.Copy(io.Discard, resp.Body)
				return resp.StatusCode, err
			}
			for range each {
				judge(client, r, func(method, _ string) (int, error) { return do(method, fmt.Sprint(ids.Add(1))) })
			}
		})
	}
	all.Wait()
}

// Whatever endpoints do, as long as one of them is well: what can be sent again
// safely is answered, what cannot is sent once, no more endpoints are ejected
// than may be, and nothing is left behind.
func TestEndpointsThatFailInEveryWay(t *testing.T) {
	before := goleak.IgnoreCurrent()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runChaos(t, seed) })
	}
	waitFor(t, func() bool { return goleak.Find(before) == nil }, func() string { return goleak.Find(before).Error() })
}

func runChaos(t *testing.T, seed uint64) {
	seen := newTally()
	well := startMoody(t, seen, "well")
	ill := []*moody{startMoody(t, seen, "well"), startMoody(t, seen, "well")}
	s := service("s", well.addr, ill[0].addr, ill[1].addr, "127.0.0.1:1") // where nobody listens
	s.Spec.LoadBalancing = &weirv1.LoadBalancing{Policy: weirv1.LoadBalancing_Policy(1 + seed%3)}
	percent, plenty := uint32(50), uint32(10_000)
	s.Spec.OutlierDetection = &weirv1.OutlierDetection{BaseEjectionTime: duration(100 * time.Millisecond),
		MaxEjectionTime: duration(200 * time.Millisecond), MaxEjectionPercent: &percent}
	s.Spec.Limits = &weirv1.Limits{RetryBudget: &weirv1.RetryBudget{MinRetryConcurrency: &plenty}}
	e := startEdgeWith(t, func(c *proxy.Config) { c.AdminAddress = "127.0.0.1:0" }, s,
		route("r", "/", "s", func(r *weirv1.RouteRule) {
			r.Retry = &weirv1.RouteRetry{Attempts: 4, Codes: []uint32{503}, Backoff: duration(time.Millisecond)}
		}))
	stop := make(chan struct{})
	var helpers sync.WaitGroup
	helpers.Go(func() { chaos(rand.New(rand.NewPCG(seed, 4)), stop, ill) })
	helpers.Go(func() { watchEjections(t, e, stop, 2) })

	clients(8, 100, e.url("/"), func(_ int, r *rand.Rand, do func(method, id string) (int, error)) {
		method := []string{"GET", "PUT", "POST"}[r.IntN(3)]
		status, err := do(method, "")
		if err != nil || method != "POST" && status != 200 {
			t.Errorf("%s: %d %v", method, status, err)
		}
	})
	close(stop)
	helpers.Wait()
}

// watchEjections looks again and again at how many endpoints are ejected.
func watchEjections(t *testing.T, e *edge, stop chan struct{}, most int) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
		_, text := get(t, "http://"+e.AdminAddr()+"/debug/config")
		var page struct{ Endpoints []struct{ Ejected bool } }
		if err := json.Unmarshal([]byte(text), &page); err != nil {
			t.Errorf("%v in %s", err, text)
		}
		out := 0
		for _, endpoint := range page.Endpoints {
			if endpoint.Ejected {
				out++
			}
		}
		if len(page.Endpoints) != 4 || out > most {
			t.Errorf("%d endpoints are ejected, at most %d may: %s", out, most, text)
		}
	}
}

// What may have had an effect is not sent again.
func TestPOSTIsSeenOnce(t *testing.T) {
	seen := newTally()
	ill := []*moody{startMoody(t, seen, "well"), startMoody(t, seen, "well"), startMoody(t, seen, "well")}
	e := startEdge(t, service("s", ill[0].addr, ill[1].addr, ill[2].addr), route("r", "/", "s", func(r *weirv1.RouteRule) {
		r.Retry = &weirv1.RouteRetry{Attempts: 4, Codes: []uint32{503}, Backoff: duration(time.Millisecond)}
	}))
	stop := make(chan struct{})
	var helpers sync.WaitGroup
	helpers.Go(func() { chaos(rand.New(rand.NewPCG(1, 5)), stop, ill) })
	clients(8, 100, e.url("/"), func(_ int, _ *rand.Rand, do func(method, id string) (int, error)) {
		if _, err := do("POST", ""); err != nil {
			t.Error(err)
		}
	})
	close(stop)
	helpers.Wait()
	seen.mu.Lock()
	defer seen.mu.Unlock()
	for id, n := range seen.seen {
		if n > 1 {
			t.Errorf("request %s was seen %d times", id, n)
		}
	}
}

// When all fail, retries are a fifth of what is under way and no more.
func TestRetriesStayWithinTheirBudget(t *testing.T) {
	seen := newTally()
	seen.delay = time.Millisecond
	busy := []*moody{startMoody(t, seen, "busy"), startMoody(t, seen, "busy")}
	e := startEdge(t, service("s", busy[0].addr, busy[1].addr), route("r", "/", "s", func(r *weirv1.RouteRule) {
		r.Retry = &weirv1.RouteRetry{Attempts: 3, Codes: []uint32{503}, Backoff: duration(time.Millisecond)}
	}))
	const n = 40
	clients(n, 20, e.url("/"), func(_ int, _ *rand.Rand, do func(method, id string) (int, error)) {
		if status, err := do("GET", ""); err != nil || status != 503 {
			t.Errorf("%d %v", status, err)
		}
	})
	seen.mu.Lock()
	defer seen.mu.Unlock()
	if seen.mostRetries > n/5 || seen.totalRetries == 0 {
		t.Errorf("%d retries at a time, %d in all; the budget is %d", seen.mostRetries, seen.totalRetries, n/5)
	}
}
