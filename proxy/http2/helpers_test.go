package http2_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http2"
	"github.com/weirmesh/weir/proxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place serves exchanges with a function, and counts what is done to it.
type place struct {
	x       exchange.Exchange
	served  *served
	cut     chan struct{}
	cutOnce *sync.Once
}

// served is what became of the exchanges of one connection.
type served struct {
	serve func(p *place, x *exchange.Exchange)

	mu                                          sync.Mutex
	taken, given, begun, finished, failed, cuts int
	rejected                                    []string
	requests                                    []string
}

func (p *place) Exchange() *exchange.Exchange { return &p.x }

func (p *place) Begin() { p.cut, p.cutOnce = make(chan struct{}), new(sync.Once) }

func (p *place) Serve(x *exchange.Exchange) {
	p.served.mu.Lock()
	p.served.begun++
	p.served.requests = append(p.served.requests, describe(x))
	p.served.mu.Unlock()
	p.served.serve(p, x)
}

func (p *place) Reject(x *exchange.Exchange, status int, reason string) {
	p.served.mu.Lock()
	p.served.begun++
	p.served.rejected = append(p.served.rejected, fmt.Sprintf("%d %s", status, reason))
	p.served.mu.Unlock()
	x.Answer(status, []byte(reason))
}

func (p *place) Finish(_ *exchange.Exchange, _ int64, err error) {
	p.served.mu.Lock()
	defer p.served.mu.Unlock()
	p.served.finished++
	if err != nil {
		p.served.failed++
	}
}

func (p *place) Cut() {
	p.cutOnce.Do(func() {
		close(p.cut)
		p.served.mu.Lock()
		p.served.cuts++
		p.served.mu.Unlock()
	})
}

func describe(x *exchange.Exchange) string {
	r := &x.Request
	s := fmt.Sprintf("%s %s %s", r.Method, r.Authority, r.Path)
	for i := range r.Fields.Len() {
		f := r.Fields.At(i)
		s += fmt.Sprintf("|%s: %s", f.Name, f.Value)
	}
	return s
}

// hello answers every request with a word.
func hello(_ *place, x *exchange.Exchange) { x.Answer(200, []byte("hello")) }

// server is a connection that is served, seen from its client.
type server struct {
	t       testing.TB
	conn    *http2.Conn
	client  net.Conn
	framer  *xhttp2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer
	served  *served
	done    chan struct{}
}

// serveOn serves the far end of a connection.
func serveOn(t testing.TB, serve func(*place, *exchange.Exchange), change func(*http2.Config)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return serveConn(t, client, far, serve, change)
}

// serveOnPipe serves the far end of a pipe, for tests with a clock of their own.
func serveOnPipe(t testing.TB, serve func(*place, *exchange.Exchange), change func(*http2.Config)) *server {
	client, far := net.Pipe()
	s := serveConn(t, client, far, serve, change)
	_ = client.SetDeadline(time.Time{})
	return s
}

func serveConn(t testing.TB, client, far net.Conn, serve func(*place, *exchange.Exchange), change func(*http2.Config)) *server {
	s := &server{t: t, client: client, served: &served{serve: serve}, done: make(chan struct{})}
	places := sync.Pool{New: func() any { return &place{served: s.served} }}
	cfg := http2.Config{
		Take: func() http2.Place {
			s.served.mu.Lock()
			s.served.taken++
			s.served.mu.Unlock()
			return places.Get().(*place)
		},
		Give: func(p http2.Place) {
			s.served.mu.Lock()
			s.served.given++
			s.served.mu.Unlock()
			p.Exchange().Reset()
			places.Put(p)
		},
		Logger: slog.New(slog.DiscardHandler), Idle: time.Minute, Head: time.Minute, Stall: time.Minute,
		Scheme: []byte("http"),
	}
	if change != nil {
		change(&cfg)
	}
	w := wire.New(far)
	s.conn = http2.NewConn(w, cfg)
	go func() {
		defer close(s.done)
		if s.conn.Run() {
			if t, ok := far.(*net.TCPConn); ok {
				_ = t.CloseWrite()
				_, _ = io.Copy(io.Discard, far)
			}
		}
		_ = w.Close()
		w.Free()
	}()
	_ = client.SetDeadline(time.Now().Add(time.Minute)) // against hanging tests
	s.framer = xhttp2.NewFramer(client, client)
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	s.encoder = hpack.NewEncoder(&s.block)
	t.Cleanup(func() { s.close() })
	return s
}

// close ends the connection and checks that nothing of it is left.
func (s *server) close() {
	s.client.Close()
	<-s.done
	s.served.mu.Lock()
	defer s.served.mu.Unlock()
	if s.served.taken != s.served.given || s.served.begun != s.served.finished {
		s.t.Errorf("%d places taken, %d given back; %d exchanges begun, %d finished",
			s.served.taken, s.served.given, s.served.begun, s.served.finished)
	}
}

func (s *server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// greet sends the preface and settings, and acknowledges the server's.
func (s *server) greet(settings ...xhttp2.Setting) {
	s.t.Helper()
	_, err := io.WriteString(s.client, http2.Preface)
	s.must(err)
	s.must(s.framer.WriteSettings(settings...))
	for {
		f, err := s.framer.ReadFrame()
		s.must(err)
		if f, ok := f.(*xhttp2.SettingsFrame); ok && !f.IsAck() {
			break
		}
	}
	s.must(s.framer.WriteSettingsAck())
}

// head encodes a header block: ":method GET" and so on.
func (s *server) head(fields ...[2]string) []byte {
	s.block.Reset()
	for _, f := range fields {
		s.must(s.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	return s.block.Bytes()
}

func request(method, path string, more ...[2]string) [][2]string {
	return append([][2]string{{":method", method}, {":scheme", "http"}, {":authority", "shop.example"}, {":path", path}}, more...)
}

// open sends a request's head.
func (s *server) open(stream uint32, end bool, fields ...[2]string) {
	s.t.Helper()
	s.must(s.framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: stream, BlockFragment: s.head(fields...), EndStream: end, EndHeaders: true}))
}

// outcome reads until a stream or the connection has ended: "200 hello",
// "RST_STREAM CANCEL", "GOAWAY PROTOCOL_ERROR", "closed".
func (s *server) outcome(stream uint32) string {
	s.t.Helper()
	text := ""
	for {
		f, err := s.framer.ReadFrame()
		if err != nil {
			if os.IsTimeout(err) {
				s.t.Fatalf("nothing came of stream %d: %q", stream, text)
			}
			return text + "closed"
		}
		if f.Header().StreamID != stream && f.Header().StreamID != 0 {
			continue
		}
		switch f := f.(type) {
		case *xhttp2.MetaHeadersFrame:
			for _, h := range f.Fields {
				if h.Name == ":status" {
					text += h.Value + " "
				} else {
					text += h.Name + ": " + h.Value + " "
				}
			}
			if f.StreamEnded() {
				return text
			}
		case *xhttp2.DataFrame:
			text += string(f.Data())
			if f.StreamEnded() {
				return text
			}
		case *xhttp2.RSTStreamFrame:
			return text + "RST_STREAM " + f.ErrCode.String()
		case *xhttp2.GoAwayFrame:
			return text + "GOAWAY " + f.ErrCode.String()
		}
	}
}
