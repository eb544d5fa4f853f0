package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/telemetry"
)

// filtered is a route to "s" with filters.
func filtered(filters ...*weirv1.RouteFilter) *weirv1.Route {
	return route("r", "/", "s", func(r *weirv1.RouteRule) { r.Filters = filters })
}

// measured is a proxy whose metrics a test can read.
func measured(t testing.TB, change func(*proxy.Config), resources ...resource.Message) (*edge, func(series string) string) {
	m := telemetry.NewMetrics("test")
	e := startEdgeWith(t, func(c *proxy.Config) {
		c.Metrics = m
		change(c)
	}, resources...)
	return e, func(series string) string {
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		for line := range strings.SplitSeq(w.Body.String(), "\n") {
			if value, ok := strings.CutPrefix(line, series+" "); ok {
				return value
			}
		}
		return ""
	}
}

func TestCORS(t *testing.T) {
	var asked []string
	var mu sync.Mutex
	s := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.Method)
		mu.Unlock()
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("X-Total", "3")
	})
	shares := &weirv1.RouteFilter{Cors: &weirv1.Cors{AllowOrigins: []string{"https://*.shop.example"},
		AllowMethods: []string{"PUT"}, AllowCredentials: true, ExposeHeaders: []string{"X-Total"}}}
	put := filtered(shares)
	put.Spec.Rules[0].Matches[0].Method = "PUT"
	open := route("open", "/open", "s")
	anyone := route("anyone", "/x", "s", func(r *weirv1.RouteRule) {
		r.Filters = []*weirv1.RouteFilter{{Cors: &weirv1.Cors{AllowOrigins: []string{"https://evil.example"}}}}
	})
	anyone.Spec.Rules[0].Matches[0].Method = "OPTIONS"
	put.Spec.Rules[0].Matches[0].Path.Value = "/x"
	e := startEdgeWith(t, with(&markers{}), append(plugins("deny"),
		service("s", s), service("dead", deadAddress(t)), put, open, anyone,
		route("guarded", "/guarded", "s", func(r *weirv1.RouteRule) { r.Filters = []*weirv1.RouteFilter{shares} }),
		route("down", "/down", "dead", func(r *weirv1.RouteRule) { r.Filters = []*weirv1.RouteFilter{shares} }),
		attach("p", "deny", "Route", "guarded", weirv1.PolicySpec_AUTHN))...)
	for _, c := range []struct {
		name, method, path, origin string
		preflight                  string
		status                     int
		allowed, atService         string
	}{
		{"a preflight is for the rule of the method that it asks about", "OPTIONS", "/x", "https://a.shop.example", "PUT", 204, "https://a.shop.example", ""},
		{"a preflight needs no credentials", "OPTIONS", "/guarded", "https://a.shop.example", "PUT", 204, "https://a.shop.example", ""},
		{"another origin's", "OPTIONS", "/x", "https://shop.example.evil", "PUT", 403, "", ""},
		{"where there is no CORS filter it is a request", "OPTIONS", "/open", "https://a.shop.example", "PUT", 200, "*", "OPTIONS"},
		{"what only looks like one", "OPTIONS", "/guarded", "https://a.shop.example", "", 403, "https://a.shop.example", ""},
		{"an answer", "PUT", "/x", "https://a.shop.example", "", 200, "https://a.shop.example", "PUT"},
		{"another origin gets one, too", "PUT", "/x", "https://evil.example", "", 200, "", "PUT"},
		{"no origin", "PUT", "/x", "", "", 200, "", "PUT"},
		{"a policy's answer can be read", "GET", "/guarded", "https://a.shop.example", "", 403, "https://a.shop.example", ""},
		{"an error can be read", "GET", "/down", "https://a.shop.example", "", 503, "https://a.shop.example", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked = nil
			req := newRequest(t, c.method, e.url(c.path), nil)
			if c.origin != "" {
				req.Header.Set("Origin", c.origin)
			}
			if c.preflight != "" {
				req.Header.Set("Access-Control-Request-Method", c.preflight)
			}
			resp, _ := do(t, http.DefaultClient, req)
			if resp.StatusCode != c.status || resp.Header.Get("Access-Control-Allow-Origin") != c.allowed {
				t.Errorf("got %s for %q", resp.Status, resp.Header.Get("Access-Control-Allow-Origin"))
			}
			mu.Lock()
			defer mu.Unlock()
			if got := strings.Join(asked, " "); got != c.atService {
				t.Errorf("the service was asked %q", got)
			}
			if c.path == "/x" && !strings.Contains(strings.Join(resp.Header.Values("Vary"), ","), "Origin") {
				t.Errorf("Vary is %v", resp.Header.Values("Vary"))
			}
		})
	}
}

