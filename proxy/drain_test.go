package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestShutdown(t *testing.T) {
	t.Run("idle connections are closed at once, busy ones finish", func(t *testing.T) {
		asked, finish := make(chan struct{}), make(chan struct{})
		addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
			asked <- struct{}{}
			<-finish
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		})
		e := startEdge(t, service("s", addr), route("r", "/", "s"))
		idle, busy := dial(t, e.addr), dial(t, e.addr)
		idle.exchange("GET /../x HTTP/1.1\r\nHost: a\r\n\r\n")
		busy.send(getX)
		<-asked
		done := make(chan error)
		go func() { done <- e.Shutdown(t.Context()) }()
		idle.closed()
		if c, err := net.Dial("tcp", e.addr); err == nil {
			c.Close()
			t.Error("it accepts still")
		}
		close(finish)
		if resp, body := busy.answer("GET"); resp.StatusCode != 200 || body != "ok" || !resp.Close {
			t.Errorf("got %d %q, close %v", resp.StatusCode, body, resp.Close)
		}
		busy.closed()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	// A shutdown takes as long as its context, whatever the exchanges wait for.
	never := func(c *net.TCPConn, in *bufio.Reader, r *http.Request) { io.Copy(io.Discard, in) }
	for _, c := range []struct {
		name, request string
		serve         func(c *net.TCPConn, in *bufio.Reader, r *http.Request)
	}{
		{"a service that does not answer", getX, never},
		{"a service that stops in its answer", getX, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
			io.Copy(io.Discard, in)
		}},
		{"a client that stops in its request", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab", never},
		{"half a head", "POST / HTTP/1.1\r\nHo", never},
		{"a client that reads nothing", getX, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
			for block := make([]byte, 64<<10); ; {
				if _, err := c.Write(block); err != nil {
					return
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := startEdge(t, service("s", scripted(t, c.serve)), route("r", "/", "s"))
			dial(t, e.addr).send(c.request)
			time.Sleep(20 * time.Millisecond) // it is under way
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- e.Shutdown(ctx) }()
			select {
			case err := <-done:
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
			case <-time.After(time.Minute):
				t.Error("it waits for what will not come")
			}
		})
	}
}
