package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/telemetry"
)

// edge is a proxy under test with one gateway, "public".
type edge struct {
	*proxy.Proxy
	t        testing.TB
	addr     string
	udp      string // for HTTP/3
	revision uint64
}

// startEdge starts a proxy whose gateway listens on a free loopback port,
// whatever port it declares.
func startEdge(t testing.TB, resources ...resource.Message) *edge {
	t.Helper()
	return startEdgeWith(t, func(*proxy.Config) {}, resources...)
}

// impatient makes a proxy whose clients have no time.
func impatient(c *proxy.Config) {
	c.ClientIdle, c.ClientHead, c.ClientStall = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
}

func startEdgeWith(t testing.TB, change func(*proxy.Config), resources ...resource.Message) *edge {
	t.Helper()
	e := &edge{t: t}
	cfg := proxy.Config{
		Metrics: telemetry.NewMetrics("test"),
		Logger:  slog.New(slog.NewTextHandler(t.Output(), nil)),
		Listen: func(network, _ string) (net.Listener, error) {
			l, err := net.Listen(network, "127.0.0.1:0")
			if err == nil {
				e.addr = l.Addr().String()
			}
			return l, err
		},
		ListenPacket: func(network, _ string) (net.PacketConn, error) {
			c, err := net.ListenPacket(network, "127.0.0.1:0")
			if err == nil {
				e.udp = c.LocalAddr().String()
			}
			return c, err
		},
		ClientHalfClosed: 2 * time.Minute, // tests end what they say so, and have time
	}
	change(&cfg)
	p, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	e.Proxy = p
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	gateway := &weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "public"}, Spec: &weirv1.GatewaySpec{
		Listeners: []*weirv1.Listener{{Name: "http", Port: 80, Protocol: weirv1.Listener_HTTP}}}}
	e.apply(append([]resource.Message{gateway}, resources...)...)
	return e
}

// apply brings resources into force.
func (e *edge) apply(resources ...resource.Message) {
	e.t.Helper()
	if err := e.try(resources...); err != nil {
		e.t.Fatal(err)
	}
}

func (e *edge) try(resources ...resource.Message) error {
	e.revision++
	u := proxy.Update{Revision: e.revision}
	for _, r := range resources {
		u.Puts = append(u.Puts, resource.Wrap(r))
	}
	return e.Update(e.t.Context(), u)
}

func (e *edge) url(path string) string { return "http://" + e.addr + path }

func service(name string, addresses ...string) *weirv1.Service {
	s := &weirv1.Service{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.ServiceSpec{}}
	for _, a := range addresses {
		s.Spec.Endpoints = append(s.Spec.Endpoints, &weirv1.Endpoint{Address: a})
	}
	return s
}

func route(name, prefix, to string, change ...func(*weirv1.RouteRule)) *weirv1.Route {
	rule := &weirv1.RouteRule{
		Matches:     []*weirv1.RouteMatch{{Path: &weirv1.PathMatch{Type: weirv1.PathMatch_PATH_PREFIX, Value: prefix}}},
		BackendRefs: []*weirv1.BackendRef{{Name: to}},
	}
	for _, c := range change {
		c(rule)
	}
	return &weirv1.Route{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.RouteSpec{
		ParentRefs: []*weirv1.ParentRef{{Name: "public"}}, Rules: []*weirv1.RouteRule{rule}}}
}