func TestCompression(t *testing.T) {
	page := strings.Repeat("<p>It was the best of times, it was the worst of times.</p>\n", 2000)
	both(t, func(t *testing.T, secure bool, scheme string) {
		e := startBoth(t, secure, func(*proxy.Config) {}, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Content-Length", fmt.Sprint(len(page)))
			w.Header().Set("ETag", `"1"`)
			io.WriteString(w, page)
		})), filtered(&weirv1.RouteFilter{Compression: &weirv1.Compression{Algorithms: []string{"gzip"}}}))
		clients := []*http.Client{e.h2Client(secure)}
		if !secure {
			clients = append(clients, &http.Client{Transport: &http.Transport{DisableCompression: true}})
		}
		for _, client := range clients {
			defer client.CloseIdleConnections()
			for range 3 { // on one connection
				req := newRequest(t, "GET", scheme+"://shop.example/", nil)
				if client != clients[0] {
					req = newRequest(t, "GET", e.url("/"), nil)
				}
				req.Header.Set("Accept-Encoding", "gzip, br")
				resp, body := do(t, client, req)
				r, err := gzip.NewReader(strings.NewReader(body))
				if err != nil {
					t.Fatalf("%s: %v: %v", resp.Proto, err, resp.Header)
				}
				got, err := io.ReadAll(r)
				if err != nil || string(got) != page || len(body) > len(page)/10 {
					t.Errorf("%s: %d bytes became %d, then %d, %v", resp.Proto, len(page), len(body), len(got), err)
				}
				if resp.Header.Get("ETag") != `W/"1"` || resp.Header.Get("Vary") != "Accept-Encoding" || resp.ContentLength != -1 {
					t.Errorf("%s: %v", resp.Proto, resp.Header)
				}
				req = req.Clone(t.Context())
				req.Method = "HEAD"
				head, _ := do(t, client, req)
				if head.Header.Get("Content-Encoding") != "gzip" || head.ContentLength > 0 || head.Header.Get("ETag") != `W/"1"` {
					t.Errorf("%s: HEAD: %v, length %d", resp.Proto, head.Header, head.ContentLength)
				}
			}
		}
	})
}

// Each event comes when it happens, compressed.
func TestCompressedEventsAreNotHeldBack(t *testing.T) {
	next := make(chan string)
	e := startEdge(t, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for event := range next {
			io.WriteString(w, event)
			w.(http.Flusher).Flush()
		}
	})), filtered(&weirv1.RouteFilter{Compression: &weirv1.Compression{}}))
	req := newRequest(t, "GET", e.url("/"), nil)
	req.Header.Set("Accept-Encoding", "gzip")
	go func() { next <- "data: 0\n\n" }()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r, err := gzip.NewReader(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		want := fmt.Sprintf("data: %d\n\n", i)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v", got, err)
		}
		if i < 4 {
			next <- fmt.Sprintf("data: %d\n\n", i+1)
		}
	}
	close(next)
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("the end: %q, %v", rest, err)
	}
}

func percent(n float64) *float64 { return &n }

// seeded draws the same numbers in every run.
func seeded(c *proxy.Config) {
	var mu sync.Mutex
	source := rand.New(rand.NewPCG(1, 2))
	c.Draw = func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return source.Float64()
	}
}

func TestAborts(t *testing.T) {
	e, metric := measured(t, seeded, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {})), filtered(
		&weirv1.RouteFilter{Fault: &weirv1.Fault{Abort: &weirv1.FaultAbort{Status: 418, Percent: percent(25)}}},
		&weirv1.RouteFilter{Fault: &weirv1.Fault{Abort: &weirv1.FaultAbort{Status: 507},
			Headers: []*weirv1.HeaderMatch{{Name: "X-Chaos", Value: "a, .*", Type: weirv1.HeaderMatch_REGULAR_EXPRESSION}}}}))
	count := map[int]int{}
	for range 400 {
		resp, _ := do(t, http.DefaultClient, newRequest(t, "GET", e.url("/"), nil))
		count[resp.StatusCode]++
	}
	if count[418] != 84 || count[200] != 316 { // of this seed
		t.Errorf("of 400 requests: %v", count)
	}
	if got := metric(`weir_faults_injected_total{fault="abort",route="default/r"}`); got != "84" {
		t.Errorf("%s faults are counted", got)
	}
	req := newRequest(t, "GET", e.url("/"), nil)
	req.Header["X-Chaos"] = []string{"a", "b"}
	resp, body := do(t, http.DefaultClient, req)
	if resp.StatusCode != 507 || !strings.Contains(body, "urn:weir:problem:fault") {
		t.Errorf("a request that matches: %s %s", resp.Status, body)
	}
}

func TestAbortsOfGRPC(t *testing.T) {
	status := uint32(14)
	e := startEdge(t, echo(t), service("s"), filtered(&weirv1.RouteFilter{Fault: &weirv1.Fault{Abort: &weirv1.FaultAbort{GrpcStatus: &status}}}))
	resp, _ := do(t, e.h2Client(false), newRequest(t, "POST", "http://shop.example/a.B/C", strings.NewReader("x")))
	if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "14" || resp.Header.Get("Content-Type") != "application/grpc" {
		t.Errorf("got %s %v", resp.Status, resp.Header)
	}
}

