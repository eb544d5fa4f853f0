package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
)

// farm starts n endpoints; each answers with its number.
func farm(t *testing.T, n int) (addresses []string) {
	for i := range n {
		addresses = append(addresses, upstreamServer(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, i) }))
	}
	return addresses
}

func farmService(t *testing.T, n int, lb *weirv1.LoadBalancing) *weirv1.Service {
	s := service("s", farm(t, n)...)
	s.Spec.LoadBalancing = lb
	return s
}

func TestAHashKeepsRequestsTogether(t *testing.T) {
	for _, c := range []struct {
		name   string
		hash   *weirv1.HashPolicy
		policy weirv1.LoadBalancing_Policy
		ask    func(user int) (path, header string)
		spread bool
	}{
		{"header", &weirv1.HashPolicy{Header: "X-User"}, weirv1.LoadBalancing_MAGLEV,
			func(user int) (string, string) { return "/", fmt.Sprint(user) }, true},
		{"query", &weirv1.HashPolicy{Query: "user"}, weirv1.LoadBalancing_RING_HASH,
			func(user int) (string, string) { return fmt.Sprintf("/?a=1&user=%d", user), "" }, true},
		{"address", &weirv1.HashPolicy{Address: true}, weirv1.LoadBalancing_POLICY_UNSPECIFIED,
			func(user int) (string, string) { return "/", fmt.Sprint(user) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := startEdge(t, farmService(t, 4, &weirv1.LoadBalancing{Policy: c.policy, Hash: c.hash}), route("r", "/", "s"))
			used := map[string]bool{}
			for user := range 20 {
				path, header := c.ask(user)
				_, first := get(t, e.url(path), "X-User", header)
				for range 3 {
					if _, again := get(t, e.url(path), "X-User", header); again != first {
						t.Fatalf("user %d is sent to %s and %s", user, first, again)
					}
				}
				used[first] = true
			}
			if c.spread != (len(used) > 1) {
				t.Errorf("20 users are sent to %d endpoints", len(used))
			}
		})
	}
}

func TestSessionsAreSticky(t *testing.T) {
	hash := &weirv1.HashPolicy{Cookie: &weirv1.HashCookie{Name: "shop", Path: "/x", Ttl: duration(time.Hour)}}
	e := startEdge(t, farmService(t, 4, &weirv1.LoadBalancing{Hash: hash}), route("r", "/", "s"))
	used := map[string]bool{}
	for range 20 {
		resp, first := get(t, e.url("/"))
		used[first] = true
		given := resp.Cookies()
		if len(given) != 1 || given[0].Name != "shop" || given[0].Path != "/x" || given[0].MaxAge != 3600 || !given[0].HttpOnly || given[0].Secure {
			t.Fatalf("given %v", resp.Header["Set-Cookie"])
		}
		for range 3 {
			resp, again := get(t, e.url("/"), "Cookie", "other=1; shop="+given[0].Value)
			if again != first || len(resp.Cookies()) != 0 {
				t.Fatalf("sent to %s and %s, given %v", first, again, resp.Cookies())
			}
		}
	}
	if len(used) < 2 {
		t.Error("20 sessions are sent to one endpoint")
	}
}

func TestNamesAreResolved(t *testing.T) {
	addr := netip.MustParseAddrPort(farm(t, 1)[0])
	lookup := func(_ context.Context, network, host string) ([]netip.Addr, error) {
		if network != "ip4" || host != "books.internal" {
			t.Errorf("asked for %s %s", network, host)
		}
		return []netip.Addr{addr.Addr()}, nil
	}
	s := service("s", fmt.Sprintf("books.internal:%d", addr.Port()))
	s.Spec.Dns = &weirv1.DnsResolution{LookupFamily: weirv1.DnsResolution_V4_ONLY}
	e := startEdgeWith(t, func(c *proxy.Config) { c.Lookup = lookup }, s, route("r", "/", "s"))
	waitFor(t, func() bool { resp, body := get(t, e.url("/")); return resp.StatusCode == 200 && body == "0" },
		func() string { return "it is not reached" })
}