func upstreamServer(t testing.TB, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func get(t testing.TB, url string, header ...string) (*http.Response, string) {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := (&http.Transport{DisableKeepAlives: true, DisableCompression: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestForwards(t *testing.T) {
	var seen http.Request
	e := startEdge(t, service("books", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		seen = *r
		w.Header().Set("X-From", "books")
		w.WriteHeader(201)
		io.WriteString(w, "hello")
	})), route("books", "/books", "books"))
	resp, body := get(t, e.url("/books/1?a=b%20c"), "Host", "shop.example", "X-Forwarded-For", "6.6.6.6", "Connection", "X-Secret", "X-Secret", "1")
	if resp.StatusCode != 201 || body != "hello" || resp.Header.Get("X-From") != "books" {
		t.Errorf("got %d %q %v", resp.StatusCode, body, resp.Header)
	}
	if seen.URL.String() != "/books/1?a=b%20c" || seen.Host != "shop.example" {
		t.Errorf("the service saw %s at %s", seen.URL, seen.Host)
	}
	if got := seen.Header.Get("X-Forwarded-For"); got != "127.0.0.1" {
		t.Errorf("X-Forwarded-For is the client's address, not what it claims: %q", got)
	}
	if seen.Header.Get("X-Secret") != "" || seen.Header.Get("Connection") != "" {
		t.Errorf("fields of this hop are not passed on: %v", seen.Header)
	}
	if id := resp.Header.Get("X-Request-Id"); len(id) != 32 || seen.Header.Get("X-Request-Id") != id {
		t.Errorf("the request id is the same on both sides: %q and %q", id, seen.Header.Get("X-Request-Id"))
	}
}

func TestOwnAnswersAreProblems(t *testing.T) {
	dead, _ := net.Listen("tcp", "127.0.0.1:0")
	address := dead.Addr().String()
	dead.Close()
	e := startEdge(t,
		service("dead", address), route("dead", "/dead", "dead"),
		service("none"), route("none", "/none", "none"),
		service("slow", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(time.Minute):
			}
		})), route("slow", "/slow", "slow", func(r *weirv1.RouteRule) {
			r.Timeouts = &weirv1.RouteTimeouts{Request: duration(50 * time.Millisecond)}
		}),
		service("broken", rawServer(t, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
		})),
		route("broken", "/broken", "broken"),
	)
	for _, c := range []struct {
		path   string
		status int
		code   string
	}{
		{"/nowhere", 404, "no_route"},
		{"/dead", 503, "connect_failed"},
		{"/none", 503, "no_endpoint"},
		{"/slow", 504, "upstream_timeout"},
		{"/broken", 502, "upstream_failed"},
		{"/dead/../../etc", 400, "bad_path"},
		{"/dead/%2e%2e/%2E./etc", 400, "bad_path"},
	} {
		resp, body := rawGet(t, e.addr, c.path)
		if resp.StatusCode != c.status || !strings.Contains(body, `"urn:weir:problem:`+c.code+`"`) ||
			resp.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(body, resp.Header.Get("X-Request-Id")) {
			t.Errorf("%s: got %d %s", c.path, resp.StatusCode, body)
		}
	}
}

// rawGet sends a path as it is.
func rawGet(t testing.TB, addr, path string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", path)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	body, _ := io.ReadAll(resp.Body)
	return resp, string(body)
}

// rawServer hands each connection, once a request's head was read, to f.
func rawServer(t testing.TB, f func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					f(c)
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestBodiesStreamBothWays(t *testing.T) {
	e := startEdge(t, service("echo", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})), route("echo", "/", "echo"))
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	for _, c := range []struct {
		name   string
		body   string
		sized  bool
		length string
	}{
		{"nothing", "", true, "0"},
		{"small, sized", "hello", true, "5"},
		{"small, chunked", "hello", false, "-1"},
		{"large, sized", big, true, fmt.Sprint(len(big))},
		{"large, chunked", big, false, "-1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r io.Reader = strings.NewReader(c.body)
			if !c.sized {
				r = io.MultiReader(r) // hides the length
			}
			for range 3 { // on one connection
				resp, err := http.Post(e.url("/"), "text/plain", r)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(got) != c.body || resp.Header.Get("X-Length") != c.length {
					t.Fatalf("got %d bytes, length %s, %v", len(got), resp.Header.Get("X-Length"), err)
				}
				if !c.sized {
					return
				}
				r = strings.NewReader(c.body)
			}
		})
	}
}

func TestConfigurationChangesUnderLoad(t *testing.T) {
	answer := func(name string) string {
		return upstreamServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) })
	}
	a, b := answer("a"), answer("b")
	e := startEdge(t, service("s", a), route("r", "/", "s"))
	var served, wrong atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	for range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			for ctx.Err() == nil {
				resp, err := http.Get(e.url("/"))
				if err != nil {
					wrong.Add(1)
					continue
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || string(body) != "a" && string(body) != "b" {
					wrong.Add(1)
				}
				served.Add(1)
			}
		}()
	}
	for i := range 200 {
		e.apply(service("s", []string{a, b}[i%2]), route("r", "/", "s"))
		time.Sleep(time.Millisecond)
	}
	stop()
	for range 8 {
		<-done
	}
	if wrong.Load() > 0 || served.Load() < 100 {
		t.Errorf("%d of %d requests failed", wrong.Load(), served.Load())
	}
}

func TestRefusedUpdateChangesNothing(t *testing.T) {
	e := startEdge(t, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "good") })), route("r", "/", "s"))
	if err := e.try(route("r", "/", "missing")); err == nil {
		t.Fatal("a route to nothing was accepted")
	}
	if _, body := get(t, e.url("/")); body != "good" {
		t.Errorf("the last good configuration does not serve: %q", body)
	}
	// What was refused is still wanted, and comes into force once it can.
	e.apply(service("missing", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "late") })))
	if _, body := get(t, e.url("/")); body != "late" {
		t.Errorf("got %q", body)
	}
}
