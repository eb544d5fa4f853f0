package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/telemetry"
)

// startBoth starts an edge that serves resources, by TLS or in the clear.
func startBoth(t *testing.T, secure bool, change func(*proxy.Config), s *weirv1.Service, r *weirv1.Route) *edge {
	t.Helper()
	e := startEdgeWith(t, change, s, r)
	if secure {
		e.apply(certificate(t, "shop", "shop.example"), gateway(secureListener("https", "", nil, "shop")))
	}
	return e
}

// do sends a request and reads its answer whole.
func do(t testing.TB, client *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := client.Do(req)
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

func newRequest(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// opaque hides what a reader is, so that its length is not known.
type opaque struct{ io.Reader }

// Bodies of any size pass both ways, many at a time on one connection.
func TestHTTP2Bodies(t *testing.T) {
	both(t, func(t *testing.T, secure bool, scheme string) {
		s := service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
			w.Write(body)
		}))
		client := startBoth(t, secure, func(*proxy.Config) {}, s, route("r", "/", "s")).h2Client(secure)
		random := rand.NewChaCha8([32]byte{1})
		var all sync.WaitGroup
		for i, size := range []int{0, 1, 100, 4096, 4097, 16 << 10, 64 << 10, 100_000, 300_000, 2 << 20} {
			data := make([]byte, size)
			random.Read(data)
			for _, announced := range []bool{true, false} {
				all.Go(func() {
					var body io.Reader = bytes.NewReader(data)
					if !announced {
						body = opaque{body}
					}
					resp, got := do(t, client, newRequest(t, "POST", scheme+"://shop.example/", body))
					if sha256.Sum256([]byte(got)) != sha256.Sum256(data) {
						t.Errorf("%d: %s, %d bytes came back of %d (as the service saw it: %s)", i, resp.Status, len(got), size, resp.Header.Get("X-Length"))
					}
				})
			}
		}
		all.Wait()
	})
}

func TestHTTP2Trailers(t *testing.T) {
	both(t, func(t *testing.T, secure bool, scheme string) {
		s := service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Trailer", "X-Back")
			w.Write([]byte("body"))
			w.Header().Set("X-Back", "saw "+r.Trailer.Get("X-Sum"))
		}))
		client := startBoth(t, secure, func(*proxy.Config) {}, s, route("r", "/", "s")).h2Client(secure)
		req := newRequest(t, "POST", scheme+"://shop.example/", opaque{strings.NewReader("request")})
		req.Trailer = http.Header{"X-Sum": {"5"}}
		if resp, body := do(t, client, req); body != "body" || resp.Trailer.Get("X-Back") != "saw 5" {
			t.Errorf("got %q, %v", body, resp.Trailer)
		}
	})
}

// What is answered without a body says the same as by HTTP/1.1.
func TestHTTP2WithoutABody(t *testing.T) {
	s := service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.Header().Set("Etag", `"a"`)
			w.WriteHeader(304)
		default:
			w.Write([]byte("hello"))
		}
	}))
	client := startBoth(t, false, func(*proxy.Config) {}, s, route("r", "/", "s")).h2Client(false)
	for _, c := range []struct {
		method, path string
		status       int
		length       int64
	}{{"HEAD", "/", 200, 5}, {"GET", "/204", 204, 0}, {"GET", "/304", 304, 0}, {"GET", "/", 200, 5}} {
		resp, body := do(t, client, newRequest(t, c.method, "http://shop.example"+c.path, nil))
		if resp.StatusCode != c.status || c.status == 200 && resp.ContentLength != c.length || (c.method == "GET" && c.path == "/") != (body == "hello") {
			t.Errorf("%s %s: %s, length %d, %q", c.method, c.path, resp.Status, resp.ContentLength, body)
		}
	}
}

