package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

const (
	chunkSize = 16 << 10
	maxChunks = 64 // that wait in one line
)

// A TCPRelay stands between clients and one far end. It can be slow, cut
// (connections are reset) or stalled (connections stay, nothing moves).
type TCPRelay struct {
	t        testing.TB
	seed     uint64
	listener net.Listener
	dial     Dial
	running  sync.WaitGroup

	mu            sync.Mutex
	delay, jitter time.Duration
	cut           bool
	flows         chan struct{} // closed while bytes may move
	conns         map[net.Conn]bool
}

// TCP relays what connects to the listener, which it closes when the test ends.
func TCP(t testing.TB, seed uint64, listener net.Listener, dial Dial) *TCPRelay {
	r := &TCPRelay{t: t, seed: seed, listener: listener, dial: dial, flows: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(r.flows)
	ctx, cancel := context.WithCancel(context.Background())
	r.running.Go(func() { r.serve(ctx) })
	t.Cleanup(func() {
		cancel()
		listener.Close()
		r.Cut()
		r.running.Wait()
	})
	return r
}

// Addr is where clients connect to.
func (r *TCPRelay) Addr() net.Addr { return r.listener.Addr() }

// SetDelay delays what is read from now on, by so much and up to so much more.
func (r *TCPRelay) SetDelay(delay, jitter time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay, r.jitter = delay, jitter
}

// Cut resets all connections, and every new one as soon as it is made.
func (r *TCPRelay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	for conn := range r.conns {
		reset(conn)
	}
}

// Stall stops all bytes where they are.
func (r *TCPRelay) Stall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if isOpen(r.flows) {
		r.flows = make(chan struct{})
	}
}

// Restore ends Cut and Stall. What was stalled moves on.
func (r *TCPRelay) Restore() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
	if !isOpen(r.flows) {
		close(r.flows)
	}
}

func (r *TCPRelay) serve(ctx context.Context) {
	for number := 0; ; number++ {
		conn, err := r.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil {
			r.t.Errorf("relay: accept: %v", err)
			return
		}
		if r.admit(conn) {
			r.running.Go(func() { r.carry(ctx, number, conn) })
		}
	}
}

// admit takes a connection into the set that Cut resets.
func (r *TCPRelay) admit(conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		reset(conn)
		return false
	}
	r.conns[conn] = true
	return true
}

func (r *TCPRelay) forget(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, conn)
	conn.Close()
}

// carry connects one client with the far end until both have ended.
func (r *TCPRelay) carry(ctx context.Context, number int, near net.Conn) {
	defer r.forget(near)
	far, err := r.dial(ctx)
	if err != nil {
		reset(near) // as the far end would have refused it
		return
	}
	if !r.admit(far) {
		return
	}
	defer r.forget(far)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { r.pipe(ctx, cancel, newShaper(r.seed, number, there), near, far) })
	both.Go(func() { r.pipe(ctx, cancel, newShaper(r.seed, number, back), far, near) })
	both.Wait()
}

// A chunk is what was read at once, and when it is to be written.
type chunk struct {
	due  time.Time
	data []byte
}

// pipe carries one direction to its end, which it passes on. If that fails,
// both directions are reset.
func (r *TCPRelay) pipe(ctx context.Context, fail func(), s *shaper, from, to net.Conn) {
	line := make(chan chunk, maxChunks)
	var reader sync.WaitGroup
	reader.Go(func() {
		if r.read(ctx, s, from, line) != nil {
			fail()
		}
	})
	if write(ctx, r, line, to) != nil {
		fail()
	}
	if ctx.Err() != nil {
		reset(from)
		reset(to)
	}
	reader.Wait()
}

// read fills the line and closes it when the sender has ended.
func (r *TCPRelay) read(ctx context.Context, s *shaper, from net.Conn, line chan<- chunk) error {
	for {
		buf := make([]byte, chunkSize)
		n, err := from.Read(buf)
		if n > 0 {
			r.mu.Lock()
			delay, jitter := r.delay, r.jitter
			r.mu.Unlock()
			due := s.inOrder(time.Now().Add(delay + time.Duration(s.random.Float64()*float64(jitter))))
			select {
			case line <- chunk{due, buf[:n]}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if errors.Is(err, io.EOF) {
			close(line)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// write empties the line, and passes its end on.
func write(ctx context.Context, r *TCPRelay, line <-chan chunk, to net.Conn) error {
	for {
		var c chunk
		var more bool
		select {
		case c, more = <-line:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := r.hold(ctx, c.due); err != nil {
			return err
		}
		if !more {
			return to.(interface{ CloseWrite() error }).CloseWrite()
		}
		if _, err := to.Write(c.data); err != nil {
			return err
		}
	}
}

// hold waits until a chunk is due and bytes may move.
func (r *TCPRelay) hold(ctx context.Context, due time.Time) error {
	if wait := time.Until(due); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.mu.Lock()
	flows := r.flows
	r.mu.Unlock()
	select {
	case <-flows:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reset ends a connection as a cut does: its other end gets an error, not an end.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

func isOpen(gate chan struct{}) bool {
	select {
	case <-gate:
		return true
	default:
		return false
	}
}
