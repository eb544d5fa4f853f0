package nodeport

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"
)

// attempt is a QUIC handshake under way. It goes on when the dial that wanted
// it is over, to find out whether UDP works.
type attempt struct {
	cancel   context.CancelFunc
	socket   atomic.Pointer[socket]
	finished chan struct{}

	mu     sync.Mutex
	conn   *quic.Conn // until somebody takes it
	err    error
	wanted bool
}

// try starts a handshake. It ends within attemptTimeout, or with the dialer.
func (d *Dialer) try(address string, s speech) *attempt {
	ctx, cancel := context.WithTimeout(d.life, d.attemptTimeout)
	a := &attempt{cancel: cancel, finished: make(chan struct{}), wanted: true}
	if !d.gate.run(func() {
		defer cancel()
		a.finish(d.dialQUIC(ctx, address, s, a))
	}) {
		cancel()
		a.finish(nil, errDialerClosed)
	}
	return a
}

func (a *attempt) finish(conn *quic.Conn, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if conn != nil && !a.wanted {
		_ = conn.CloseWithError(codeGoingAway, "")
		conn, err = nil, context.Canceled
	}
	a.conn, a.err = conn, err
	close(a.finished)
}

// heard tells whether anything came back.
func (a *attempt) heard() bool {
	s := a.socket.Load()
	return s != nil && s.heard.Load()
}

// result is what came of it, once it is finished; the connection is the
// caller's.
func (a *attempt) result() (*quic.Conn, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	conn := a.conn
	a.conn = nil
	return conn, a.err
}

// abandon ends it, whatever came or comes of it.
func (a *attempt) abandon() {
	a.cancel()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted = false
	if a.conn != nil {
		_ = a.conn.CloseWithError(codeGoingAway, "")
		a.conn = nil
	}
}

func clientQUIC() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout: handshakeTimeout,
		MaxIdleTimeout:       idleTimeout,
		KeepAlivePeriod:      keepAlive,
		MaxIncomingStreams:   -1, // servers answer, and call nobody
	}
}

func (d *Dialer) dialQUIC(ctx context.Context, address string, s speech, a *attempt) (*quic.Conn, error) {
	to, err := resolve(ctx, address)
	if err != nil {
		return nil, err
	}
	socket, err := d.openSocket(ctx, to)
	if err != nil {
		return nil, err
	}
	a.socket.Store(socket)
	transport := &quic.Transport{Conn: socket}
	end := func() {
		_ = transport.Close()
		_ = socket.Close()
	}
	conn, err := transport.Dial(ctx, socket.RemoteAddr(), s.udp, clientQUIC())
	if err != nil {
		end()
		return nil, err
	}
	// The socket goes with its connection, whoever ends that.
	owned := d.gate.run(func() {
		defer end()
		select {
		case <-conn.Context().Done():
		case <-d.life.Done():
			_ = conn.CloseWithError(codeGoingAway, "")
		}
	})
	if !owned {
		_ = conn.CloseWithError(codeGoingAway, "")
		end()
		return nil, errDialerClosed
	}
	return conn, nil
}
