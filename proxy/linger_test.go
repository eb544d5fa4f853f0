package proxy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy"
)

// A client that is idle when the proxy stops may be about to ask: it is answered,
// and told with that that the connection ends. One that does not ask is let go.
func TestLinger(t *testing.T) {
	addr := scripted(t, func(c *net.TCPConn, _ *bufio.Reader, _ *http.Request) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	e := startEdgeWith(t, func(c *proxy.Config) { c.ClientLinger = 2 * time.Minute }, service("s", addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	c.exchange("GET /../x HTTP/1.1\r\nHost: a\r\n\r\n") // it is idle from now on
	done := make(chan error)
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	go func() { done <- e.Shutdown(ctx) }()
	refuses(t, e.addr)
	c.send(getX)
	if resp, body := c.answer("GET"); resp.StatusCode != 200 || body != "ok" || !resp.Close {
		t.Errorf("got %d %q, close %v", resp.StatusCode, body, resp.Close)
	}
	c.closed()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A client whose answer had begun when the proxy stopped was told nothing by it,
// and asks once more, however late that answer ends.
func TestLingerAfterAnAnswerThatHadBegun(t *testing.T) {
	end := make(chan struct{})
	addr := scripted(t, func(c *net.TCPConn, _ *bufio.Reader, r *http.Request) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
		if r.URL.Path == "/slow" {
			<-end
		}
		io.WriteString(c, "k")
	})
	e := startEdgeWith(t, func(c *proxy.Config) { c.ClientLinger = 2 * time.Minute }, service("s", addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	c.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	begun := c.head("GET")
	done := make(chan error)
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	go func() { done <- e.Shutdown(ctx) }()
	refuses(t, e.addr)
	close(end)
	if body, err := io.ReadAll(begun.Body); string(body) != "ok" || err != nil || begun.Close {
		t.Errorf("got %q, %v, close %v", body, err, begun.Close)
	}
	c.send(getX)
	if resp, body := c.answer("GET"); resp.StatusCode != 200 || body != "ok" || !resp.Close {
		t.Errorf("got %d %q, close %v", resp.StatusCode, body, resp.Close)
	}
	c.closed()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// One that then does not ask is let go, after the time that it has by itself.
func TestLingerAfterAnAnswerEnds(t *testing.T) {
	end := make(chan struct{})
	addr := scripted(t, func(c *net.TCPConn, _ *bufio.Reader, _ *http.Request) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
		<-end
		io.WriteString(c, "k")
	})
	e := startEdgeWith(t, func(c *proxy.Config) { c.ClientLinger = time.Millisecond }, service("s", addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	c.send(getX)
	begun := c.head("GET")
	done := make(chan error)
	go func() { done <- e.Shutdown(t.Context()) }()
	refuses(t, e.addr)
	close(end)
	if body, err := io.ReadAll(begun.Body); string(body) != "ok" || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
	c.closed()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// refuses waits until nothing accepts at an address.
func refuses(t testing.TB, addr string) {
	t.Helper()
	waitFor(t, func() bool {
		late, err := net.Dial("tcp", addr)
		if err == nil {
			late.Close()
		}
		return err != nil
	}, func() string { return "it accepts still" })
}

func TestLingerEnds(t *testing.T) {
	e := startEdgeWith(t, func(c *proxy.Config) { c.ClientLinger = time.Millisecond })
	c := dial(t, e.addr)
	c.exchange("GET /../x HTTP/1.1\r\nHost: a\r\n\r\n")
	if err := e.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	c.closed()
}
