package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/telemetry"
)

// pack is a service of endpoints of which the first that is asked keeps its answer
// to itself until it is given up, or until all is over.
type pack struct {
	*weirv1.Service
	asked, givenUp atomic.Int64
	release        chan struct{}
	mu             sync.Mutex
	bodies         []string
	after          http.HandlerFunc // of those that are asked later
	slow           http.HandlerFunc // what the first does instead of waiting
}

func startPack(t *testing.T, n int, serve func(http.HandlerFunc) *weirv1.Service) *pack {
	p := &pack{release: make(chan struct{})}
	p.after = func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "quick") }
	p.slow = func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			p.givenUp.Add(1)
		case <-p.release:
			io.WriteString(w, "slow")
		}
	}
	t.Cleanup(func() { close(p.release) })
	for range n {
		s := serve(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			p.mu.Lock()
			p.bodies = append(p.bodies, r.Method+" "+string(body)+r.Header.Get("X-Field"))
			p.mu.Unlock()
			if p.asked.Add(1) == 1 {
				p.slow(w, r)
				return
			}
			p.after(w, r)
		})
		if p.Service == nil {
			p.Service = s
		} else {
			p.Spec.Endpoints = append(p.Spec.Endpoints, s.Spec.Endpoints...)
		}
	}
	one := uint32(1)
	p.Spec.OutlierDetection = &weirv1.OutlierDetection{Consecutive_5Xx: &one, BaseEjectionTime: duration(time.Hour)}
	return p
}

func plain(t *testing.T) func(http.HandlerFunc) *weirv1.Service {
	return func(h http.HandlerFunc) *weirv1.Service { return service("s", upstreamServer(t, h)) }
}

func (p *pack) ejected(t *testing.T, e *edge) bool {
	_, page := get(t, "http://"+e.AdminAddr()+"/metrics")
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "weir_upstream_endpoint_ejected") && strings.HasSuffix(line, " 1\n") {
			return true
		}
	}
	return false
}

// hedged starts an edge that asks another endpoint soon.
func hedged(t *testing.T, p *pack, attempts uint32) (*edge, *journal) {
	return hedgedAfter(t, p, attempts, 5*time.Millisecond)
}

func hedgedAfter(t *testing.T, p *pack, attempts uint32, delay time.Duration) (*edge, *journal) {
	j := new(journal)
	return startEdgeWith(t, func(c *proxy.Config) {
		c.AdminAddress, c.ClientHalfClosed = "127.0.0.1:0", 10*time.Millisecond
		c.Access = telemetry.NewAccessLog(j, c.Metrics.LogLost)
		t.Cleanup(c.Access.Close)
	}, p.Service, route("r", "/", "s", func(r *weirv1.RouteRule) {
		r.Hedging = &weirv1.RouteHedging{Delay: duration(delay), Attempts: attempts}
		r.Retry = &weirv1.RouteRetry{Codes: []uint32{503}}
	})), j
}

