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
	waitFor(t, func() bool { // it does not accept any more
		late, err := net.Dial("tcp", e.addr)
		if err == nil {
			late.Close()
		}
		return err != nil
	}, func() string { return "it accepts still" })
	c.send(getX)
	if resp, body := c.answer("GET"); resp.StatusCode != 200 || body != "ok" || !resp.Close {
		t.Errorf("got %d %q, close %v", resp.StatusCode, body, resp.Close)
	}
	c.closed()
	if err := <-done; err != nil {
		t.Error(err)
	}
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
