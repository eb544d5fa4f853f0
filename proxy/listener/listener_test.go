package listener_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/listener"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handler serves every session by one function, and counts.
type handler struct {
	serve                              func(x *exchange.Exchange)
	finish                             func() // nil, or called by Finish
	once                               sync.Once
	cut                                chan struct{} // closed by the first Cut
	served, finished, failed, rejected atomic.Int32
}

func newHandler(serve func(x *exchange.Exchange)) *handler {
	return &handler{serve: serve, cut: make(chan struct{})}
}

func (h *handler) NewSession() listener.Session { return &session{handler: h} }

type session struct {
	*handler
	open bool
}

func (s *session) Serve(x *exchange.Exchange) {
	if s.open {
		panic("a session serves two exchanges at a time")
	}
	s.open = true
	s.served.Add(1)
	s.serve(x)
}

func (s *session) Finish(x *exchange.Exchange, sent int64, err error) {
	if s.finish != nil {
		s.finish()
	}
	s.open = false
	if s.finished.Add(1); err != nil {
		s.failed.Add(1)
	}
}

func (s *session) Reject(x *exchange.Exchange, status int, reason string) {
	s.rejected.Add(1)
	x.Answer(status, []byte(reason))
}

func (s *session) Cut() { s.once.Do(func() { close(s.cut) }) }

// start serves h on a free port; the listener ends with the test.
func start(t testing.TB, h *handler, change ...func(*listener.Config)) *listener.Listener {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := listener.Config{Handler: h, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for _, c := range change {
		c(&cfg)
	}
	l := listener.Serve(socket, cfg)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = l.Close(ctx)
		if served, finished := h.served.Load()+h.rejected.Load(), h.finished.Load(); served != finished {
			t.Errorf("%d exchanges were begun, %d finished", served, finished)
		}
	})
	return l
}

type client struct {
	net.Conn
	t  testing.TB
	in *bufio.Reader
}

func dial(t testing.TB, l *listener.Listener) *client {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return &client{c, t, bufio.NewReader(c)}
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) answer() (status int, body string, last bool) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Close
}

func (c *client) closed() {
	c.t.Helper()
	if b, err := c.in.Peek(1); err != io.EOF {
		c.t.Errorf("the connection is not closed: %q, %v", b, err)
	}
}

const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

func hello(x *exchange.Exchange) { x.Answer(200, x.Copy("hello")) }

func TestServe(t *testing.T) {
	h := newHandler(func(x *exchange.Exchange) {
		if !x.Client.IsValid() || !x.Local.IsValid() || x.Start.IsZero() || string(x.Request.Scheme) != "http" {
			t.Errorf("the exchange lacks something: %+v", x)
		}
		hello(x)
	})
	l := start(t, h)
	c := dial(t, l)
	for range 3 {
		c.send(get)
		if status, body, last := c.answer(); status != 200 || body != "hello" || last {
			t.Errorf("got %d %s", status, body)
		}
	}
	if open, accepted := l.Connections(); open != 1 || accepted != 1 {
		t.Errorf("%d of %d connections", open, accepted)
	}
	c.send("nonsense\r\n\r\n")
	if status, _, last := c.answer(); status != 400 || !last || h.rejected.Load() != 1 {
		t.Errorf("got %d", status)
	}
	c.closed()
}

// What an exchange is given stays as it is while its body is read over it, and
// what the next one is given is its own.
func TestTheHeadOutlivesTheBody(t *testing.T) {
	h := newHandler(func(x *exchange.Exchange) {
		n := 0
		for {
			chunk, err := x.Request.Body.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Error(err)
				break
			}
			n += len(chunk)
		}
		if n != 200_000 {
			t.Errorf("the body has %d bytes", n)
		}
		x.Answer(200, x.Copy(string(x.Request.Path), " ", string(x.Request.Fields.Get("x-name"))))
	})
	l := start(t, h)
	var clients sync.WaitGroup
	for range 4 {
		c := dial(t, l)
		clients.Go(func() {
			for i := range 10 {
				name := strings.Repeat(string(rune('a'+i)), 1000)
				c.send("POST /" + name + " HTTP/1.1\r\nHost: a\r\nX-Name: " + name + "\r\nContent-Length: 200000\r\n\r\n" + strings.Repeat("#", 200_000))
				if status, body, _ := c.answer(); status != 200 || body != "/"+name+" "+name {
					t.Errorf("got %d, %.30s", status, body)
				}
			}
		})
	}
	clients.Wait()
}

// body is an answer's body of any kind.
type body struct {
	chunks []string
	length int64
	err    error
}

func (b *body) Length() int64 { return b.length }
func (b *body) Next() ([]byte, error) {
	if len(b.chunks) == 0 {
		return nil, b.err
	}
	chunk := b.chunks[0]
	b.chunks = b.chunks[1:]
	return []byte(chunk), nil
}

