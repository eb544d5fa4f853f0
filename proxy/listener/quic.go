package listener

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/weirmesh/weir/proxy/http3"
)

// QUIC serves one socket of UDP, by HTTP/3. Make it with [ServeQUIC].
type QUIC struct {
	cfg        Config
	terms      func(*tls.ClientHelloInfo) (*tls.Config, any)
	socket     net.PacketConn
	transport  *quic.Transport
	listener   *quic.Listener
	draining   atomic.Bool
	accepted   atomic.Uint64
	unsecured  atomic.Uint64
	handshakes atomic.Int64 // under way
	sessions   sync.Pool
	refusals

	mu    sync.Mutex
	conns map[*http3.Conn]*x509.Certificate // and who was verified to be there
	done  sync.WaitGroup                    // the accept loop and every connection
}

// ServeQUIC starts to serve a socket, which the QUIC owns from then on. terms is
// as in Security; a configuration without certificate turns the client away.
func ServeQUIC(socket net.PacketConn, cfg Config, terms func(*tls.ClientHelloInfo) (config *tls.Config, terms any)) (*QUIC, error) {
	cfg.setDefaults()
	q := &QUIC{cfg: cfg, terms: terms, socket: socket, conns: map[*http3.Conn]*x509.Certificate{}}
	q.sessions.New = func() any { return &place{Session: cfg.Handler.NewSession()} }
	q.transport = &quic.Transport{
		Conn: socket, ConnectionIDLength: connectionID, ConnContext: q.admit,
		// Under load a client has to prove that it is where it says before it
		// costs a handshake: one round trip more.
		VerifySourceAddress: func(net.Addr) bool { return q.handshakes.Load() >= int64(cfg.Handshakes/trusted) },
	}
	if key := quic.StatelessResetKey(cfg.ResetKey); key != (quic.StatelessResetKey{}) {
		q.transport.StatelessResetKey = &key
	}
	var err error
	if q.listener, err = q.transport.Listen(q.tls(), http3.QUIC(cfg.Idle, cfg.Handshake)); err != nil {
		_ = socket.Close() // of no use to anyone
		return nil, err
	}
	q.done.Go(q.accept)
	return q, nil
}

const (
	connectionID = 8
	// trusted is which part of the handshakes that may be under way are with
	// clients whose address nobody has checked.
	trusted = 4
)

// tls finds out what the client is offered once it has said whom it wants.
func (q *QUIC) tls() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{http3.Protocol},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			config, terms := q.terms(hello)
			if a, ok := hello.Context().Value(arrivalKey{}).(*arrival); ok {
				a.terms = terms
			}
			return config, nil
		},
	}
}

// arrival follows a connection from its first packet on.
type arrival struct {
	admission *Admission
	terms     any // of its handshake
	over      atomic.Bool

	mu      sync.Mutex
	counted netip.Addr // the client as it is counted; invalid: it is not
	left    bool
}

type arrivalKey struct{}

var errFull = errors.New("no more connections are taken in")

// admit decides whether a client may shake hands, and counts its connection from
// then on for as long as it lasts.
func (q *QUIC) admit(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	a := &arrival{admission: q.cfg.admission()}
	switch {
	case a.admission.Closed:
		q.refuse(RefusedClosed)
		return nil, errFull
	case a.admission.Proxy != nil: // what it is about is not spoken over UDP
		q.refuse(RefusedProxy)
		return nil, errFull
	case !q.cfg.take(a.admission):
		q.refuse(RefusedTotal)
		return nil, errFull
	case q.handshakes.Add(1) > int64(q.cfg.Handshakes):
		q.handshakes.Add(-1)
		q.cfg.leave(netip.Addr{})
		q.unsecured.Add(1)
		return nil, errFull
	}
	ctx = context.WithValue(ctx, arrivalKey{}, a)
	// It counts, and nobody waits for it.
	context.AfterFunc(ctx, func() {
		if q.handshakeOver(a) {
			q.unsecured.Add(1)
		}
		q.cfg.leave(a.leave())
	})
	return ctx, nil
}

// leave says who is to be counted out.
func (a *arrival) leave() netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = true
	return a.counted
}

