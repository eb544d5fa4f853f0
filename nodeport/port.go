package nodeport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/weirmesh/weir/identity"
)

const (
	// Both sides notice within idleTimeout that the other is gone. A peer that
	// was killed, on a machine that lives, is noticed at the next keep-alive: by
	// the machine's word that nobody listens, or by a stateless reset.
	keepAlive   = time.Second
	idleTimeout = 4 * time.Second
	// handshakeTimeout ends a handshake in which nothing comes any more. A server
	// to which all its proxies come at once takes some seconds for the last.
	handshakeTimeout = 10 * time.Second
	// stopTimeout is how long calls in flight may take to end at a stop.
	stopTimeout = 700 * time.Millisecond

	defaultConnections = 16 << 10
	maxHandshakes      = 4 << 10
	// From so many handshakes at once on a peer must show that it is where it
	// says it is, which costs it a round trip and us no memory.
	trustedHandshakes = 256
	// maxStreams are open at once on one connection.
	maxStreams = 256

	codeGoingAway quic.ApplicationErrorCode = 0
)

// Config is how a port is served. Members and Connections may be left out.
type Config struct {
	Identity *identity.Identity
	// Members gets the streams of other servers; nil: they are not spoken with.
	Members *Members
	// Refuse says why the streams of a server are not taken, whose certificate is
	// good otherwise, such as one that was removed. nil: all are.
	Refuse func(leaf *x509.Certificate) error
	Logger *slog.Logger
	// ResetKey lets peers notice a restart at once. It must be secret and stay
	// the same.
	ResetKey [32]byte
	// Connections bounds how many there may be at once.
	Connections int
}

// Port is the servers' end.
type Port struct {
	udp net.PacketConn
	tcp net.Listener
	api atomic.Pointer[http.Handler]

	cfg         Config // since Serve
	refusals    refusals
	connections atomic.Int64
	handshakes  atomic.Int64
	running     sync.WaitGroup
}

// Listen takes the port: UDP and TCP of one number. With port 0 it finds one
// that is free in both. Who comes before Serve waits.
func Listen(address string) (*Port, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen on node port: %w", err)
	}
	const tries = 20
	for n := 1; ; n++ {
		p, err := listenOnce(host, port)
		if err == nil {
			return p, nil
		}
		if port != "0" || n == tries {
			return nil, fmt.Errorf("listen on node port: %w", err)
		}
	}
}

func listenOnce(host, port string) (*Port, error) {
	tcp, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	number := strconv.Itoa(tcp.Addr().(*net.TCPAddr).Port)
	udp, err := net.ListenPacket("udp", net.JoinHostPort(host, number))
	if err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	return &Port{udp: udp, tcp: tcp}, nil
}

// Addr is where the port listens, over UDP and TCP alike.
func (p *Port) Addr() net.Addr { return p.udp.LocalAddr() }

// Handle says who answers the node API. Until it is called, callers are told to
// come again.
func (p *Port) Handle(api http.Handler) { p.api.Store(&api) }

// Close gives up a port that was never served.
func (p *Port) Close() error { return errors.Join(p.udp.Close(), p.tcp.Close()) }

// Serve lets peers in until ctx ends. It then gives calls in flight a moment,
// closes all connections so that peers know why, and waits for everything that
// it has started. It may be called once.
func (p *Port) Serve(ctx context.Context, cfg Config) error {
	if cfg.Connections == 0 {
		cfg.Connections = defaultConnections
	}
	p.cfg, p.refusals.log = cfg, cfg.Logger
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resetKey := quic.StatelessResetKey(p.cfg.ResetKey)
	// Packets must be longer than a stateless reset to get one for an answer.
	transport := &quic.Transport{
		Conn: p.udp, StatelessResetKey: &resetKey, ConnectionIDLength: 16,
		VerifySourceAddress: func(net.Addr) bool { return p.handshakes.Load() >= trustedHandshakes },
		ConnContext:         p.admitQUIC,
	}
	listener, err := transport.Listen(serverTLS(p.cfg.Identity, p.protocols(protoHTTP3)...), serverQUIC())
	if err != nil {
		return errors.Join(fmt.Errorf("serve node port: %w", err), p.Close())
	}
	over3, over2 := p.http3Server(), newHTTP2Server(p)
	failed := make(chan error, 3)
	p.running.Go(func() { failed <- p.acceptQUIC(ctx, listener, over3) })
	p.running.Go(func() { failed <- p.acceptTCP(ctx, over2) })
	stopTCP := context.AfterFunc(ctx, func() { _ = p.tcp.Close() })
	defer stopTCP()
	p.running.Go(func() { failed <- over2.serve() })

	err = <-failed
	if ctx.Err() != nil {
		err = nil
	} else {
		err = fmt.Errorf("serve node port: %w", err)
	}
	cancel()
	_ = p.tcp.Close()
	_ = listener.Close()
	shutDown(over3, over2)
	// The last words to peers are on their way once their goroutines are done.
	p.running.Wait()
	return errors.Join(err, ignoreClosed(transport.Close()), ignoreClosed(p.udp.Close()))
}

// shutDown lets calls in flight end.
func shutDown(over3 *http3.Server, over2 *http2Server) {
	grace, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { _ = over3.Shutdown(grace); _ = over3.Close() })
	both.Go(func() { over2.shutDown(grace) })
	both.Wait()
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// protocols are what is spoken, over a transport that has its own HTTP.
func (p *Port) protocols(web string) []string {
	if p.cfg.Members == nil {
		return []string{web}
	}
	return []string{web, protoRaft}
}

// ServeHTTP hands a request to the node API, once there is one.
func (p *Port) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	api := p.api.Load()
	if api == nil {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "the server is starting", http.StatusServiceUnavailable)
		return
	}
	(*api).ServeHTTP(w, r)
}

// checkMember asks Refuse about a server at the other end. What it says is logged
// once.
func (p *Port) checkMember(id identity.ID, state tls.ConnectionState, address, over string) func() error {
	if p.cfg.Refuse == nil {
		return func() error { return nil }
	}
	return func() error {
		err := p.cfg.Refuse(state.PeerCertificates[0])
		if err != nil && p.refusals.isNews(id.String(), err.Error()) {
			p.refusals.note(address, over, err)
		}
		return err
	}
}

// take counts a connection, and tells whether there is room for it.
func (p *Port) take() bool {
	if p.connections.Add(1) > int64(p.cfg.Connections) {
		p.connections.Add(-1)
		return false
	}
	return true
}

func (p *Port) release() { p.connections.Add(-1) }
