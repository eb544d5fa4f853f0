package nodeport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/weirmesh/weir/identity"
)

const (
	// maxArrived is how many streams may wait to be accepted.
	maxArrived = 128
	maxPeers   = 64
	// A stream over TCP is closed so long after UDP works again, so that its user
	// opens one over QUIC: not all at once.
	returnAfter = 5 * time.Second
)

// Members carries streams between the servers of the cluster: of a QUIC
// connection for each peer, or over TCP, a connection each.
type Members struct {
	node    *identity.Identity
	dialer  *Dialer
	arrived chan arrivedStream
	room    chan struct{} // filled by streams that have arrived, or are about to
	gate    gate
	life    context.Context
	end     context.CancelFunc
	// The constant of this name; tests are in more of a hurry.
	returnAfter time.Duration

	mu    sync.Mutex
	peers map[peerKey]*peer
}

type arrivedStream struct {
	conn   net.Conn
	member string
}

// NewMembers makes a Members that dials by a dialer. What comes to a port is
// received once Port.Serve was given it; Close ends it.
func NewMembers(node *identity.Identity, dialer *Dialer) *Members {
	m := &Members{
		node: node, dialer: dialer, returnAfter: returnAfter, peers: map[peerKey]*peer{},
		arrived: make(chan arrivedStream, maxArrived), room: make(chan struct{}, maxArrived),
	}
	m.life, m.end = context.WithCancel(context.Background())
	return m
}

// Close ends Accept, and the connections to other servers with all their
// streams.
func (m *Members) Close() error {
	m.end()
	m.mu.Lock()
	for _, p := range m.peers {
		p.drop(p.live())
	}
	clear(m.peers)
	m.mu.Unlock()
	m.gate.shut()
	return nil
}

var errMembersClosed = fmt.Errorf("streams between servers: %w", net.ErrClosed)

// Accept returns the next stream that another server opened to this one, and
// the name that it has proven.
func (m *Members) Accept(ctx context.Context) (conn net.Conn, member string, err error) {
	select {
	case s := <-m.arrived:
		m.giveRoom()
		return s.conn, s.member, nil
	case <-ctx.Done():
		return nil, "", context.Cause(ctx)
	case <-m.life.Done():
		return nil, "", errMembersClosed
	}
}

// Dial opens a stream to a server at an address. The other end has proven that
// it is the one named, or with an empty name some server of the cluster, and
// has taken the stream.
func (m *Members) Dial(ctx context.Context, address, member string) (net.Conn, error) {
	conn, err := m.peer(address, member).open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open stream to server %s at %s: %w", member, address, err)
	}
	return conn, nil
}

type peerKey struct{ address, member string }

// peer is another server, as seen from here.
type peer struct {
	members *Members
	address string
	speech  speech
	dialing chan struct{} // held by who dials

	mu   sync.Mutex
	conn *quic.Conn
}

func (m *Members) peer(address, member string) *peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := peerKey{address, member}
	p := m.peers[key]
	if p == nil {
		m.forgetPeers()
		p = &peer{
			members: m, address: address, dialing: make(chan struct{}, 1),
			speech: newSpeech(TrustMember(m.node, member), protoRaft, protoRaft),
		}
		m.peers[key] = p
	}
	return p
}

// forgetPeers drops those without a connection when there are many.
func (m *Members) forgetPeers() {
	if len(m.peers) < maxPeers {
		return
	}
	for key, p := range m.peers {
		if p.live() == nil {
			delete(m.peers, key)
		}
	}
}

// live returns the connection if there is one that has not ended.
func (p *peer) live() *quic.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil && p.conn.Context().Err() != nil {
		p.conn = nil
	}
	return p.conn
}

func (p *peer) keep(conn *quic.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn = conn
}

func (p *peer) drop(conn *quic.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if conn != nil && p.conn == conn {
		_ = conn.CloseWithError(codeGoingAway, "")
		p.conn = nil
	}
}

