package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// endpoint is what a stream leads to. serve is given each connection.
func endpoint(t testing.TB, serve func(c net.Conn, in *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(2 * time.Minute))
				serve(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

// answering reads whole requests and answers each with its body.
func answering(c net.Conn, in *bufio.Reader) {
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
}

func silent(c net.Conn, in *bufio.Reader) { io.Copy(io.Discard, in) }

// pool returns a pool to an endpoint, which ends with the test.
func pool(t testing.TB, address string) *upstream.Pool {
	t.Helper()
	r := upstream.NewRegistry(nil)
	t.Cleanup(r.Close)
	return r.Acquire(upstream.Key{Address: address})
}

func request(body exchange.Body) *exchange.Exchange {
	x := &exchange.Exchange{Start: time.Now(), Protocol: exchange.HTTP11}
	x.Request.Method, x.Request.Authority, x.Request.Path = []byte("POST"), []byte("a"), []byte("/")
	x.Request.Body = body
	return x
}

func options() upstream.Options {
	return upstream.Options{Now: time.Now(), Stall: 5 * time.Second}
}

// coming is a body whose chunks come from a channel; it ends with it, or with
// an abort.
type coming struct {
	chunks  chan string
	aborted chan struct{}
	once    sync.Once
	asked   func() error
	length  int64
	ended   error
}

func newComing() *coming {
	return &coming{chunks: make(chan string), aborted: make(chan struct{}), length: -1}
}

func (c *coming) Length() int64 { return c.length }
func (c *coming) Abort()        { c.once.Do(func() { close(c.aborted) }) }
func (c *coming) Ask() error {
	if c.asked != nil {
		return c.asked()
	}
	return nil
}

func (c *coming) Next() ([]byte, error) {
	if c.ended != nil {
		return nil, c.ended
	}
	select {
	case chunk, ok := <-c.chunks:
		if ok {
			return []byte(chunk), nil
		}
		c.ended = io.EOF
	case <-c.aborted:
		c.ended = errors.New("aborted")
	}
	return nil, c.ended
}

func read(t testing.TB, b exchange.Body) string {
	t.Helper()
	var all strings.Builder
	for b != nil {
		chunk, err := b.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all.Write(chunk)
	}
	return all.String()
}

func TestStream(t *testing.T) {
	for name, body := range map[string]func() exchange.Body{
		"no body": func() exchange.Body { return nil },
		"small":   func() exchange.Body { return exchange.Bytes([]byte("hello")) },
		"large":   func() exchange.Body { return exchange.Bytes([]byte(strings.Repeat("x", 100_000))) },
		"still coming": func() exchange.Body {
			c := newComing()
			go func() {
				for range 10 {
					c.chunks <- strings.Repeat("y", 1000)
				}
				close(c.chunks)
			}()
			return c
		},
	} {
		for _, inline := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, inline %v", name, inline), func(t *testing.T) {
				p := pool(t, endpoint(t, answering))
				want := map[string]string{"small": "hello", "large": strings.Repeat("x", 100_000), "still coming": strings.Repeat("y", 10_000)}[name]
				var s upstream.Stream
				for range 3 {
					x, opts := request(body()), options()
					opts.Inline = inline
					if err := s.Open(t.Context(), p, x, opts); err != nil {
						t.Fatal(err)
					}
					if p.InFlight() != 1 {
						t.Errorf("%d in flight", p.InFlight())
					}
					if got := read(t, x.Response.Body); x.Response.Status != 200 || got != want {
						t.Errorf("got %d, %d bytes", x.Response.Status, len(got))
					}
					s.Close(x)
					s.Close(x) // once is enough, twice does no harm
				}
				stats := p.Stats()
				if stats.InFlight != 0 || stats.Failures != 0 || stats.Dials+stats.Reuses != 3 || name != "still coming" && stats.Dials != 1 {
					t.Errorf("%+v", stats)
				}
			})
		}
	}
}

