package nodeport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/internal/pause"
)

func TestListenTakesOneNumberInBoth(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	if s.port.udp.LocalAddr().String() != s.port.tcp.Addr().String() {
		t.Fatalf("UDP is at %v, TCP at %v", s.port.udp.LocalAddr(), s.port.tcp.Addr())
	}
	if _, err := Listen(s.address); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("the port was taken twice: %v", err)
	}
	if _, err := Listen("nonsense"); err == nil {
		t.Fatal("an address that is none was taken")
	}
}

// The same handler answers over HTTP/3 and HTTP/2, both ways at once.
func TestNodeAPIOverBoth(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	edge := c.node(identity.RoleEdge, "e1")
	d := newDialer(t, s.log, DialerConfig{})
	over3 := c.link(d, s.address, edge)
	over2 := overTCPLink(t, d, s.address, edge.ClientTLS)
	for _, l := range []struct {
		*Link
		want string
	}{{over3, "HTTP/3.0"}, {over2, "HTTP/2.0"}} {
		requireCall(t, l.Link, l.want)
		requireConversation(t, l.Link, l.want)
	}
}

// overTCPLink is a link that never asked UDP.
func overTCPLink(t testing.TB, d *Dialer, address string, trust Trust) *Link {
	t.Helper()
	conn, err := d.dialTCP(bounded(t), address, marked(trust(protoHTTP2)))
	if err != nil {
		t.Fatal(err)
	}
	p := d.path(address)
	l, err := overHTTP2(bounded(t), address, &connection{tcp: conn, path: p, returned: p.enter(nil, newSpeech(trust, protoHTTP3, protoHTTP2))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func requireConversation(t *testing.T, l *Link, proto string) {
	t.Helper()
	body, pen := io.Pipe()
	r, err := http.NewRequestWithContext(bounded(t), "POST", "https://node/", body)
	if err != nil {
		t.Fatal(err)
	}
	response, err := l.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	expect := func(want string) {
		got := make([]byte, len(want))
		if _, err := io.ReadFull(response.Body, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	expect(proto + "\n")
	for _, word := range []string{"one", "two", "three"} {
		if _, err := io.WriteString(pen, word); err != nil {
			t.Fatal(err)
		}
		expect(word)
	}
	pen.Close()
	if rest, err := io.ReadAll(response.Body); err != nil || len(rest) != 0 {
		t.Fatalf("at the end: %q, %v", rest, err)
	}
}

func TestBeforeThereIsAHandler(t *testing.T) {
	c := newCluster(t)
	node := c.node(identity.RoleServer, "s1")
	log := newDiary(t)
	port, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, port, Config{Identity: node}, log)
	l := c.link(s.dialer, s.address, c.node(identity.RoleEdge, "e1"))
	r, _ := http.NewRequestWithContext(bounded(t), "GET", "https://node/", nil)
	response, err := l.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Fatalf("got %v", response)
	}
}

// requireRefused checks that a peer is turned away over both, and the log says
// why.
func requireRefused(t *testing.T, s *server, what string, config *tls.Config, want string) {
	t.Helper()
	before := s.log.count("peer refused")
	ctx := bounded(t)
	overUDP := func() error {
		conn, err := quic.DialAddr(ctx, s.address, config, clientQUIC())
		if err != nil {
			return err
		}
		defer conn.CloseWithError(0, "")
		// In TLS 1.3 a client is done before the server has judged it.
		stream, err := conn.OpenStreamSync(ctx)
		if err != nil {
			return err
		}
		_, _ = stream.Write([]byte{greeting})
		_, err = stream.Read(make([]byte, 1))
		return err
	}
	overTCP := func() error {
		conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", s.address)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	for network, try := range map[string]func() error{"QUIC": overUDP, "TCP": overTCP} {
		if err := try(); err == nil {
			t.Errorf("%s over %s: it was let in", what, network)
		} else {
			t.Logf("%s over %s is told: %v", what, network, err)
		}
	}
	s.log.awaitCount(t, "peer refused", before+2)
	if s.log.count(want) == 0 {
		t.Errorf("%s: the log does not say %q", what, want)
	}
}

func TestWhoIsRefused(t *testing.T) {
	c, other := newCluster(t), newCluster(t)
	edge, server, foreign := c.node(identity.RoleEdge, "e1"), c.node(identity.RoleServer, "s2"), other.node(identity.RoleServer, "s1")
	believing := func(config *tls.Config) *tls.Config {
		config.VerifyConnection = nil
		return config
	}
	none := believing(edge.ClientTLS(protoRaft))
	none.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil }
	// A good server's chain, of which everybody knows the certificate, and
	// another key.
	stolen := believing(server.ClientTLS(protoRaft))
	stolen.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		good, err := server.ClientTLS().GetClientCertificate(info)
		if err != nil {
			return nil, err
		}
		mine, err := foreign.ClientTLS().GetClientCertificate(info)
		if err != nil {
			return nil, err
		}
		return &tls.Certificate{Certificate: good.Certificate, PrivateKey: mine.PrivateKey}, nil
	}
	for what, tc := range map[string]struct {
		config *tls.Config
		want   string
	}{
		"an edge on raft/1":                {edge.ClientTLS(protoRaft), "it is no server"},
		"nobody on raft/1":                 {none, "presented no certificate"},
		"a foreign server on raft/1":       {believing(foreign.ClientTLS(protoRaft)), "unknown authority"},
		"a foreign server at the node API": {believing(foreign.ClientTLS(protoHTTP3, protoHTTP2)), "unknown authority"},
		"a stolen certificate":             {stolen, "signature"},
		"an unknown protocol":              {server.ClientTLS("gossip/1"), "gossip/1"},
	} {
		t.Run(what, func(t *testing.T) { requireRefused(t, c.serve("s1"), what, tc.config, tc.want) })
	}
}

// A certificate that has run out is good for the node API, which lets its node
// renew, and for nothing else.
func TestExpiredCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		edge, member := c.node(identity.RoleEdge, "e1"), c.node(identity.RoleServer, "s2")
		time.Sleep(2 * identity.LeafLifetime)
		server := serverTLS(c.node(identity.RoleServer, "s1"), protoHTTP2, protoRaft)
		for _, tc := range []struct {
			node  *identity.Identity
			proto string
			want  error
		}{{edge, protoHTTP2, nil}, {member, protoHTTP2, nil}, {member, protoRaft, identity.ErrExpired}} {
			near, far := net.Pipe()
			client := tls.Client(near, tc.node.ClientTLS(tc.proto))
			var calling sync.WaitGroup
			calling.Go(func() {
				_ = client.HandshakeContext(t.Context())
				_, _ = io.Copy(io.Discard, near)
			})
			err := tls.Server(far, server).HandshakeContext(t.Context())
			if !errors.Is(err, tc.want) {
				t.Errorf("%s on %s: got %v, want %v", tc.node.ID(), tc.proto, err, tc.want)
			}
			far.Close()
			near.Close()
			calling.Wait()
		}
	})
}