// Weir's own answers are the same, whatever the protocol, and so is what is
// written down of an exchange.
func TestHTTP2ErrorsAndAccessLog(t *testing.T) {
	var log bytes.Buffer
	access := telemetry.NewAccessLog(&log, telemetry.NewMetrics("test").LogLost)
	s := service("s", deadAddress(t))
	e := startBoth(t, true, func(c *proxy.Config) { c.Access = access }, s, route("r", "/books", "s"))
	client := e.h2Client(true)
	for path, want := range map[string]string{"/nowhere": "no_route", "/books": "connect_failed", "/books/..%2fx": "bad_path"} {
		resp, body := do(t, client, newRequest(t, "GET", "https://shop.example"+path, nil))
		if resp.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(body, "urn:weir:problem:"+want) || resp.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: %s %q", path, resp.Status, body)
		}
	}
	if err := e.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	access.Close()
	if text := log.String(); strings.Count(text, `"protocol":"HTTP/2"`) != 3 || !strings.Contains(text, `"tls_version":"TLSv1.3"`) {
		t.Errorf("the log says %s", text)
	}
}

func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A client that gives up a request has its service's connection ended, while
// other requests of the same connection go on.
func TestHTTP2Cancel(t *testing.T) {
	asked, left := make(chan struct{}), make(chan struct{})
	addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		if r.URL.Path == "/wait" {
			close(asked)
			in.ReadByte() // until the proxy hangs up
			close(left)
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	client := startBoth(t, true, func(*proxy.Config) {}, service("s", addr), route("r", "/", "s")).h2Client(true)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := client.Do(newRequest(t, "GET", "https://shop.example/wait", nil).WithContext(ctx))
		failed <- err
	}()
	<-asked
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-left
	if _, body := do(t, client, newRequest(t, "GET", "https://shop.example/", nil)); body != "ok" {
		t.Errorf("got %q", body)
	}
}

// One connection serves the hosts of its listener alone.
func TestHTTP2Misdirected(t *testing.T) {
	e := startEdge(t, gateway(secureListener("a", "shop.example", nil, "a"), secureListener("b", "b.example", nil, "a")),
		certificate(t, "a", "shop.example", "b.example"), echo(t), route("r", "/", "echo"))
	client := e.h2Client(true)
	for host, want := range map[string]int{"shop.example": 200, "b.example": 421} {
		req := newRequest(t, "GET", "https://shop.example/", nil)
		req.Host = host
		if resp, body := do(t, client, req); resp.StatusCode != want {
			t.Errorf("%s: %s %s", host, resp.Status, body)
		}
	}
}

func TestHTTP2Shutdown(t *testing.T) {
	both(t, func(t *testing.T, secure bool, scheme string) {
		asked, finish := make(chan struct{}), make(chan struct{})
		s := service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
			close(asked)
			<-finish
			w.Write([]byte("ok"))
		}))
		e := startBoth(t, secure, func(*proxy.Config) {}, s, route("r", "/", "s"))
		client := e.h2Client(secure)
		answered := make(chan string, 1)
		go func() {
			_, body := do(t, client, newRequest(t, "GET", scheme+"://shop.example/", nil))
			answered <- body
		}()
		<-asked
		done := make(chan error, 1)
		go func() { done <- e.Shutdown(t.Context()) }()
		waitFor(t, func() bool {
			c, err := net.Dial("tcp", e.addr)
			if err == nil {
				c.Close()
			}
			return err != nil
		}, func() string { return "it accepts still" })
		close(finish)
		if body := <-answered; body != "ok" {
			t.Errorf("the request under way got %q", body)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A shutdown takes as long as its context, whatever the exchanges wait for.
func TestHTTP2Cut(t *testing.T) {
	asked := make(chan struct{}, 1)
	never := scripted(t, func(_ *net.TCPConn, in *bufio.Reader, _ *http.Request) { asked <- struct{}{}; io.Copy(io.Discard, in) })
	e := startBoth(t, true, func(*proxy.Config) {}, service("s", never), route("r", "/", "s"))
	client := e.h2Client(true)
	failed := make(chan error, 1)
	go func() {
		_, err := client.Do(newRequest(t, "GET", "https://shop.example/", nil))
		failed <- err
	}()
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("it was answered")
	}
}

