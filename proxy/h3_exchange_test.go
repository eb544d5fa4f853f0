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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/telemetry"
)

// startH3 starts an edge that serves resources by HTTP/3, and a client of it.
func startH3(t *testing.T, change func(*proxy.Config), s *weirv1.Service, r *weirv1.Route) (*edge, *http.Client) {
	t.Helper()
	e := startEdgeWith(t, change, s, r)
	e.apply(certificate(t, "shop", "shop.example"), gateway(secureListener("https", "", nil, "shop")))
	return e, e.h3Client()
}

func TestHTTP3Bodies(t *testing.T) {
	s := service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		w.Write(body)
	}))
	_, client := startH3(t, func(*proxy.Config) {}, s, route("r", "/", "s"))
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
				resp, got := do(t, client, newRequest(t, "POST", "https://shop.example/", body))
				if sha256.Sum256([]byte(got)) != sha256.Sum256(data) {
					t.Errorf("%d: %s, %d bytes came back of %d (as the service saw it: %s)", i, resp.Status, len(got), size, resp.Header.Get("X-Length"))
				}
			})
		}
	}
	all.Wait()
}

// A request that expects no body is forwarded without one, whenever its end comes.
func TestHTTP3WithoutABody(t *testing.T) {
	s := service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
			t.Errorf("%s was forwarded with a body: %d, %v", r.Method, r.ContentLength, r.TransferEncoding)
		}
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
	_, client := startH3(t, func(*proxy.Config) {}, s, route("r", "/", "s"))
	for _, c := range []struct {
		method, path string
		status       int
		length       int64
	}{{"HEAD", "/", 200, 5}, {"GET", "/204", 204, 0}, {"GET", "/304", 304, 0}, {"DELETE", "/204", 204, 0}, {"GET", "/", 200, 5}} {
		resp, body := do(t, client, newRequest(t, c.method, "https://shop.example"+c.path, nil))
		if resp.StatusCode != c.status || c.status == 200 && resp.ContentLength != c.length || (c.method == "GET" && c.path == "/") != (body == "hello") {
			t.Errorf("%s %s: %s, length %d, %q", c.method, c.path, resp.Status, resp.ContentLength, body)
		}
	}
}

func TestHTTP3Trailers(t *testing.T) {
	s := service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "X-Back")
		w.Write([]byte("body"))
		w.Header().Set("X-Back", "saw "+r.Trailer.Get("X-Sum"))
	}))
	_, client := startH3(t, func(*proxy.Config) {}, s, route("r", "/", "s"))
	req := newRequest(t, "POST", "https://shop.example/", opaque{strings.NewReader("request")})
	req.Trailer = http.Header{"X-Sum": {"5"}}
	if resp, body := do(t, client, req); body != "body" || resp.Trailer.Get("X-Back") != "saw 5" {
		t.Errorf("got %q, %v", body, resp.Trailer)
	}
}

// Both sides may speak at the same time.
func TestHTTP3FullDuplex(t *testing.T) {
	s := service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		for in := bufio.NewReader(r.Body); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprintf(w, "got %s", line)
			w.(http.Flusher).Flush()
		}
	}))
	_, client := startH3(t, func(*proxy.Config) {}, s, route("r", "/", "s"))
	body, send := io.Pipe()
	answers := make(chan *http.Response, 1)
	go func() {
		resp, err := client.Do(newRequest(t, "POST", "https://shop.example/", body))
		if err != nil {
			t.Error(err)
			close(answers)
			return
		}
		answers <- resp
	}()
	io.WriteString(send, "first\n")
	resp := <-answers
	if resp == nil {
		return
	}
	defer resp.Body.Close()
	for in, i := bufio.NewReader(resp.Body), 0; i < 3; i++ {
		line, err := in.ReadString('\n')
		if want := []string{"got first\n", "got again\n", "got again\n"}[i]; err != nil || line != want {
			t.Fatalf("got %q, %v", line, err)
		}
		io.WriteString(send, "again\n")
	}
	send.Close()
}

func TestHTTP3ErrorsAndAccessLog(t *testing.T) {
	var log bytes.Buffer
	access := telemetry.NewAccessLog(&log, telemetry.NewMetrics("test").LogLost)
	e, client := startH3(t, func(c *proxy.Config) { c.Access = access }, service("s", deadAddress(t)), route("r", "/books", "s"))
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
	if text := log.String(); strings.Count(text, `"protocol":"HTTP/3"`) != 3 || !strings.Contains(text, `"tls_version":"TLSv1.3"`) {
		t.Errorf("the log says %s", text)
	}
}