func TestChecksKeepRequestsAwayFromTheIll(t *testing.T) {
	var ill atomic.Bool
	sick := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/healthz" && ill.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path != "/healthz":
			fmt.Fprint(w, "sick")
		}
	})
	ill.Store(true)
	well := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "well") })
	s := service("s", sick, well)
	s.Spec.HealthCheck = &weirv1.HealthCheck{Interval: duration(100 * time.Millisecond), HealthyThreshold: 1,
		Http: &weirv1.HttpHealthCheck{Path: "/healthz"}}
	e := startEdgeWith(t, func(c *proxy.Config) { c.AdminAddress = "127.0.0.1:0" }, s, route("r", "/", "s"))
	page := func(path string) string { _, text := get(t, "http://"+e.AdminAddr()+path); return text }
	health := func(endpoint string, n int) func() bool {
		line := fmt.Sprintf("weir_upstream_endpoint_health{endpoint=%q,service=\"default/s\"} %d\n", endpoint, n)
		return func() bool { return strings.Contains(page("/metrics"), line) }
	}
	text := func() string { return page("/metrics") + page("/debug/config") }
	waitFor(t, health(well, 1), text)
	waitFor(t, health(sick, 0), text)
	waitFor(t, func() bool { return strings.Contains(page("/debug/config"), `"Reason":"it answers 503`) }, text)
	for range 20 {
		if _, body := get(t, e.url("/")); body != "well" {
			t.Fatalf("sent to the one that is %s", body)
		}
	}
	ill.Store(false)
	waitFor(t, health(sick, 1), text)
	waitFor(t, func() bool { _, body := get(t, e.url("/")); return body == "sick" }, text)
}

// held is an endpoint that keeps requests until it is told to answer.
func held(t *testing.T) (addr string, asked chan struct{}, answer chan struct{}) {
	asked, answer = make(chan struct{}), make(chan struct{})
	addr = scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		asked <- struct{}{}
		<-answer
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	return addr, asked, answer
}

func TestAboveALimitIsAnsweredAtOnce(t *testing.T) {
	none := uint32(0)
	for _, c := range []struct {
		limit  string
		limits *weirv1.Limits
	}{
		{"requests", &weirv1.Limits{MaxRequests: 1}},
		{"pending", &weirv1.Limits{MaxConnections: 1, MaxPendingRequests: &none}},
	} {
		t.Run(c.limit, func(t *testing.T) {
			addr, asked, answer := held(t)
			s := service("s", addr)
			s.Spec.Limits = c.limits
			e := startEdgeWith(t, func(c *proxy.Config) { c.AdminAddress = "127.0.0.1:0" }, s, route("r", "/", "s"))
			first := dial(t, e.addr)
			first.send(getX)
			<-asked
			resp, body := get(t, e.url("/"))
			if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "urn:weir:problem:overloaded") {
				t.Errorf("got %d %s", resp.StatusCode, body)
			}
			answer <- struct{}{}
			if resp, _ := first.answer("GET"); resp.StatusCode != 200 {
				t.Errorf("the first got %d", resp.StatusCode)
			}
			want := fmt.Sprintf("weir_upstream_overflow_total{limit=%q,service=\"default/s\"} 1\n", c.limit)
			if _, text := get(t, "http://"+e.AdminAddr()+"/metrics"); !strings.Contains(text, want) {
				t.Errorf("%s is not in %s", want, text)
			}
		})
	}
}

// faulty fails in some way as long as it has failures left, then answers with
// how much body it got.
type faulty struct {
	mu       sync.Mutex
	failures []string
	seen     []string
}

func (f *faulty) start(t *testing.T) string {
	return scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		f.mu.Lock()
		if err == nil {
			f.seen = append(f.seen, fmt.Sprintf("%s %d %s", r.Method, len(body), r.Trailer.Get("x")))
		}
		fault := ""
		if len(f.failures) > 0 {
			fault, f.failures = f.failures[0], f.failures[1:]
		}
		f.mu.Unlock()
		switch fault {
		case "reset":
			c.SetLinger(0)
		case "hang":
			io.Copy(io.Discard, in)
		case "":
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
		default:
			fmt.Fprintf(c, "HTTP/1.1 %s Bad\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbad", fault)
		}
	})
}

