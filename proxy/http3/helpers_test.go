package http3_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
	"go.uber.org/goleak"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http3"
)

// TestMain waits longer for what is left over than goleak by itself does: QUIC keeps
// a connection that was closed early for three times its first guess of a round
// trip, to answer whoever has not heard of it.
func TestMain(m *testing.M) {
	code := m.Run()
	for end := time.Now().Add(time.Minute); code == 0; {
		err := goleak.Find()
		if err == nil {
			break
		}
		if time.Now().After(end) {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// server serves HTTP/3 by a function, and counts.
type server struct {
	t                                  testing.TB
	socket                             net.PacketConn
	serve                              func(x *exchange.Exchange)
	served, finished, rejected, failed atomic.Int32
	cut                                chan struct{} // closed by the first Cut

	once sync.Once
	mu   sync.Mutex
	conn *http3.Conn // the newest
}

type place struct {
	*server
	x exchange.Exchange
}

func (p *place) Exchange() *exchange.Exchange { return &p.x }
func (p *place) Begin()                       {}
func (p *place) Serve(x *exchange.Exchange)   { p.served.Add(1); p.serve(x) }
func (p *place) Cut()                         { p.once.Do(func() { close(p.cut) }) }
func (p *place) Reject(x *exchange.Exchange, status int, reason string) {
	p.rejected.Add(1)
	x.Answer(status, []byte(reason))
}
func (p *place) Finish(_ *exchange.Exchange, _ int64, err error) {
	if p.finished.Add(1); err != nil {
		p.failed.Add(1)
	}
}

// start serves until the test is over.
func start(t testing.TB, change func(*http3.Config), serve func(x *exchange.Exchange)) *server {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, socket: socket, serve: serve, cut: make(chan struct{})}
	cfg := http3.Config{
		Take: func() http3.Place { return &place{server: s} }, Give: func(http3.Place) {},
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Idle: time.Minute, Head: time.Minute, Stall: time.Minute,
	}
	change(&cfg)
	transport := &quic.Transport{Conn: socket}
	l, err := transport.Listen(&tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{http3.Protocol}},
		http3.QUIC(time.Minute, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			q, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			c := http3.NewConn(q, cfg)
			s.mu.Lock()
			s.conn = c
			s.mu.Unlock()
			done.Go(c.Run)
		}
	})
	t.Cleanup(func() {
		l.Close()
		transport.Close()
		socket.Close()
		done.Wait()
	})
	return s
}

func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// client is one connection, with nothing but QUIC.
type client struct {
	*quic.Conn
	t testing.TB
}

// dial connects and says what every client says, unless it is to be silent.
func (s *server) dial(silent ...bool) *client {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	q, err := quic.DialAddr(ctx, s.socket.LocalAddr().String(),
		&tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.Protocol}}, &quic.Config{MaxIdleTimeout: 2 * time.Minute})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { q.CloseWithError(0x100, "") })
	c := &client{q, s.t}
	if len(silent) == 0 {
		c.uni("\x00\x04\x00")
	}
	return c
}

// uni opens a unidirectional stream.
func (c *client) uni(s string) *quic.SendStream {
	c.t.Helper()
	q, err := c.OpenUniStream()
	if err == nil {
		_, err = q.Write([]byte(s))
	}
	if err != nil {
		c.t.Log("open:", err) // the server may have had enough
	}
	return q
}

// send opens a stream, says something on it, and that this is all if it is.
func (c *client) send(s string, all bool) *quic.Stream {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	q, err := c.OpenStreamSync(ctx)
	if err != nil {
		c.t.Log("open:", err) // the server may have had enough
		return nil
	}
	_, _ = q.Write([]byte(s))
	if all {
		_ = q.Close()
	}
	return q
}

// errorOf is the code that a stream, or its connection, ends with; 0: the
// stream ends well.
func (c *client) errorOf(q *quic.Stream) uint64 {
	if q == nil {
		<-c.Context().Done()
		return c.closedWith()
	}
	_ = q.SetReadDeadline(time.Now().Add(2 * time.Minute))
	_, err := io.Copy(io.Discard, q)
	var stream *quic.StreamError
	var conn *quic.ApplicationError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &stream):
		return uint64(stream.ErrorCode)
	case errors.As(err, &conn):
		return uint64(conn.ErrorCode)
	}
	c.t.Errorf("got %v", err)
	return 1
}

// closedWith waits for the connection's end.
func (c *client) closedWith() uint64 {
	c.t.Helper()
	select {
	case <-c.Context().Done():
	case <-time.After(2 * time.Minute):
		c.t.Fatal("the connection stays open")
	}
	var conn *quic.ApplicationError
	if err := context.Cause(c.Context()); !errors.As(err, &conn) {
		c.t.Fatalf("got %v", err)
	}
	return uint64(conn.ErrorCode)
}

func frame(kind uint64, payload string) string {
	b := quicvarint.Append(nil, kind)
	return string(quicvarint.Append(b, uint64(len(payload)))) + payload
}

// headers is a HEADERS frame of literals: name, value, name, value.
func headers(fields ...string) string { return frame(1, section(fields...)) }

func section(fields ...string) string {
	b := []byte{0, 0}
	for i := 0; i < len(fields); i += 2 {
		b = literal(b, 0x20, 3, fields[i])
		b = literal(b, 0, 7, fields[i+1])
	}
	return string(b)
}

func literal(b []byte, first byte, bits uint, s string) []byte {
	if most := 1<<bits - 1; len(s) >= most {
		b = append(b, first|byte(most))
		n := len(s) - most
		for ; n >= 0x80; n >>= 7 {
			b = append(b, byte(n)|0x80)
		}
		b = append(b, byte(n))
	} else {
		b = append(b, first|byte(len(s)))
	}
	return append(b, s...)
}

// get is the head of a request, with more fields.
func get(more ...string) string {
	return headers(append([]string{":method", "GET", ":scheme", "https", ":authority", "shop.example", ":path", "/"}, more...)...)
}

func post(more ...string) string {
	return headers(append([]string{":method", "POST", ":scheme", "https", ":authority", "shop.example", ":path", "/"}, more...)...)
}