// Whoever knocks without end does not fill the disk.
func TestRefusalsAreLoggedWithinBounds(t *testing.T) {
	log := newDiary(t)
	r := refusals{log: log.logger()}
	for range 1000 {
		r.note("192.0.2.1:1", "TCP", io.EOF)
	}
	if n := log.count("peer refused"); n != refusalsLogged {
		t.Fatalf("%d lines", n)
	}
	if due, silent := r.count(time.Now().Add(2 * refusalsWindow)); !due || silent != 1000-refusalsLogged {
		t.Fatalf("after the window: %v, %d were not logged", due, silent)
	}
}

// There is no session to resume, so nothing that could be sent twice.
func TestNothingIsResumed(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	edge := c.node(identity.RoleEdge, "e1")
	cache := tls.NewLRUClientSessionCache(4)
	over2, over3 := edge.ClientTLS(protoHTTP2), edge.ClientTLS(protoHTTP3)
	over2.ClientSessionCache, over3.ClientSessionCache = cache, cache
	for range 2 {
		conn, err := tls.Dial("tcp", s.address, over2)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, _ = conn.Read(make([]byte, 1)) // the server's settings; tickets would come first
		if conn.ConnectionState().DidResume {
			t.Error("a TLS session was resumed")
		}
		conn.Close()
		early, err := quic.DialAddrEarly(bounded(t), s.address, over3, clientQUIC())
		if err != nil {
			t.Fatal(err)
		}
		<-early.HandshakeComplete()
		if state := early.ConnectionState(); state.Used0RTT || state.TLS.DidResume {
			t.Error("a QUIC session was resumed")
		}
		early.CloseWithError(0, "")
	}
	if _, ok := cache.Get(identity.ServerName(edge.TrustDomain())); ok {
		t.Error("a session ticket was offered")
	}
}