// Policies see an exchange of HTTP/2 as any other, and the client's connection.
func TestHTTP2Policies(t *testing.T) {
	m := &markers{}
	e := startEdgeWith(t, func(c *proxy.Config) { c.Policies = m },
		gateway(secureListener("https", "", nil, "shop")), certificate(t, "shop", "shop.example"),
		service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s%s", r.Header.Get("X-Seen"), body)
		})), route("r", "/", "s"),
		plugins("mark")[0], attach("one", "mark", "Route", "r", weirv1.PolicySpec_AUTHN))
	resp, body := do(t, e.h2Client(true), newRequest(t, "POST", "https://shop.example/", strings.NewReader("body")))
	if body != "onebody" || resp.Header.Get("X-Back") != "one " {
		t.Errorf("got %q, %v", body, resp.Header)
	}
}

// A body that was here when the request was forwarded can be sent again.
func TestHTTP2Retries(t *testing.T) {
	var tries int
	s := service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if tries++; tries == 1 {
			w.WriteHeader(503)
			return
		}
		w.Write(body)
	}))
	e := startBoth(t, false, func(*proxy.Config) {}, s, route("r", "/", "s", func(r *weirv1.RouteRule) {
		r.Retry = &weirv1.RouteRetry{Attempts: 2, Codes: []uint32{503}}
	}))
	c := dial(t, e.addr)
	var out bytes.Buffer
	framer := http2.NewFramer(&out, c)
	out.WriteString(http2.ClientPreface)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(framer.WriteSettings())
	// PUT / of shop.example, by the static table.
	must(framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true,
		BlockFragment: []byte("\x02\x03PUT\x86\x84\x01\x0cshop.example")}))
	must(framer.WriteData(1, true, []byte("again")))
	c.send(out.String())
	for {
		f, err := framer.ReadFrame()
		must(err)
		if f, ok := f.(*http2.DataFrame); ok {
			if string(f.Data()) != "again" || tries != 2 {
				t.Errorf("got %q after %d tries", f.Data(), tries)
			}
			return
		}
	}
}

// One connection carries many exchanges at the same time.
func TestHTTP2Multiplexes(t *testing.T) {
	const n = 100
	var mu sync.Mutex
	here, all := 0, make(chan struct{})
	s := service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if here++; here == n {
			close(all)
		}
		mu.Unlock()
		<-all // every request is here before one is answered
		w.Write([]byte(r.URL.Path))
	}))
	e := startBoth(t, true, func(*proxy.Config) {}, s, route("r", "/", "s"))
	client := e.h2Client(true)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			path := fmt.Sprintf("/%d", i)
			if _, body := do(t, client, newRequest(t, "GET", "https://shop.example"+path, nil)); body != path {
				t.Errorf("%s got %q", path, body)
			}
		})
	}
	wait.Wait()
}

// A client that neither reads nor leaves is given up.
func TestHTTP2StalledClient(t *testing.T) {
	done := make(chan struct{})
	addr := scripted(t, func(c *net.TCPConn, _ *bufio.Reader, _ *http.Request) {
		defer close(done)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		for block := make([]byte, 64<<10); ; {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	e := startEdgeWith(t, func(c *proxy.Config) { c.ClientStall = 100 * time.Millisecond }, service("s", addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	c.send(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x00\x04\x01\x00\x00\x00\x00" +
		"\x00\x00\x11\x01\x05\x00\x00\x00\x01\x82\x86\x84\x01\x0cshop.example")
	<-done
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	both(t, func(t *testing.T, secure bool, scheme string) {
		e := startBoth(t, secure, func(*proxy.Config) {}, echo(t), route("r", "/", "echo"))
		_, port, _ := net.SplitHostPort(e.addr)
		version := "--http2-prior-knowledge"
		if secure {
			version = "--http2"
		}
		out, err := exec.CommandContext(t.Context(), curl, "-sS", "-k", version, "--noproxy", "*", "--resolve", "shop.example:"+port+":127.0.0.1",
			"-w", " %{http_version} %{http_code}", "-d", "hello", scheme+"://shop.example:"+port+"/path").CombinedOutput()
		if want := "POST shop.example:" + port + "/path 2 200"; err != nil || string(out) != want {
			t.Errorf("%v: %q, want %q", err, out, want)
		}
	})
}
