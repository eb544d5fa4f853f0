package peer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
	"go.uber.org/goleak"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience ends a test that would otherwise hang. Nothing is decided by it.
const patience = 2 * time.Minute

// callee speaks HTTP/2 at a port, and HTTP/3 while it is let.
type callee struct {
	t       *testing.T
	tcp     *httptest.Server
	address string
	shown   tls.Certificate
}

func newCallee(t *testing.T, life time.Duration) *callee {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c := &callee{t: t, shown: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
	c.tcp = httptest.NewUnstartedServer(http.HandlerFunc(c.answer))
	c.tcp.EnableHTTP2, c.tcp.TLS = true, &tls.Config{Certificates: []tls.Certificate{c.shown}}
	c.tcp.StartTLS()
	t.Cleanup(c.tcp.Close)
	c.address = c.tcp.Listener.Addr().String()
	return c
}

func (c *callee) answer(w http.ResponseWriter, r *http.Request) {
	fmt.Fprint(w, r.Proto)
	if r.URL.Path == "/endless" {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

// openUDP has it speak HTTP/3, until close is called or the test ends.
func (c *callee) openUDP() (close func()) {
	c.t.Helper()
	socket, err := net.ListenPacket("udp", c.address)
	if err != nil {
		c.t.Skipf("the port is free for TCP alone: %v", err)
	}
	server := &http3.Server{Handler: http.HandlerFunc(c.answer), TLSConfig: &tls.Config{Certificates: []tls.Certificate{c.shown}}}
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(socket) })
	close = sync.OnceFunc(func() { server.Close(); socket.Close(); done.Wait() })
	c.t.Cleanup(close)
	return close
}

// pool is one of connections to the callee.
func (c *callee) pool() *upstream.Pool {
	_, p := c.poolThat(nil)
	return p
}

// poolThat refuses some.
func (c *callee) poolThat(refuses func(*x509.Certificate) bool) (*upstream.Registry, *upstream.Pool) {
	r := upstream.NewRegistry(map[upstream.Protocol]upstream.Dial{upstream.Mesh: Dial})
	r.JoinMesh(func(string) *tls.Config { return &tls.Config{InsecureSkipVerify: true} }, refuses)
	p := r.Acquire(upstream.Key{Address: c.address, Protocol: upstream.Mesh, TLS: upstream.TLS{On: true, SidecarsOf: "books"}})
	c.t.Cleanup(func() { r.Release(p); r.Close() })
	return r, p
}

// ask sends one request, and says by what it went.
func ask(p *upstream.Pool) (upstream.Protocol, error) {
	x := &exchange.Exchange{}
	x.Request.Method, x.Request.Scheme, x.Request.Authority, x.Request.Path = []byte("GET"), []byte("https"), []byte("books.mesh"), []byte("/")
	var s upstream.Stream
	if err := s.Open(context.Background(), p, x, upstream.Options{Now: time.Now(), Stall: 10 * time.Second}); err != nil {
		return 0, err
	}
	defer s.Close(x)
	for x.Response.Body != nil {
		if _, err := x.Response.Body.Next(); err != nil {
			break
		}
	}
	return s.Spoken(), nil
}

// awaitSpoken asks until requests go by a protocol.
func awaitSpoken(t *testing.T, p *upstream.Pool, want upstream.Protocol) {
	t.Helper()
	var got upstream.Protocol
	var err error
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		if got, err = ask(p); err == nil && got == want {
			return
		}
	}
	t.Fatalf("requests go by %s, %v; want %s", got, err, want)
}

func TestHTTP3WhereItWorks(t *testing.T) {
	c := newCallee(t, time.Hour)
	c.openUDP()
	p := c.pool()
	awaitSpoken(t, p, upstream.HTTP3)
	for range 50 {
		if got, err := ask(p); err != nil || got != upstream.HTTP3 {
			t.Fatalf("a request went by %s, %v", got, err)
		}
	}
	if s := p.Stats(); s.Dials > 2 { // a slow machine begins with HTTP/2
		t.Errorf("%d connections were made for one request after another", s.Dials)
	}
}

func TestHTTP2UntilHTTP3Works(t *testing.T) {
	c := newCallee(t, time.Hour)
	p := c.pool()
	for range 3 {
		if got, err := ask(p); err != nil || got != upstream.HTTP2 {
			t.Fatalf("with UDP closed a request went by %s, %v", got, err)
		}
	}
	shut := c.openUDP()
	awaitSpoken(t, p, upstream.HTTP3)
	shut()
	awaitSpoken(t, p, upstream.HTTP2)
}

// A connection is left before a certificate has run out, and nobody notices.
func TestConnectionsEndWithCertificates(t *testing.T) {
	c := newCallee(t, 3*time.Second)
	c.openUDP()
	p := c.pool()
	awaitSpoken(t, p, upstream.HTTP3)
	dials := p.Stats().Dials
	for limit := time.Now().Add(patience); p.Stats().Dials == dials; time.Sleep(5 * time.Millisecond) {
		if _, err := ask(p); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(limit) {
			t.Fatal("the connection stays")
		}
	}
}

func TestNobodyThere(t *testing.T) {
	c := newCallee(t, time.Hour)
	p := c.pool()
	c.tcp.Close()
	if _, err := ask(p); err == nil {
		t.Error("somebody answered")
	}
}

// begin asks for what the callee goes on to answer until the test ends, and returns what
// reads it to its end.
func begin(t *testing.T, p *upstream.Pool) (rest func() error) {
	t.Helper()
	x, s := &exchange.Exchange{}, new(upstream.Stream)
	x.Request.Method, x.Request.Scheme, x.Request.Authority, x.Request.Path = []byte("GET"), []byte("https"), []byte("books.mesh"), []byte("/endless")
	if err := s.Open(t.Context(), p, x, upstream.Options{Now: time.Now(), Stall: patience}); err != nil {
		t.Fatal(err)
	}
	return func() error {
		defer s.Close(x)
		for {
			if _, err := x.Response.Body.Next(); err != nil {
				return err
			}
		}
	}
}

// A connection to who is shut out breaks with what is under way on it, whatever is spoken,
// and no other is made that lasts.
func TestWhoIsShutOutIsLeftAtOnce(t *testing.T) {
	for name, spoken := range map[string]upstream.Protocol{"HTTP/3": upstream.HTTP3, "HTTP/2": upstream.HTTP2} {
		t.Run(name, func(t *testing.T) {
			c := newCallee(t, time.Hour)
			if spoken == upstream.HTTP3 {
				c.openUDP()
			}
			var isShutOut atomic.Bool
			leaf, err := x509.ParseCertificate(c.shown.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			which := func(seen *x509.Certificate) bool { return isShutOut.Load() && seen.Equal(leaf) }
			r, p := c.poolThat(which)
			awaitSpoken(t, p, spoken)
			rest := begin(t, p)
			if n := r.Cut(which); n != 0 {
				t.Fatalf("%d connections are cut with nobody shut out", n)
			}
			isShutOut.Store(true)
			if n := r.Cut(which); n == 0 {
				t.Error("none is cut")
			}
			if err := rest(); err == nil || err == io.EOF {
				t.Errorf("the answer ended with %v", err)
			}
			if _, err := ask(p); err == nil { // made after it was shut out, past the handshake
				t.Error("it is asked again")
			}
		})
	}
}