func (p *peer) open(ctx context.Context) (net.Conn, error) {
	if conn := p.live(); conn != nil {
		stream, err := p.openOn(ctx, conn)
		if err == nil || isVerdict(err) || ctx.Err() != nil {
			return stream, err
		}
		p.drop(conn)
	}
	select {
	case p.dialing <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	conn, overTCP, err := p.connect(ctx)
	<-p.dialing
	switch {
	case err != nil:
		return nil, err
	case overTCP != nil:
		return p.members.overTCP(ctx, overTCP)
	}
	return p.openOn(ctx, conn)
}

// isVerdict tells whether an error is about a stream alone, by a peer that is
// there.
func isVerdict(err error) bool {
	var ended *quic.StreamError
	var refused *RefusedError
	return errors.As(err, &refused) || errors.Is(err, errBusy) || errors.Is(err, errUnknown) || errors.As(err, &ended)
}

// connect returns one of the two: the QUIC connection, which somebody else may
// have made meanwhile, or one over TCP.
func (p *peer) connect(ctx context.Context) (*quic.Conn, *connection, error) {
	if conn := p.live(); conn != nil {
		return conn, nil, nil
	}
	if p.members.life.Err() != nil {
		return nil, nil, errMembersClosed
	}
	c, err := p.members.dialer.dial(ctx, p.address, p.speech)
	switch {
	case err != nil:
		return nil, nil, err
	case c.quic == nil:
		return nil, c, nil
	}
	p.keep(c.quic)
	if p.members.life.Err() != nil {
		p.drop(c.quic)
		return nil, nil, errMembersClosed
	}
	return c.quic, nil, nil
}

// openOn opens a stream of a connection. A peer that does not answer in time
// loses the connection with it: it may hang, or have been replaced.
func (p *peer) openOn(ctx context.Context, conn *quic.Conn) (net.Conn, error) {
	within, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	raw, err := conn.OpenStreamSync(within)
	if err == nil {
		stream := newQUICStream(conn, raw)
		if err = greetWithin(within, stream); err == nil {
			return stream, nil
		}
		_ = stream.Close()
	}
	if within.Err() != nil && ctx.Err() == nil {
		p.drop(conn)
	}
	return nil, err
}

// greetWithin greets for no longer than a context lasts.
func greetWithin(ctx context.Context, conn net.Conn) error {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err := greet(conn)
	if !stop() {
		return errors.Join(context.Cause(ctx), err)
	}
	if err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// overTCP makes a stream of a TCP connection.
func (m *Members) overTCP(ctx context.Context, c *connection) (net.Conn, error) {
	stream := newTCPStream(c.tcp, c.path.leave)
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	if err := greetWithin(ctx, stream); err != nil {
		return nil, errors.Join(err, stream.Close())
	}
	if !m.gate.run(func() { m.tend(stream, c.returned) }) {
		return nil, errors.Join(errMembersClosed, stream.Close())
	}
	return stream, nil
}

// tend closes a stream over TCP some time after UDP works again.
func (m *Members) tend(stream *tcpStream, returned <-chan struct{}) {
	defer stream.Close()
	select {
	case <-returned:
	case <-stream.closed:
		return
	case <-m.life.Done():
		return
	}
	t := time.NewTimer(m.returnAfter + rand.N(2*m.returnAfter))
	defer t.Stop()
	select {
	case <-t.C:
	case <-stream.closed:
	case <-m.life.Done():
	}
}

// serveQUIC receives the streams of another server's connection until it ends.
// check is asked for each: a peer may be removed while it is connected.
func (m *Members) serveQUIC(ctx context.Context, conn *quic.Conn, member string, check func() error) {
	var greeting sync.WaitGroup
	defer greeting.Wait()
	for {
		raw, err := conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		greeting.Go(func() {
			stream := newQUICStream(conn, raw)
			if err := m.receive(stream, member, check); err != nil {
				_ = stream.Close()
			}
		})
	}
}

// serveTCP receives one stream, and closes it when ctx ends before its user
// does.
func (m *Members) serveTCP(ctx context.Context, conn *tls.Conn, member string, check func() error) {
	stream := newTCPStream(conn, func() {})
	defer stream.Close()
	if m.receive(stream, member, check) != nil {
		return
	}
	select {
	case <-ctx.Done():
	case <-stream.closed:
	}
}

// receive greets back and hands the stream to Accept. The answer is out before
// that: its user's bytes come after it.
func (m *Members) receive(conn net.Conn, member string, check func() error) error {
	_ = conn.SetDeadline(time.Now().Add(greetTimeout))
	if err := receive(conn, check, m.takeRoom, m.giveRoom); err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Time{})
	m.arrived <- arrivedStream{conn, member} // it has as many places as there is room
	return nil
}

func (m *Members) giveRoom() { <-m.room }

func (m *Members) takeRoom() bool {
	if m.life.Err() != nil {
		return false
	}
	select {
	case m.room <- struct{}{}:
		return true
	default:
		return false
	}
}
