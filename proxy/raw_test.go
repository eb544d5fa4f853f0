package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// origin is a service that knows of HTTP only what net/http's reader does, and
// writes down what it is sent.
type origin struct {
	addr string

	mu       sync.Mutex
	requests []string // "METHOD target body" of each that came whole
	stray    []string // what a connection ended with that was no whole request
	accepted int
}

// startOrigin starts one; answer serves a request and reports whether the
// connection goes on. nil: a small answer that says what was asked.
func startOrigin(t testing.TB, answer func(c net.Conn, r *http.Request, body string) bool) *origin {
	t.Helper()
	if answer == nil {
		answer = func(c net.Conn, r *http.Request, body string) bool {
			text := fmt.Sprintf("%s %s %s", r.Method, r.RequestURI, body)
			if r.Method == "HEAD" {
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(text))
			} else {
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
			}
			return true
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{addr: l.Addr().String()}
	var all sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			all.Go(func() { o.serve(c, answer) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range conns {
			c.SetReadDeadline(time.Now().Add(2 * time.Minute)) // the proxy should have closed them
		}
		mu.Unlock()
		all.Wait()
	})
	return o
}

func (o *origin) serve(c net.Conn, answer func(net.Conn, *http.Request, string) bool) {
	defer c.Close()
	o.mu.Lock()
	o.accepted++
	o.mu.Unlock()
	var seen bytes.Buffer
	in := bufio.NewReader(io.TeeReader(c, &seen))
	for {
		r, err := http.ReadRequest(in)
		var body []byte
		if err == nil {
			body, err = io.ReadAll(r.Body)
		}
		o.mu.Lock()
		if err != nil {
			if seen.Len() > 0 {
				o.stray = append(o.stray, seen.String())
			}
			o.mu.Unlock()
			return
		}
		o.requests = append(o.requests, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method, r.RequestURI, body)))
		seen.Reset()
		if n := in.Buffered(); n > 0 {
			rest, _ := in.Peek(n)
			seen.Write(rest)
		}
		o.mu.Unlock()
		if !answer(c, r, string(body)) {
			return
		}
	}
}

// expect checks, once the proxy is shut down, that exactly these requests were
// seen. Call it before the proxy is started.
func (o *origin) expect(t testing.TB, want ...string) {
	t.Helper()
	t.Cleanup(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !slices.Equal(o.requests, want) || len(o.stray) > 0 {
			t.Errorf("the service saw %q and, besides, %q; want %q", o.requests, o.stray, want)
		}
	})
}

// expectOnly is expect for messages that may break off: of one that does, the
// service may see the beginning, cut short.
func (o *origin) expectOnly(t testing.TB, want ...string) {
	t.Helper()
	t.Cleanup(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !slices.Equal(o.requests, want) {
			t.Errorf("the service saw %q; want %q", o.requests, want)
		}
		for _, s := range o.stray {
			if strings.Contains(s, "/admin") || !strings.HasPrefix(s, "POST /x HTTP/1.1\r\n") {
				t.Errorf("the service saw %q", s)
			}
		}
	})
}

// client is a connection to the proxy that sends bytes.
type client struct {
	*net.TCPConn
	t  testing.TB
	in *bufio.Reader
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * time.Minute)) // against hanging tests
	return &client{c.(*net.TCPConn), t, bufio.NewReader(c)}
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) sendf(format string, args ...any) {
	c.t.Helper()
	c.send(fmt.Sprintf(format, args...))
}

// head reads the head of an answer. The body is up to the caller.
func (c *client) head(method string) *http.Response {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("read answer: %v", err)
	}
	return resp
}

// answer reads one answer whole.
func (c *client) answer(method string) (*http.Response, string) {
	c.t.Helper()
	resp := c.head(method)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("read answer's body: %v", err)
	}
	return resp, string(body)
}

// exchange sends one request and reads one answer.
func (c *client) exchange(request string) (*http.Response, string) {
	c.t.Helper()
	c.send(request)
	method, _, _ := strings.Cut(request, " ")
	return c.answer(method)
}

// closed: the proxy closes, and says nothing more.
func (c *client) closed() {
	c.t.Helper()
	if b, err := c.in.Peek(1); err != io.EOF {
		c.t.Errorf("the connection is not closed: %q, %v", b, err)
	}
}

// verdicts reads answers to the end of the connection: "200 200 400!", with an
// exclamation mark where the answer says that the connection ends.
func (c *client) verdicts(methods ...string) string {
	c.t.Helper()
	var all []string
	for i := 0; ; i++ {
		if _, err := c.in.Peek(1); err != nil {
			if err != io.EOF {
				all = append(all, err.Error())
			}
			return strings.Join(all, " ")
		}
		method := "GET"
		if i < len(methods) {
			method = methods[i]
		}
		resp, _ := c.answer(method)
		verdict := fmt.Sprint(resp.StatusCode)
		if resp.Close {
			verdict += "!"
		}
		all = append(all, verdict)
	}
}