func TestWhatIsTriedAgain(t *testing.T) {
	const large = 20_000
	chunked := func(method, rest string) string {
		return method + " / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n" + strings.Repeat("x", large) + "\r\n0\r\n" + rest
	}
	sized := func(method string, n int) string {
		return fmt.Sprintf("%s / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", method, n, strings.Repeat("x", n))
	}
	quick := &weirv1.RouteRetry{Attempts: 2, Codes: []uint32{503}, Backoff: duration(time.Millisecond)}
	for _, c := range []struct {
		name, request string
		failures      []string
		retry         *weirv1.RouteRetry
		status, tries int
	}{
		{"a code", getX, []string{"503"}, quick, 200, 2},
		{"twice", getX, []string{"503", "503"}, quick, 200, 3},
		{"more often than allowed", getX, []string{"503", "503", "503"}, quick, 503, 3},
		{"another code", getX, []string{"500"}, quick, 500, 1},
		{"no retries", getX, []string{"503"}, nil, 503, 1},
		{"a reset before the answer", getX, []string{"reset"}, quick, 200, 2},
		{"a reset without retries", getX, []string{"reset"}, nil, 502, 1},
		{"no answer in time", getX, []string{"hang", "hang"}, quick, 200, 3},
		{"POST may have had an effect", postX, []string{"reset"}, quick, 502, 1},
		{"POST and a code", postX, []string{"503"}, quick, 503, 1},
		{"PUT with a small body", sized("PUT", 3), []string{"503", "reset"}, quick, 200, 3},
		{"PUT with a body that comes in parts", chunked("PUT", "\r\n"), []string{"503", "reset"}, quick, 200, 3},
		{"PUT with a large body", sized("PUT", large), []string{"reset", "503"}, quick, 200, 3},
		{"PUT with one that is not kept", sized("PUT", 100_000), []string{"503"}, quick, 503, 1},
		{"trailers are not sent twice", chunked("PUT", "X: y\r\n\r\n"), []string{"503"}, quick, 503, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &faulty{failures: c.failures}
			e := startEdge(t, service("s", f.start(t)), route("r", "/", "s", func(r *weirv1.RouteRule) {
				r.Retry = c.retry
				if c.failures[0] == "hang" {
					r.Timeouts = &weirv1.RouteTimeouts{BackendRequest: duration(2 * time.Second)}
				}
			}))
			resp, body := dial(t, e.addr).exchange(c.request)
			f.mu.Lock()
			defer f.mu.Unlock()
			if resp.StatusCode != c.status || len(f.seen) != c.tries {
				t.Errorf("got %d %s after %q", resp.StatusCode, body, f.seen)
			}
			for _, seen := range f.seen {
				if seen != f.seen[0] {
					t.Errorf("not the same each time: %q", f.seen)
				}
			}
		})
	}
}

func TestRetriesNeedABudget(t *testing.T) {
	none := uint32(0)
	f := &faulty{failures: []string{"503"}}
	s := service("s", f.start(t))
	s.Spec.Limits = &weirv1.Limits{RetryBudget: &weirv1.RetryBudget{BudgetPercent: &none, MinRetryConcurrency: &none}}
	e := startEdgeWith(t, func(c *proxy.Config) { c.AdminAddress = "127.0.0.1:0" }, s,
		route("r", "/", "s", func(r *weirv1.RouteRule) { r.Retry = &weirv1.RouteRetry{Attempts: 5, Codes: []uint32{503}} }))
	if resp, body := get(t, e.url("/")); resp.StatusCode != 503 || body != "bad" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	const want = `weir_upstream_overflow_total{limit="retries",service="default/s"} 1`
	if _, text := get(t, "http://"+e.AdminAddr()+"/metrics"); !strings.Contains(text, want) {
		t.Errorf("%s is not in %s", want, text)
	}
}

// A retry that could not end in time is not begun.
func TestNoRetryWithoutTime(t *testing.T) {
	f := &faulty{failures: []string{"503", "503", "503", "503", "503", "503", "503", "503", "503"}}
	e := startEdge(t, service("s", f.start(t)), route("r", "/", "s", func(r *weirv1.RouteRule) {
		r.Retry = &weirv1.RouteRetry{Attempts: 8, Codes: []uint32{503}, Backoff: duration(10_000 * time.Hour)}
		r.Timeouts = &weirv1.RouteTimeouts{Request: duration(30 * time.Second)}
	}))
	if resp, body := get(t, e.url("/")); resp.StatusCode != 503 || body != "bad" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}