// count adds a connection to those of its client, who by now has proved to be
// where it says: others cannot use up what it may have.
func (q *QUIC) count(a *arrival, client netip.Addr) (ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left {
		return false
	}
	a.counted, ok = q.cfg.Crowd.count(client, a.admission.MaxPerClient)
	return ok || q.refuse(RefusedClient)
}

// handshakeOver is true for the first who says so.
func (q *QUIC) handshakeOver(a *arrival) bool {
	first := a.over.CompareAndSwap(false, true)
	if first {
		q.handshakes.Add(-1)
	}
	return first
}

// Addr is the address that is listened on.
func (q *QUIC) Addr() net.Addr { return q.socket.LocalAddr() }

// Connections counts those open now and those ever accepted.
func (q *QUIC) Connections() (open int, accepted uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.conns), q.accepted.Load()
}

// Unsecured counts the handshakes that failed.
func (q *QUIC) Unsecured() uint64 { return q.unsecured.Load() }

// accept hands connections on as fast as they come: those that wait are few, and
// what comes above that is refused by the library.
func (q *QUIC) accept() {
	for {
		c, err := q.listener.Accept(context.Background())
		if err != nil {
			return // it is closed
		}
		q.accepted.Add(1)
		q.done.Go(func() { q.serve(c) })
	}
}

func (q *QUIC) serve(c *quic.Conn) {
	a, ok := c.Context().Value(arrivalKey{}).(*arrival)
	if !ok || !q.handshakeOver(a) {
		return // it is gone already
	}
	if !q.count(a, udpAddrPort(c.RemoteAddr()).Addr()) {
		http3.Refuse(c)
		return
	}
	h := http3.NewConn(c, http3.Config{
		Take: func() http3.Place { return q.sessions.Get().(*place) },
		Give: func(p http3.Place) {
			p.Exchange().Reset()
			q.sessions.Put(p)
		},
		Logger: q.cfg.Logger, Idle: q.cfg.Idle, Head: q.cfg.Head, Stall: q.cfg.Stall,
		Client: udpAddrPort(c.RemoteAddr()), Local: udpAddrPort(c.LocalAddr()), TLS: factsOf(c.ConnectionState().TLS, a.terms),
	})
	q.mu.Lock()
	leaf := verifiedPeer(c.ConnectionState().TLS, a.terms)
	q.conns[h] = leaf
	q.mu.Unlock()
	if q.cfg.refuses(leaf) {
		h.Cut()
	}
	// Whoever drains says so before it looks at the connections: one of the two
	// sees the other.
	if q.draining.Load() {
		h.Drain()
	}
	h.Run()
	q.mu.Lock()
	delete(q.conns, h)
	q.mu.Unlock()
}

func udpAddrPort(a net.Addr) netip.AddrPort {
	if u, ok := a.(*net.UDPAddr); ok {
		ap := u.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// StopAccepting is the first step of Close: connections are told to come to an
// end. The address is not free before Close returns, since they all use it.
func (q *QUIC) StopAccepting() {
	q.draining.Store(true)
	_ = q.listener.Close() // it has no error to tell
	q.mu.Lock()
	defer q.mu.Unlock()
	for h := range q.conns {
		h.Drain()
	}
}

// Close drains the socket as Listener.Close does, and then closes it.
func (q *QUIC) Close(ctx context.Context) error {
	q.StopAccepting()
	drained := make(chan struct{})
	go func() { q.done.Wait(); close(drained) }() // ends with the last connection, which is cut below at the latest
	var err error
	select {
	case <-drained:
	case <-ctx.Done():
		err = ctx.Err()
		q.cut(drained)
	}
	return errors.Join(err, closed(q.transport.Close()), closed(q.socket.Close()))
}

// cut ends all connections, those included that turn up late.
func (q *QUIC) cut(drained <-chan struct{}) {
	for {
		q.mu.Lock()
		for h := range q.conns {
			h.Cut()
		}
		q.mu.Unlock()
		select {
		case <-drained:
			return
		case <-time.After(lingerTime):
		}
	}
}

// closed: an end that was reached before is no error.
func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