// A body that does not keep its promise breaks the connection.
func TestBodiesThatLie(t *testing.T) {
	for _, c := range []struct {
		name string
		body body
		want string // "": the answer breaks off
	}{
		{"as long as said", body{[]string{"ab", "c"}, 3, io.EOF}, "abc"},
		{"of unknown length", body{[]string{"ab", "c"}, -1, io.EOF}, "abc"},
		{"shorter", body{[]string{"ab"}, 3, io.EOF}, ""},
		{"longer", body{[]string{"ab", "cd"}, 3, io.EOF}, ""},
		{"fails", body{[]string{"ab"}, 3, errors.New("broken")}, ""},
		{"fails, of unknown length", body{[]string{"ab"}, -1, errors.New("broken")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.body
			h := newHandler(func(x *exchange.Exchange) {
				x.Answer(200, nil)
				x.Response.Body = &b
			})
			client := dial(t, start(t, h))
			client.send(get)
			resp, err := http.ReadResponse(client.in, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if (err == nil) != (c.want != "") || c.want != "" && string(got) != c.want {
				t.Errorf("got %q, %v", got, err)
			}
			if c.want == "" {
				if _, err := client.in.Peek(1); err == nil {
					t.Error("the connection goes on")
				}
			}
		})
	}
}

func TestClose(t *testing.T) {
	t.Run("idle connections are closed, busy ones finish, new ones are refused", func(t *testing.T) {
		asked, finish := make(chan struct{}), make(chan struct{})
		h := newHandler(func(x *exchange.Exchange) { asked <- struct{}{}; <-finish; hello(x) })
		l := start(t, h)
		fresh, busy := dial(t, l), dial(t, l)
		busy.send(get + get) // the second one waits behind the first
		<-asked
		done := make(chan error)
		go func() { done <- l.Close(t.Context()) }()
		fresh.closed()
		finish <- struct{}{}
		if status, _, last := busy.answer(); status != 200 || !last {
			t.Errorf("got %d, last %v", status, last)
		}
		busy.closed()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
			t.Error("it accepts still")
		}
	})
	t.Run("one that turns idle then is closed, too", func(t *testing.T) {
		sent, finish := make(chan struct{}), make(chan struct{})
		h := newHandler(hello)
		h.finish = func() { sent <- struct{}{}; <-finish }
		l := start(t, h)
		c := dial(t, l)
		c.send(get + "\r\n") // an empty line is no request
		if _, _, last := c.answer(); last {
			t.Error("it was not draining yet")
		}
		<-sent
		done := make(chan error)
		go func() { done <- l.Close(t.Context()) }()
		for dialled, err := net.Dial("tcp", l.Addr().String()); err == nil; dialled, err = net.Dial("tcp", l.Addr().String()) {
			dialled.Close() // until Close has begun
		}
		time.Sleep(10 * time.Millisecond) // it has looked for idle ones, and this one was not
		close(finish)
		if err := <-done; err != nil {
			t.Error(err)
		}
		c.closed()
	})
	t.Run("what is left when the context ends is cut", func(t *testing.T) {
		asked := make(chan struct{})
		h := newHandler(nil)
		h.serve = func(x *exchange.Exchange) { asked <- struct{}{}; <-h.cut; hello(x) }
		l := start(t, h)
		c := dial(t, l)
		c.send(get)
		<-asked
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Close(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if open, _ := l.Connections(); open != 0 {
			t.Errorf("%d connections are open", open)
		}
	})
	t.Run("under load no request is lost", func(t *testing.T) {
		h := newHandler(hello)
		l := start(t, h)
		var clients sync.WaitGroup
		var answered atomic.Int32
		for range 8 {
			c := dial(t, l)
			clients.Go(func() {
				for {
					if _, err := io.WriteString(c, get); err != nil {
						return
					}
					resp, err := http.ReadResponse(c.in, nil)
					if err != nil {
						return // closed while it was idle: the client may ask again elsewhere
					}
					if _, err := io.ReadAll(resp.Body); err != nil {
						t.Error("an answer breaks off")
					}
					if answered.Add(1); resp.Close {
						return
					}
				}
			})
		}
		for answered.Load() < 100 {
			time.Sleep(time.Millisecond)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		clients.Wait()
		if h.failed.Load() > 0 || h.served.Load() != answered.Load() {
			t.Errorf("%d served, %d answered, %d failed", h.served.Load(), answered.Load(), h.failed.Load())
		}
	})
}

// A client that sends nothing for long is let go, without a word.
func TestIdle(t *testing.T) {
	h := newHandler(hello)
	l := start(t, h, func(c *listener.Config) { c.Idle = 20 * time.Millisecond })
	fresh, used := dial(t, l), dial(t, l)
	used.send(get)
	used.answer()
	fresh.closed()
	used.closed()
}

// A client that does not take its answer is let go.
func TestStalledReader(t *testing.T) {
	finished := make(chan struct{})
	h := newHandler(func(x *exchange.Exchange) { x.Answer(200, make([]byte, 64<<20)) })
	l := start(t, h, func(c *listener.Config) { c.Stall = 20 * time.Millisecond })
	c := dial(t, l)
	c.send(get)
	go func() {
		defer close(finished)
		for h.finished.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
	}()
	<-finished
	if h.failed.Load() != 1 {
		t.Error("the answer was taken for sent")
	}
}

func TestPanicCostsItsOwnConnection(t *testing.T) {
	h := newHandler(nil)
	h.serve = func(x *exchange.Exchange) {
		if string(x.Request.Path) == "/panic" {
			h.finished.Add(1) // as it never will be
			panic("on purpose")
		}
		x.Answer(200, []byte("fine"))
	}
	l := start(t, h)
	bad, good := dial(t, l), dial(t, l)
	io.WriteString(bad, "GET /panic HTTP/1.1\r\nHost: a\r\n\r\n")
	if got, err := bad.in.ReadByte(); err == nil {
		t.Errorf("got %q: its connection is closed without a word", got)
	}
	io.WriteString(good, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if line, err := good.in.ReadString('\n'); line != "HTTP/1.1 200 OK\r\n" {
		t.Errorf("got %q, %v", line, err)
	}
}
