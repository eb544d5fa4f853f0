package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy"
)

func hasty(c *proxy.Config) { c.ClientStall = time.Second }

// drip writes a byte at intervals that are nothing to be cut for, until the test
// ends or nobody takes it.
func drip(t *testing.T, w io.Writer, what string) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if _, err := io.WriteString(w, what); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

// Who sends a body byte by byte is let go, however regularly they come.
func TestDrippingBody(t *testing.T) {
	e := startEdgeWith(t, hasty, service("s", upstreamServer(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })),
		route("r", "/", "s"))
	c := dial(t, e.addr)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
	drip(t, c.TCPConn, "x")
	if resp, body := c.answer("POST"); resp.StatusCode != 408 || !strings.Contains(body, "body_timeout") {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}

// A body of unknown length may be a conversation.
func TestDrippingConversation(t *testing.T) {
	e := startEdgeWith(t, hasty, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // else it answers only once it has read all
		_, _ = io.ReadFull(r.Body, make([]byte, 100))
		w.WriteHeader(202)
	})), route("r", "/", "s"))
	c := dial(t, e.addr)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	drip(t, c.TCPConn, "1\r\nx\r\n")
	if resp := c.head("POST"); resp.StatusCode != 202 {
		t.Errorf("got %d", resp.StatusCode)
	}
}

// Who sends a head byte by byte is let go.
func TestDrippingHead(t *testing.T) {
	e := startEdgeWith(t, impatient)
	c := dial(t, e.addr)
	c.send("GET / HTTP/1.1\r\nX: ")
	drip(t, c.TCPConn, "x")
	if resp, _ := c.answer("GET"); resp.StatusCode != 408 {
		t.Errorf("got %d", resp.StatusCode)
	}
}

// Who takes an answer byte by byte is let go.
func TestDrippingReader(t *testing.T) {
	gone := make(chan struct{})
	e := startEdgeWith(t, hasty, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		for block := make([]byte, 64<<10); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})), route("r", "/", "s"))
	c := dial(t, e.addr)
	c.SetReadBuffer(4 << 10)
	c.send(getX)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for one := make([]byte, 1); ; time.Sleep(10 * time.Millisecond) {
			if _, err := c.Read(one); err != nil {
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	<-gone // the service learns of it
	close(stop)
	<-done
}
