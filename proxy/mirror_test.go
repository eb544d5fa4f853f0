package proxy_test

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	goproxyproto "github.com/pires/go-proxyproto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
)

// shadow records what is mirrored to it.
type shadow struct {
	mu   sync.Mutex
	seen []string
}

func (s *shadow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, fmt.Sprintf("%s %s%s %s %d", r.Method, r.Host, r.URL, r.Header.Get("X-Set"), len(body)))
	w.WriteHeader(500) // nobody cares
}

func (s *shadow) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

func mirrorTo(name string) *weirv1.RouteFilter {
	return &weirv1.RouteFilter{RequestMirror: &weirv1.RequestMirror{BackendRef: &weirv1.BackendRef{Name: name}}}
}

func TestMirror(t *testing.T) {
	var first, second shadow
	e, metric := measured(t, func(*proxy.Config) {}, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})), service("first", upstreamServer(t, first.ServeHTTP)), service("second", upstreamServer(t, second.ServeHTTP)),
		filtered(mirrorTo("first"), mirrorTo("second"),
			&weirv1.RouteFilter{RequestHeaderModifier: &weirv1.HeaderModifier{Set: []*weirv1.HeaderValue{pair("X-Set", "a")}}},
			&weirv1.RouteFilter{UrlRewrite: &weirv1.UrlRewrite{Path: &weirv1.PathModifier{Type: weirv1.PathModifier_REPLACE_PREFIX_MATCH, ReplacePrefixMatch: "/v2"}}}))
	total := 0
	for _, c := range []struct {
		name   string
		body   int
		sized  bool
		copied bool
	}{
		{"no body", 0, true, true},
		{"a small body", 100, true, true},
		{"a body that streams", 30_000, false, true},
		{"the longest body", 64 << 10, true, true},
		{"too long a body", 64<<10 + 1, true, false},
		{"too long a stream", 200_000, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var body io.Reader = strings.NewReader(strings.Repeat("x", c.body))
			if !c.sized {
				body = io.MultiReader(body)
			}
			req := newRequest(t, "POST", e.url("/p?q"), body)
			req.Host = "shop.example"
			resp, got := do(t, http.DefaultClient, req)
			if resp.StatusCode != 200 || got != fmt.Sprint(c.body) {
				t.Errorf("the original: %s %s", resp.Status, got)
			}
			if !c.copied {
				return
			}
			total++
			for name, s := range map[string]*shadow{"first": &first, "second": &second} {
				waitFor(t, func() bool { return s.count() == total }, func() string { return fmt.Sprintf("%s has seen %q", name, s.seen) })
				s.mu.Lock()
				if got, want := s.seen[total-1], fmt.Sprintf("POST shop.example/v2/p?q a %d", c.body); got != want {
					t.Errorf("%s has seen %q, not %q", name, got, want)
				}
				s.mu.Unlock()
			}
		})
	}
	for outcome, want := range map[string]string{"answered": fmt.Sprint(total), "too_long": "2", "failed": "0", "incomplete": "0", "full": "0"} {
		series := `weir_mirrored_requests_total{outcome="` + outcome + `",route="default/r",service="default/first"}`
		waitFor(t, func() bool { return metric(series) == want }, func() string { return outcome + ": " + metric(series) + " are counted, not " + want })
	}
}

func TestAPartIsMirrored(t *testing.T) {
	var copies shadow
	part := mirrorTo("shadow")
	part.RequestMirror.Fraction = &weirv1.Fraction{Numerator: 1, Denominator: new(uint32)}
	*part.RequestMirror.Fraction.Denominator = 4
	e, metric := measured(t, seeded, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {})),
		service("shadow", upstreamServer(t, copies.ServeHTTP)), filtered(part))
	for range 400 {
		do(t, http.DefaultClient, newRequest(t, "GET", e.url("/"), nil))
	}
	series := `weir_mirrored_requests_total{outcome="answered",route="default/r",service="default/shadow"}`
	waitFor(t, func() bool { return metric(series) == "84" }, func() string { return "copies, of this seed: " + metric(series) })
}

// A mirror that hangs costs the original nothing: what is above its bound is
// dropped, and all of it ends with the proxy.
func TestMirrorThatHangs(t *testing.T) {
	hang := make(chan struct{})
	stuck := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer stuck.Close()
	defer close(hang)
	e, metric := measured(t, func(*proxy.Config) {}, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })),
		service("stuck", stuck.Listener.Addr().String()), filtered(mirrorTo("stuck")))
	for i := range 200 {
		text := fmt.Sprint("request ", i)
		resp, body := do(t, http.DefaultClient, newRequest(t, "POST", e.url("/"), strings.NewReader(text)))
		if resp.StatusCode != 200 || body != text {
			t.Fatalf("the original: %s %s", resp.Status, body)
		}
	}
	if got := metric(`weir_mirrored_requests_total{outcome="full",route="default/r",service="default/stuck"}`); got != "72" {
		t.Errorf("%s copies above the bound of 128 are dropped", cmp.Or(got, "no"))
	}
	e.apply(route("r", "/", "s")) // the generation with the mirror is held until its copies end
	if err := e.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// A mirror is a reference like any other: it must be there, and a change of the
// service is a change of the mirror.
func TestMirrorFollowsItsService(t *testing.T) {
	var first, second shadow
	e := startEdge(t, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {})), route("r", "/", "s"))
	if err := e.try(filtered(mirrorTo("shadow"))); err == nil || !strings.Contains(err.Error(), "mirror to shadow") {
		t.Fatalf("a mirror that is not there: %v", err)
	}
	e.apply(service("shadow", upstreamServer(t, first.ServeHTTP)))
	get(t, e.url("/"))
	waitFor(t, func() bool { return first.count() == 1 }, func() string { return "nothing is mirrored" })
	e.apply(service("shadow", upstreamServer(t, second.ServeHTTP)))
	get(t, e.url("/"))
	waitFor(t, func() bool { return second.count() == 1 }, func() string { return "the mirror does not follow" })
	if first.count() != 1 {
		t.Error("the old endpoint is still mirrored to")
	}
}