func TestFailures(t *testing.T) {
	dead, _ := net.Listen("tcp", "127.0.0.1:0")
	nobody := dead.Addr().String()
	dead.Close()
	soon := func(o *upstream.Options) { o.Deadline = time.Now().Add(30 * time.Millisecond) }
	stall := func(o *upstream.Options) { o.Stall = 30 * time.Millisecond }
	broken := func() exchange.Body {
		c := newComing()
		go func() { c.chunks <- "abc"; c.Abort() }()
		return c
	}
	unfinished := func() exchange.Body {
		c := newComing()
		go func() {
			select {
			case c.chunks <- "abc":
			case <-c.aborted:
			}
		}()
		return c
	}
	for _, c := range []struct {
		name   string
		addr   string
		body   func() exchange.Body
		change func(*upstream.Options)
		want   upstream.Error
	}{
		{"nobody is there", nobody, nil, nil, upstream.Error{}},
		{"it closes without an answer", endpoint(t, func(c net.Conn, in *bufio.Reader) { http.ReadRequest(in) }), nil, nil, upstream.Error{Sent: true}},
		{"it speaks first", endpoint(t, func(c net.Conn, in *bufio.Reader) { io.WriteString(c, "220 hello\r\n"); silent(c, in) }), nil, nil, upstream.Error{Sent: true}},
		{"it is no HTTP server", endpoint(t, func(c net.Conn, in *bufio.Reader) { in.ReadByte(); io.WriteString(c, "nonsense\r\n"); silent(c, in) }), nil, nil, upstream.Error{Sent: true}},
		{"it is silent", endpoint(t, silent), nil, soon, upstream.Error{Sent: true, Timeout: true}},
		{"it stalls", endpoint(t, silent), nil, stall, upstream.Error{Sent: true, Timeout: true}},
		{"it is silent over an upload", endpoint(t, silent), unfinished, soon, upstream.Error{Sent: true, Timeout: true}},
		{"it dies over an upload", endpoint(t, func(c net.Conn, in *bufio.Reader) { http.ReadRequest(in) }), unfinished, nil, upstream.Error{Sent: true}},
		{"the client's body breaks off", endpoint(t, silent), broken, nil, upstream.Error{Sent: true, Client: true}},
		{"the client's body breaks off, inline", endpoint(t, silent), broken, func(o *upstream.Options) { o.Inline = true }, upstream.Error{Sent: true, Client: true}},
		{"the client cannot be asked for its body", endpoint(t, silent), func() exchange.Body {
			c := newComing()
			c.asked = func() error { return errors.New("gone") }
			return c
		}, nil, upstream.Error{Client: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := pool(t, c.addr)
			x, opts := request(nil), options()
			if c.body != nil {
				x.Request.Body = c.body()
			}
			if c.change != nil {
				c.change(&opts)
			}
			var s upstream.Stream
			var got *upstream.Error
			if err := s.Open(t.Context(), p, x, opts); !errors.As(err, &got) {
				t.Fatalf("got %v", err)
			}
			// Whether something that speaks first was asked at all is a race.
			sent := got.Sent == c.want.Sent || c.name == "it speaks first"
			if !sent || got.Timeout != c.want.Timeout || got.Client != c.want.Client || got.Stale {
				t.Errorf("got %+v", *got)
			}
			if p.InFlight() != 0 || x.Request.Shared {
				t.Error("it holds something still")
			}
			s.Close(x) // does no harm
		})
	}
}

// The bound on a wait does not count what went before it.
func TestLongUploadsAreNoStall(t *testing.T) {
	for _, inline := range []bool{false, true} {
		t.Run(fmt.Sprintf("inline %v", inline), func(t *testing.T) {
			t.Parallel() // it takes longer than the stall
			p := pool(t, endpoint(t, answering))
			body := newComing()
			go func() {
				for range 10 {
					time.Sleep(250 * time.Millisecond)
					body.chunks <- "x"
				}
				close(body.chunks)
			}()
			x, opts := request(body), options()
			opts.Stall, opts.Inline = 2*time.Second, inline
			var s upstream.Stream
			if err := s.Open(t.Context(), p, x, opts); err != nil {
				t.Fatal(err)
			}
			if got := read(t, x.Response.Body); got != "xxxxxxxxxx" {
				t.Errorf("got %q", got)
			}
			s.Close(x)
		})
	}
}

// Close ends a pump that waits for the client, and one that waits for the
// endpoint.
func TestCloseEndsThePump(t *testing.T) {
	early := func(c net.Conn, in *bufio.Reader) {
		http.ReadRequest(in)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		time.Sleep(50 * time.Millisecond) // and reads no further
	}
	t.Run("it waits for the client", func(t *testing.T) {
		p := pool(t, endpoint(t, early))
		x := request(newComing())
		var s upstream.Stream
		if err := s.Open(t.Context(), p, x, options()); err != nil {
			t.Fatal(err)
		}
		if !x.Request.Shared {
			t.Error("the pump reads the body, and nobody is told")
		}
		read(t, x.Response.Body)
		s.ReadBy(time.Now().Add(time.Second)) // beside the pump
		s.Close(x)
		if x.Request.Shared || p.Stats().Idle != 0 {
			t.Error("a connection with half a request on it is kept")
		}
	})
	t.Run("it waits for the endpoint", func(t *testing.T) {
		p := pool(t, endpoint(t, early))
		body := newComing()
		feeding := make(chan struct{})
		go func() {
			defer close(feeding)
			for {
				select {
				case body.chunks <- strings.Repeat("x", 64<<10):
				case <-body.aborted:
					return
				}
			}
		}()
		x := request(body)
		var s upstream.Stream
		if err := s.Open(t.Context(), p, x, options()); err != nil {
			t.Fatal(err)
		}
		s.Close(x)
		<-feeding
	})
}