// A client that gives up a request has its service's connection ended, while
// other requests of the same connection go on.
func TestHTTP3Cancel(t *testing.T) {
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
	_, client := startH3(t, func(*proxy.Config) {}, service("s", addr), route("r", "/", "s"))
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

// An answer whose time is over while it comes is given up, as by HTTP/2; one that
// its service breaks off is an error inside.
func TestHTTP3AnswerBreaksOff(t *testing.T) {
	over := make(chan struct{})
	s := service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "the first half")
		w.(http.Flusher).Flush()
		if r.URL.Path == "/broken" {
			panic(http.ErrAbortHandler)
		}
		<-over
	}))
	defer close(over)
	_, client := startH3(t, func(*proxy.Config) {}, s, route("r", "/", "s", func(r *weirv1.RouteRule) {
		r.Timeouts = &weirv1.RouteTimeouts{Request: duration(200 * time.Millisecond)}
	}))
	for path, want := range map[string]http3.ErrCode{"/late": http3.ErrCodeRequestCanceled, "/broken": http3.ErrCodeInternalError} {
		resp, err := client.Get("https://shop.example" + path)
		if err == nil { // else the reset has overtaken the head
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		var reset *http3.Error
		if !errors.As(err, &reset) || reset.ErrorCode != want {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

// A shutdown lets the exchanges under way end, and their answers arrive.
func TestHTTP3Shutdown(t *testing.T) {
	asked, finish := make(chan struct{}), make(chan struct{})
	answer := strings.Repeat("ok", 500_000)
	s := service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-finish
		io.WriteString(w, answer)
	}))
	e, client := startH3(t, func(*proxy.Config) {}, s, route("r", "/", "s"))
	answered := make(chan string, 1)
	go func() {
		_, body := do(t, client, newRequest(t, "GET", "https://shop.example/", nil))
		answered <- body
	}()
	<-asked
	done := make(chan error, 1)
	go func() { done <- e.Shutdown(t.Context()) }()
	waitFor(t, func() bool {
		resp, err := e.h3Client().Get("https://shop.example/")
		if err == nil {
			resp.Body.Close()
		}
		return err != nil
	}, func() string { return "it accepts still" })
	close(finish)
	if body := <-answered; body != answer {
		t.Errorf("the request under way got %d bytes", len(body))
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A shutdown takes as long as its context, whatever the exchanges wait for.
func TestHTTP3Cut(t *testing.T) {
	asked := make(chan struct{}, 1)
	never := scripted(t, func(_ *net.TCPConn, in *bufio.Reader, _ *http.Request) { asked <- struct{}{}; io.Copy(io.Discard, in) })
	e, client := startH3(t, func(*proxy.Config) {}, service("s", never), route("r", "/", "s"))
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

func TestHTTP3Policies(t *testing.T) {
	m := &markers{}
	e := startEdgeWith(t, func(c *proxy.Config) { c.Policies = m },
		gateway(secureListener("https", "", nil, "shop")), certificate(t, "shop", "shop.example"),
		service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s%s", r.Header.Get("X-Seen"), body)
		})), route("r", "/", "s"),
		plugins("mark")[0], attach("one", "mark", "Route", "r", weirv1.PolicySpec_AUTHN))
	resp, body := do(t, e.h3Client(), newRequest(t, "POST", "https://shop.example/", strings.NewReader("body")))
	if body != "onebody" || resp.Header.Get("X-Back") != "one " {
		t.Errorf("got %q, %v", body, resp.Header)
	}
}

// One connection carries many exchanges at the same time.
func TestHTTP3Multiplexes(t *testing.T) {
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
	_, client := startH3(t, func(*proxy.Config) {}, s, route("r", "/", "s"))
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

// Connections outlive changes of the configuration and of certificates.
func TestHTTP3ChangesUnderTraffic(t *testing.T) {
	e, client := startH3(t, func(*proxy.Config) {}, echo(t), route("r", "/", "echo"))
	do(t, client, newRequest(t, "GET", "https://shop.example/", nil))
	e.apply(certificate(t, "shop", "shop.example"), route("r", "/new", "echo"))
	for path, want := range map[string]int{"/": 404, "/new": 200} {
		if resp, _ := do(t, client, newRequest(t, "GET", "https://shop.example"+path, nil)); resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	if resp, _ := do(t, e.h3Client(), newRequest(t, "GET", "https://shop.example/new", nil)); resp.StatusCode != 200 {
		t.Errorf("a new connection: %s", resp.Status)
	}
}