// Copies outlive the generation that they were made under; nothing is lost by
// that, whatever changes meanwhile.
func TestMirrorsUnderChanges(t *testing.T) {
	var copies shadow
	address := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	})
	shadowAddress := upstreamServer(t, copies.ServeHTTP)
	e, metric := measured(t, func(*proxy.Config) {}, service("s", address), service("shadow", shadowAddress), filtered(mirrorTo("shadow")))
	done := make(chan int)
	for range 4 {
		go func() {
			served := 0
			for i := range 100 {
				text := strings.Repeat("x", i*100)
				resp, err := http.Post(e.url("/"), "text/plain", opaque{strings.NewReader(text)})
				if err != nil {
					t.Error(err)
					continue
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err == nil && resp.StatusCode == 200 && string(got) == text {
					served++
				}
			}
			done <- served
		}()
	}
	for finished, served := 0, 0; finished < 4; {
		select {
		case n := <-done:
			finished++
			if served += n; finished == 4 && served != 400 {
				t.Errorf("%d of 400 originals were served", served)
			}
		default:
			e.apply(service("shadow", shadowAddress), filtered(mirrorTo("shadow")))
		}
	}
	told := func() (n int) {
		for _, outcome := range []string{"answered", "failed", "full", "too_long", "incomplete"} {
			var of int
			_, _ = fmt.Sscan(metric(`weir_mirrored_requests_total{outcome="`+outcome+`",route="default/r",service="default/shadow"}`), &of)
			n += of
		}
		return n
	}
	waitFor(t, func() bool { return told() == 400 }, func() string { return fmt.Sprintf("what became of %d of 400 copies is told", told()) })
	if copies.count() == 0 {
		t.Error("nothing was mirrored")
	}
}

func TestMirrorIsDownOrTheClientLeaves(t *testing.T) {
	e, metric := measured(t, func(*proxy.Config) {}, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })),
		service("down", deadAddress(t)), filtered(mirrorTo("down")))
	if resp, _ := get(t, e.url("/")); resp.StatusCode != 200 {
		t.Errorf("the original: %s", resp.Status)
	}
	count := func(outcome string) func() bool {
		return func() bool {
			return metric(`weir_mirrored_requests_total{outcome="`+outcome+`",route="default/r",service="default/down"}`) == "1"
		}
	}
	waitFor(t, count("failed"), func() string { return "a copy that found nobody is not counted" })
	c := dial(t, e.addr)
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf")
	c.Close()
	waitFor(t, count("incomplete"), func() string { return "a request that broke off is not counted" })
}

// A service that is mirrored to is told what it would be told of an original: who
// the client is, and that trailers are welcome.
func TestMirrorSaysWhoAsks(t *testing.T) {
	seen := make(chan string, 2)
	behind := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.RemoteAddr }))
	behind.Listener = &goproxyproto.Listener{Listener: behind.Listener}
	behind.Start()
	t.Cleanup(behind.Close)
	e := startEdge(t, service("s", upstreamServer(t, func(http.ResponseWriter, *http.Request) {})),
		sending(service("shadow", behind.Listener.Addr().String()), weirv1.ServiceSpec_V2), filtered(mirrorTo("shadow")))
	c := dial(t, e.addr)
	c.exchange(getX)
	if got := <-seen; got != c.LocalAddr().String() {
		t.Errorf("it sees %s, not %s", got, c.LocalAddr())
	}
	byHTTP2 := h2Server(t, false, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Get("Te") })
	byHTTP2.Metadata.Name = "shadow"
	e.apply(byHTTP2)
	req := newRequest(t, "GET", e.url("/"), nil)
	req.Header.Set("TE", "trailers")
	do(t, e.h2Client(false), req)
	if got := <-seen; got != "trailers" {
		t.Errorf("TE: %q", got)
	}
}

// Copies for which there is no connection to be had say nothing of the endpoint.
func TestMirrorWithoutRoomEjectsNobody(t *testing.T) {
	hang := make(chan struct{})
	stuck := upstreamServer(t, func(http.ResponseWriter, *http.Request) { <-hang })
	s := service("shadow", stuck)
	s.Spec.Limits = &weirv1.Limits{MaxConnections: 1, MaxPendingRequests: new(uint32)}
	s.Spec.OutlierDetection = &weirv1.OutlierDetection{BaseEjectionTime: duration(time.Hour), Consecutive_5Xx: new(uint32)}
	*s.Spec.OutlierDetection.Consecutive_5Xx = 1
	e, metric := measured(t, func(c *proxy.Config) { c.AdminAddress = "127.0.0.1:0" }, service("s", upstreamServer(t, func(http.ResponseWriter, *http.Request) {})), s, filtered(mirrorTo("shadow")))
	defer close(hang)
	for range 3 {
		get(t, e.url("/"))
	}
	failed := `weir_mirrored_requests_total{outcome="failed",route="default/r",service="default/shadow"}`
	waitFor(t, func() bool { return metric(failed) == "2" }, func() string { return "failed: " + metric(failed) })
	if got := metric(fmt.Sprintf(`weir_upstream_endpoint_ejected{endpoint="%s",service="default/shadow"}`, stuck)); got != "0" {
		t.Errorf("ejected: %q", got)
	}
}