func TestDelays(t *testing.T) {
	const delay = 300 * time.Millisecond
	e, metric := measured(t, func(*proxy.Config) {}, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {})),
		filtered(&weirv1.RouteFilter{Fault: &weirv1.Fault{Delay: &weirv1.FaultDelay{Fixed: duration(delay)}}}),
		route("late", "/late", "s", func(r *weirv1.RouteRule) {
			r.Filters = []*weirv1.RouteFilter{{Fault: &weirv1.Fault{Delay: &weirv1.FaultDelay{Fixed: duration(time.Hour)}}}}
			r.Timeouts = &weirv1.RouteTimeouts{Request: duration(20 * time.Millisecond)}
		}),
		route("never", "/never", "s", func(r *weirv1.RouteRule) {
			r.Filters = []*weirv1.RouteFilter{{Fault: &weirv1.Fault{Delay: &weirv1.FaultDelay{Fixed: duration(time.Hour), Percent: percent(0)}}}}
		}))
	began := time.Now()
	if resp, _ := get(t, e.url("/")); resp.StatusCode != 200 || time.Since(began) < delay {
		t.Errorf("got %s after %s", resp.Status, time.Since(began))
	}
	if resp, _ := get(t, e.url("/late")); resp.StatusCode != 504 {
		t.Errorf("a request whose time is over before it is let go: %s", resp.Status)
	}
	if resp, _ := get(t, e.url("/never")); resp.StatusCode != 200 {
		t.Errorf("nought percent: %s", resp.Status)
	}
	if got := metric(`weir_faults_injected_total{fault="delay",route="default/never"}`); got != "0" {
		t.Errorf("%q of nought percent are counted", got)
	}
}

// A delay ends with its client, or with the proxy.
func TestDelaysAreCutShort(t *testing.T) {
	e, metric := measured(t, func(*proxy.Config) {}, echo(t), service("s"),
		filtered(&weirv1.RouteFilter{Fault: &weirv1.Fault{Delay: &weirv1.FaultDelay{Fixed: duration(time.Hour)}}}))
	delayed := func(n string) {
		waitFor(t, func() bool { return metric(`weir_faults_injected_total{fault="delay",route="default/r"}`) == n }, func() string { return "no request is held back" })
	}
	ctx, leave := context.WithCancel(t.Context())
	req := newRequest(t, "GET", "http://shop.example/", nil).WithContext(ctx)
	go func() {
		delayed("1")
		leave()
	}()
	if _, err := e.h2Client(false).Do(req); err == nil {
		t.Error("the client did not leave")
	}
	waitFor(t, func() bool { return metric(`weir_requests_total{code="499",route="default/r"}`) == "1" }, func() string { return "a client that left is waited for" })
	c := dial(t, e.addr)
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	delayed("2")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := e.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
}

func TestBandwidth(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 60_000)
	e := startEdge(t, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body)
	})),
		filtered(&weirv1.RouteFilter{Fault: &weirv1.Fault{Bandwidth: &weirv1.FaultBandwidth{BytesPerSecond: 100_000}}}))
	began := time.Now()
	resp, got := get(t, e.url("/"))
	if took := time.Since(began); got != string(body) || took < 500*time.Millisecond || resp.ContentLength != int64(len(body)) {
		t.Errorf("%d bytes, of %d announced, took %s", len(got), resp.ContentLength, took)
	}
}

// disconnecting cuts those off that ask for it.
func disconnecting() *weirv1.Route {
	return filtered(&weirv1.RouteFilter{Fault: &weirv1.Fault{Disconnect: &weirv1.FaultDisconnect{},
		Headers: []*weirv1.HeaderMatch{{Name: "X-Chaos", Value: "1"}}}})
}

func TestDisconnectsOfHTTP3(t *testing.T) {
	_, client := startH3(t, func(*proxy.Config) {}, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {})), disconnecting())
	req := newRequest(t, "GET", "https://shop.example/", nil)
	req.Header.Set("X-Chaos", "1")
	if resp, err := client.Do(req); err == nil {
		t.Errorf("got %s", resp.Status)
	}
	if resp, _ := do(t, client, newRequest(t, "GET", "https://shop.example/", nil)); resp.StatusCode != 200 {
		t.Errorf("its connection: %s", resp.Status)
	}
}

func TestDisconnects(t *testing.T) {
	e := startEdge(t, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {})), disconnecting())
	c := dial(t, e.addr)
	c.send("GET / HTTP/1.1\r\nHost: h\r\nX-Chaos: 1\r\n\r\n")
	if n, err := c.TCPConn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("HTTP/1.1: read %d, %v", n, err)
	}
	h2 := e.h2Client(false)
	req := newRequest(t, "GET", "http://shop.example/", nil)
	req.Header.Set("X-Chaos", "1")
	if resp, err := h2.Do(req); err == nil {
		t.Errorf("HTTP/2: got %s", resp.Status)
	}
	if resp, _ := do(t, h2, newRequest(t, "GET", "http://shop.example/", nil)); resp.StatusCode != 200 {
		t.Errorf("its connection: %s", resp.Status)
	}
}