// A connection on which more of an answer may come is not kept, whoever stops
// reading.
func TestHalfReadAnswersAreNotKept(t *testing.T) {
	for _, answer := range []string{
		"Content-Length: 10\r\n\r\nabc",
		"Content-Length: 10\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
		"\r\nabc",
	} {
		p := pool(t, endpoint(t, func(c net.Conn, in *bufio.Reader) {
			http.ReadRequest(in)
			io.WriteString(c, "HTTP/1.1 200 OK\r\n"+answer)
			silent(c, in)
		}))
		x := request(nil)
		var s upstream.Stream
		if err := s.Open(t.Context(), p, x, options()); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(answer, "abc") {
			if chunk, err := x.Response.Body.Next(); string(chunk) != "abc" || err != nil {
				t.Errorf("got %q, %v", chunk, err)
			}
		}
		s.Close(x)
		if p.Stats().Idle != 0 {
			t.Errorf("%q: the connection is kept", answer)
		}
	}
}

// Once the body was read to its end, the client's connection is left alone: it
// may be at the next request, even though the endpoint has not read everything.
func TestTheClientIsItsOwnAfterItsBody(t *testing.T) {
	p := pool(t, endpoint(t, func(c net.Conn, in *bufio.Reader) {
		http.ReadRequest(in)
		in.ReadByte()
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		time.Sleep(50 * time.Millisecond) // and reads no further
	}))
	whole := &last{coming: newComing(), chunk: make([]byte, 64<<20)}
	x := request(whole)
	var s upstream.Stream
	if err := s.Open(t.Context(), p, x, options()); err != nil {
		t.Fatal(err)
	}
	if x.Request.Shared {
		t.Error("the pump is said to need it still")
	}
	s.Close(x)
	select {
	case <-whole.aborted:
		t.Error("it was aborted")
	default:
	}
	if p.Stats().Idle != 0 {
		t.Error("a connection with half a request on it is kept")
	}
}

// last is a body of one chunk, which knows when it was taken.
type last struct {
	*coming
	chunk []byte
}

func (l *last) Length() int64 { return int64(len(l.chunk)) }
func (l *last) Next() ([]byte, error) {
	if len(l.chunk) == 0 {
		return nil, io.EOF
	}
	chunk := l.chunk
	l.chunk = nil
	return chunk, nil
}

// Abort ends a stream from outside, whatever it waits for; a context ends what
// is opened later.
func TestAbort(t *testing.T) {
	p := pool(t, endpoint(t, silent))
	var s upstream.Stream
	s.Abort() // nothing is open
	for _, body := range []exchange.Body{nil, newComing()} {
		ctx, cancel := context.WithCancel(t.Context())
		x := request(body)
		done := make(chan error)
		go func() { done <- s.Open(ctx, p, x, options()) }()
		time.Sleep(5 * time.Millisecond)
		cancel()
		s.Abort()
		if b, ok := body.(*coming); ok {
			b.Abort() // as the listener closes the client's connection
		}
		if err := <-done; err == nil {
			t.Error("it got an answer")
		}
		if err := s.Open(ctx, p, x, options()); !errors.Is(err, context.Canceled) {
			t.Errorf("opened later: %v", err)
		}
	}
}

func TestPoolsAreSharedAndCounted(t *testing.T) {
	r := upstream.NewRegistry(nil)
	defer r.Close()
	addr := endpoint(t, answering)
	a, b := r.Acquire(upstream.Key{Address: addr}), r.Acquire(upstream.Key{Address: addr, ConnectTimeout: upstream.DefaultConnectTimeout})
	if a != b {
		t.Error("equal keys give different pools")
	}
	if c := r.Acquire(upstream.Key{Address: addr, ConnectTimeout: time.Second}); c == a {
		t.Error("different keys give the same pool")
	}
	use := func() {
		x := request(nil)
		var s upstream.Stream
		if err := s.Open(t.Context(), a, x, options()); err != nil {
			t.Fatal(err)
		}
		read(t, x.Response.Body)
		s.Close(x)
	}
	use()
	if n := a.Stats().Idle; n != 1 {
		t.Errorf("%d are kept", n)
	}
	r.Release(a)
	if n := a.Stats().Idle; n != 1 {
		t.Errorf("%d are kept while someone uses the pool", n)
	}
	r.Release(b)
	use() // one that began before
	if n := a.Stats().Idle; n != 0 {
		t.Errorf("%d are kept by a pool that nobody uses", n)
	}
	if n := len(r.Stats()); n != 1 {
		t.Errorf("%d pools are left", n)
	}
}
