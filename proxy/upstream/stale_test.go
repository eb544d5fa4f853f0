package upstream_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/upstream"
)

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within two minutes", what)
		}
	}
}

// lines is a pool, and what its endpoint knows of its connections.
type lines struct {
	*upstream.Pool
	served chan net.Conn // one for each answer
	ended  chan error    // one for each that was closed
}

// startLines starts an endpoint, in the clear or over TLS, that may have most
// connections.
func startLines(t *testing.T, secured bool, most int) *lines {
	t.Helper()
	a := &lines{served: make(chan net.Conn, 1000), ended: make(chan error, 1000)}
	serve := func(c net.Conn, in *bufio.Reader) {
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				a.ended <- err
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			a.served <- c
		}
	}
	key := upstream.Key{MaxConnections: most}
	if secured {
		s := httptest.NewTLSServer(nil)
		s.Close()
		config := &tls.Config{Certificates: s.TLS.Certificates}
		plain := serve
		serve = func(c net.Conn, _ *bufio.Reader) {
			c = tls.Server(c, config)
			plain(c, bufio.NewReader(c))
		}
		key.TLS = upstream.TLS{On: true, Insecure: true}
	}
	key.Address = endpoint(t, serve)
	r := upstream.NewRegistry(nil)
	t.Cleanup(r.Close)
	a.Pool = r.Acquire(key)
	return a
}

// hangUp ends the endpoint's side of a connection, with or without TLS's word
// for that.
func hangUp(c net.Conn) {
	if s, ok := c.(*tls.Conn); ok {
		c = s.NetConn()
	}
	_ = c.(*net.TCPConn).CloseWrite()
}

// ask makes n exchanges at the same time, each over a connection of its own.
func (a *lines) ask(t *testing.T, n int, body func() exchange.Body) {
	t.Helper()
	streams, exchanges := make([]upstream.Stream, n), make([]*exchange.Exchange, n)
	for i := range streams {
		exchanges[i] = request(body())
		if err := streams[i].Open(context.Background(), a.Pool, exchanges[i], options()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range streams {
		if got := read(t, exchanges[i].Response.Body); got != "ok" {
			t.Errorf("answered %q", got)
		}
		streams[i].Close(exchanges[i])
	}
}

func small() exchange.Body { return exchange.Bytes([]byte("small")) }

// A kept connection that its endpoint has closed is closed soon, though nobody
// asks for it; the others are kept.
func TestWhatTheEndpointClosedIsClosed(t *testing.T) {
	for _, secured := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", secured), func(t *testing.T) {
			t.Parallel()
			const all, closed = 70, 40
			a := startLines(t, secured, all)
			a.ask(t, all, small)
			for range closed {
				hangUp(<-a.served)
			}
			for range closed {
				<-a.ended
			}
			eventually(t, "the others stay", func() bool { return a.Stats().Idle == all-closed })
			a.ask(t, all, small) // the places were given back, or this would not end
		})
	}
}

// A connection that was closed a moment ago is seen to be when it is taken: the
// request, of whatever method and size, goes over another.
func TestNothingIsSentOnWhatIsClosed(t *testing.T) {
	bodies := map[string]func() exchange.Body{
		"small": small,
		"large": func() exchange.Body { return exchange.Bytes(make([]byte, 100<<10)) },
		"still coming": func() exchange.Body {
			c := newComing()
			go func() { c.chunks <- "more"; close(c.chunks) }()
			return c
		},
	}
	for name, body := range bodies {
		for _, secured := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %v", name, secured), func(t *testing.T) {
				t.Parallel()
				a := startLines(t, secured, 0)
				for range 20 {
					a.ask(t, 1, body)
					hangUp(<-a.served)
				}
				if s := a.Stats(); s.Dials != 20 {
					t.Errorf("%d connections for 20 requests", s.Dials)
				}
			})
		}
	}
}