// The endpoint that answers first is heard; the other is given up, and not blamed.
func TestHedging(t *testing.T) {
	long, won := strings.Repeat("quick ", 50_000), 0
	for name, serve := range map[string]func(http.HandlerFunc) *weirv1.Service{
		"HTTP/1.1": plain(t),
		"HTTP/2":   func(h http.HandlerFunc) *weirv1.Service { return h2Server(t, false, h) },
		"HTTP/3":   func(h http.HandlerFunc) *weirv1.Service { return h3Server(t, h) },
	} {
		for _, method := range []string{"GET", "PUT"} {
			t.Run(name+" "+method, func(t *testing.T) {
				p := startPack(t, 2, serve)
				p.after = func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("X-From", "rival")
					io.WriteString(w, long)
				}
				e, j := hedged(t, p, 0)
				var sent io.Reader
				if method == "PUT" {
					sent = strings.NewReader("body ")
				}
				req, _ := http.NewRequestWithContext(t.Context(), method, e.url("/"), sent)
				req.Header.Set("X-Field", "x")
				if resp, body := do(t, http.DefaultClient, req); resp.StatusCode != 200 || body != long || resp.Header.Get("X-From") != "rival" {
					t.Errorf("got %d, %d bytes of %v", resp.StatusCode, len(body), resp.Header)
				}
				waitFor(t, func() bool { return p.givenUp.Load() == 1 }, func() string { return "the other is waited for" })
				line := j.await(t)
				if line["hedges"] != 1.0 || line["status"] != 200.0 || line["upstream_addr"] == "" {
					t.Errorf("the log says %v", line)
				}
				want := map[string]string{"GET": "GET x", "PUT": "PUT body x"}[method]
				p.mu.Lock()
				if fmt.Sprint(p.bodies) != fmt.Sprintf("[%s %s]", want, want) {
					t.Errorf("asked were %q", p.bodies)
				}
				p.mu.Unlock()
				if p.ejected(t, e) {
					t.Error("the other is blamed")
				}
				_, page := get(t, "http://"+e.AdminAddr()+"/metrics")
				first := strings.Contains(page, "weir_upstream_hedges_total{result=\"lost\",service=\"default/s\"} 1\n") // it reached its endpoint later
				if !first && !strings.Contains(page, "weir_upstream_hedges_total{result=\"won\",service=\"default/s\"} 1\n") {
					t.Error("no hedge is counted")
				}
				if !first {
					won++
				}
				for range 3 { // all is as it was
					if resp, body := get(t, e.url("/")); resp.StatusCode != 200 || body != long {
						t.Errorf("then got %d, %d bytes", resp.StatusCode, len(body))
					}
				}
			})
		}
	}
	if won == 0 {
		t.Error("no hedge has won")
	}
}

// Trailers of the endpoint that won arrive, as those of any.
func TestHedgedTrailers(t *testing.T) {
	p := startPack(t, 2, func(h http.HandlerFunc) *weirv1.Service { return h2Server(t, false, h) })
	p.after = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "quick")
		w.(http.Flusher).Flush()
		w.Header().Set("X-Sum", "5")
	}
	e, _ := hedged(t, p, 0)
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://shop.example/", nil)
	if resp, body := do(t, e.h2Client(false), req); body != "quick" || resp.Trailer.Get("X-Sum") != "5" {
		t.Errorf("got %q, %v", body, resp.Trailer)
	}
}

// No one else is asked than may be.
func TestNoHedging(t *testing.T) {
	const short = 5 * time.Millisecond
	none := uint32(0)
	for name, c := range map[string]struct {
		endpoints int
		method    string
		delay     time.Duration
		asked     int64
		change    func(*pack)
	}{
		"the first is quick":    {2, "GET", time.Second, 1, func(p *pack) { p.slow = p.after }},
		"the answer is well on": {2, "GET", time.Second, 1, func(p *pack) { p.slow = begins(p) }},
		"it could do harm":      {2, "POST", short, 1, func(*pack) {}},
		"there is no other":     {1, "GET", short, 1, func(*pack) {}},
		"the budget is used up": {2, "GET", short, 1, func(p *pack) { p.Spec.Limits = &weirv1.Limits{MaxRetries: &none} }},
		"no more than may be":   {3, "GET", short, 2, func(p *pack) { p.after = p.slow }},
	} {
		t.Run(name, func(t *testing.T) {
			p := startPack(t, c.endpoints, plain(t))
			c.change(p)
			e, j := hedgedAfter(t, p, 1, c.delay)
			answered := make(chan string, 1)
			go func() {
				req, _ := http.NewRequestWithContext(t.Context(), c.method, e.url("/"), nil)
				_, body := do(t, http.DefaultClient, req)
				answered <- body
			}()
			waitFor(t, func() bool { return p.asked.Load() == c.asked }, func() string { return "too few are asked" })
			time.Sleep(c.delay + 50*time.Millisecond) // it would be hedged by now
			if n := p.asked.Load(); n != c.asked {
				t.Errorf("%d were asked", n)
			}
			for heard := false; !heard; {
				select {
				case p.release <- struct{}{}:
				case body := <-answered:
					if heard = true; body != "slow" && body != "quick" {
						t.Errorf("got %q", body)
					}
				}
			}
			hedges, _ := j.await(t)["hedges"].(float64)
			if int64(hedges) != c.asked-1 {
				t.Errorf("the log says %v", hedges)
			}
		})
	}
}