// Nobody is refused for coming at the same time as everybody else. On a machine
// that is slow enough some may have to try twice.
func TestABurstOfDials(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	edge := c.node(identity.RoleEdge, "e1")
	d := newDialer(t, newDiary(t), DialerConfig{})
	burst := 200
	if raceEnabled {
		burst = 50 // each costs ten times as much
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	defer cancel()
	var dials sync.WaitGroup
	for range burst {
		dials.Go(func() {
			for tries := time.Duration(1); ; tries++ {
				l, err := d.Link(ctx, s.address, edge.ClientTLS)
				if err == nil {
					t.Cleanup(l.Close)
					return
				}
				if refused := new(quic.TransportError); errors.As(err, &refused) && refused.ErrorCode == quic.ConnectionRefused || ctx.Err() != nil {
					t.Error(err)
					return
				}
				pause.For(ctx, rand.N(tries*time.Second)) // as any client would
			}
		})
	}
	dials.Wait()
	if s.log.count("peer refused") != 0 {
		t.Error("some were refused")
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	c := newCluster(t)
	node, log := c.node(identity.RoleServer, "s1"), newDiary(t)
	port, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, port, Config{Identity: node, Connections: 2}, log)
	edge := c.node(identity.RoleEdge, "e1")
	first := c.link(s.dialer, s.address, edge)
	c.link(s.dialer, s.address, edge)
	if _, err := s.dialer.Link(bounded(t), s.address, edge.ClientTLS); err == nil {
		t.Fatal("a third connection was let in")
	}
	if log.count("does not answer") != 0 {
		t.Error("a server that is full was taken for one without UDP")
	}
	first.Close()
	for ctx := bounded(t); ; {
		l, err := s.dialer.Link(ctx, s.address, edge.ClientTLS)
		if err == nil {
			l.Close()
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// A port that stops says so, to calls that would never end as well.
func TestStopEndsEverything(t *testing.T) {
	c := newCluster(t)
	s, peer := c.serve("s1"), c.serve("s2")
	edge := c.node(identity.RoleEdge, "e1")
	d := newDialer(t, s.log, DialerConfig{})
	ended := make(chan error, 2)
	for _, l := range []*Link{c.link(d, s.address, edge), overTCPLink(t, d, s.address, edge.ClientTLS)} {
		body, pen := io.Pipe()
		t.Cleanup(func() { pen.Close() })
		r, _ := http.NewRequestWithContext(bounded(t), "POST", "https://node/", body)
		response, err := l.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { response.Body.Close() })
		go func() {
			_, err := io.ReadAll(response.Body)
			ended <- err
		}()
	}
	near, _ := pair(t, peer, s, s.address)
	s.stop()
	_, err := near.Read(make([]byte, 1))
	if !GoingAway(err) {
		t.Errorf("another server's stream ended with %v", err)
	}
	for range 2 {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a call that was cut off looks whole")
			}
			t.Logf("a call ended with %v", err)
		case <-time.After(patience):
			t.Fatal("a call goes on")
		}
	}
}

func TestServeEndsWhenASocketFails(t *testing.T) {
	c := newCluster(t)
	node := c.node(identity.RoleServer, "s1")
	for name, fail := range map[string]func(*Port){
		"TCP": func(p *Port) { p.tcp.Close() },
		"UDP": func(p *Port) { p.udp.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			port, err := Listen("127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- port.Serve(context.Background(), Config{Identity: node, Logger: newDiary(t).logger()}) }()
			fail(port)
			select {
			case err := <-done:
				if err == nil {
					t.Fatal("it ended without an error")
				}
			case <-time.After(patience):
				t.Fatal("it goes on")
			}
		})
	}
}

var _ net.Listener = (*http2Server)(nil)