// begins answers at once and goes on later.
func begins(p *pack) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-p.release
		io.WriteString(w, "slow")
	}
}

// What would be tried again is no answer to prefer: the first one that is not
// counts, and what one rival has done wrong another may do well.
func TestHedgesThatFail(t *testing.T) {
	for name, fail := range map[string]http.HandlerFunc{
		"an answer to be tried again": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		"no answer":                   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			p := startPack(t, 3, plain(t))
			var rivals atomic.Int64
			p.after = func(w http.ResponseWriter, r *http.Request) {
				if rivals.Add(1) == 1 {
					fail(w, r)
					return
				}
				io.WriteString(w, "quick")
			}
			e, _ := hedged(t, p, 2)
			if resp, body := get(t, e.url("/")); resp.StatusCode != 200 || body != "quick" {
				t.Errorf("got %d %q", resp.StatusCode, body)
			}
			if p.asked.Load() != 3 {
				t.Errorf("%d were asked", p.asked.Load())
			}
			waitFor(t, func() bool { return p.ejected(t, e) }, func() string { return "who has failed is not blamed" })
		})
		t.Run("all: "+name, func(t *testing.T) {
			p := startPack(t, 2, plain(t))
			p.after = fail
			p.slow = func(w http.ResponseWriter, r *http.Request) { time.Sleep(30 * time.Millisecond); fail(w, r) }
			e, _ := hedged(t, p, 1)
			if resp, _ := get(t, e.url("/")); resp.StatusCode != 503 && resp.StatusCode != 502 {
				t.Errorf("got %d", resp.StatusCode)
			}
		})
	}
}

// A client that leaves ends the race.
func TestTheClientOfARaceLeaves(t *testing.T) {
	p := startPack(t, 2, plain(t))
	p.after = p.slow
	e, j := hedged(t, p, 1)
	c := dial(t, e.addr)
	c.send(getX)
	waitFor(t, func() bool { return p.asked.Load() == 2 }, func() string { return "the other is not asked" })
	c.Close()
	waitFor(t, func() bool { return p.givenUp.Load() == 2 }, func() string { return "the service is waited for" })
	if line := j.await(t); line["status"] != 499.0 || line["hedges"] != 1.0 {
		t.Errorf("the log says %v", line)
	}
	if p.ejected(t, e) {
		t.Error("the service is blamed")
	}
}

// Many at once, of which each may be won by either.
func TestManyRaces(t *testing.T) {
	p := startPack(t, 3, plain(t))
	p.after = func(w http.ResponseWriter, r *http.Request) {
		if p.asked.Load()%3 == 0 {
			time.Sleep(8 * time.Millisecond)
		}
		io.WriteString(w, r.URL.Path)
	}
	p.slow = p.after
	budget := uint32(100)
	p.Spec.Limits = &weirv1.Limits{RetryBudget: &weirv1.RetryBudget{BudgetPercent: &budget}}
	e, _ := hedged(t, p, 2)
	var done sync.WaitGroup
	for i := range 16 {
		done.Go(func() {
			for k := range 50 {
				path := fmt.Sprintf("/%d/%d", i, k)
				if resp, body := get(t, e.url(path)); resp.StatusCode != 200 || body != path {
					t.Errorf("%s: got %d %q", path, resp.StatusCode, body)
				}
			}
		})
	}
	done.Wait()
	if p.ejected(t, e) {
		t.Error("an endpoint is blamed")
	}
}
