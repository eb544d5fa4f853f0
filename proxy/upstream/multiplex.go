package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// Conn is a connection that carries many exchanges at once. A codec in a package
// of its own makes it; the pool decides when there is one, and who uses it.
type Conn interface {
	// Run reads the connection to its end, on a goroutine of the pool's. What it
	// has started has ended when it returns.
	Run()
	// Room is how many exchanges it may carry at once; 0 for good when it takes no
	// more of them. It takes no lock.
	Room() int
	// Lane returns what carries one exchange more. The pool has seen that there is
	// room.
	Lane() Lane
	// Close: no more exchanges come. Run returns when the last one has ended. It
	// does not wait, and may be called more than once.
	Close()
}

// Lane carries one exchange over a connection that it shares. One goroutine uses
// it; only Abort may be called by others, and before Open, too.
type Lane interface {
	// Open sends x's request and reads the head of the final answer into
	// x.Response. Its errors are *Error.
	Open(ctx context.Context, x *exchange.Exchange, opts *Options) error
	// ReadBy changes the deadline of what is left of the response; zero: none.
	ReadBy(time.Time)
	// Failed is why the response's body ended early; nil: it did not.
	Failed() error
	// Abort ends, from another goroutine, whatever the lane waits for or is going
	// to wait for.
	Abort()
	// Close ends the exchange, whether Open was called or has failed, and what it
	// has left undone; it waits for the pump. The lane is not used any more.
	Close(x *exchange.Exchange)
}

// Target is where a connection leads to.
type Target struct {
	Address  string      // host:port
	Security *tls.Config // with the protocol offered by ALPN; nil: in the clear
	// Changed is to be called whenever what Conn.Room returns has changed, without a
	// lock that Room or Lane take.
	Changed func()
}

// Dial makes a connection that is ready to carry exchanges: an error means that
// nothing was sent. The context ends with the time that a connection may take.
type Dial func(ctx context.Context, to Target) (Conn, error)

// assumedRoom is how many exchanges a connection that is being made is taken to
// have room for.
const assumedRoom = 100

// multiplex is what a pool of shared connections has; all of it is under
// Pool.mu.
//
// Invariants: nobody waits while a connection has room; whoever waits does so
// for one that is being made, or because no more may be; those who came first
// are served first.
type multiplex struct {
	dial     Dial // nil: connections are not shared
	members  []*member
	dialling int
	waiting  []chan turn
	ended    bool // the registry is being closed: no more are made
}

// member is one connection of a pool.
type member struct {
	Conn
	inUse     int
	idleSince time.Time
}

// turn is what one who has waited is given: room on a connection, or an error.
type turn struct {
	member *member
	err    error
}

func (m *member) free() bool { return m.inUse < m.Room() }

// share takes room on a connection, or waits for it until the given time.
func (p *Pool) share(ctx context.Context, q *Queue, until time.Time) (*member, error) {
	p.mu.Lock()
	for _, m := range p.shared.members {
		if m.free() {
			m.inUse++
			p.mu.Unlock()
			p.reuses.Add(1)
			return m, nil
		}
	}
	if !q.enter() {
		p.mu.Unlock()
		return nil, ErrFull
	}
	defer q.leave()
	mine := make(chan turn, 1)
	p.shared.waiting = append(p.shared.waiting, mine)
	p.dialMore()
	p.mu.Unlock()
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	select {
	case t := <-mine:
		return t.member, t.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	i := slices.Index(p.shared.waiting, mine)
	if i >= 0 {
		p.shared.waiting = slices.Delete(p.shared.waiting, i, i+1)
	}
	p.mu.Unlock()
	if i < 0 { // its turn came meanwhile: pass it on
		if t := <-mine; t.member != nil {
			p.unshare(t.member)
		}
	}
	return nil, fmt.Errorf("wait for a connection: %w", ctx.Err())
}

// unshare gives the room of one exchange back.
func (p *Pool) unshare(m *member) {
	p.mu.Lock()
	m.inUse--
	m.idleSince = time.Now()
	p.settle()
	over := p.closed && m.inUse == 0
	p.mu.Unlock()
	if over {
		m.Close()
	}
}

// changed: a connection has more room, or none any more.
func (p *Pool) changed() {
	p.mu.Lock()
	p.settle()
	p.mu.Unlock()
}

// settle gives the room that there is to those who wait. The caller holds p.mu.
func (p *Pool) settle() {
	w := &p.shared
	for _, m := range w.members {
		for len(w.waiting) > 0 && m.free() {
			m.inUse++
			w.waiting[0] <- turn{member: m}
			w.waiting = slices.Delete(w.waiting, 0, 1)
		}
	}
	p.dialMore()
}

// dialMore makes as many connections as those who wait need and there may be.
// The caller holds p.mu.
func (p *Pool) dialMore() {
	w := &p.shared
	for len(w.waiting) > w.dialling*assumedRoom {
		most := p.key.MaxConnections
		switch {
		case w.ended:
			p.failWaiting(context.Canceled)
			return
		case most > 0 && len(w.members)+w.dialling >= most:
			return
		}
		w.dialling++
		p.registry.done.Go(p.runShared)
	}
}

func (p *Pool) failWaiting(err error) {
	for _, mine := range p.shared.waiting {
		mine <- turn{err: err}
	}
	p.shared.waiting = nil
}

// runShared makes a connection and stays with it until it is over.
func (p *Pool) runShared() {
	p.dials.Add(1)
	ctx, cancel := context.WithTimeout(p.registry.ctx, p.key.ConnectTimeout)
	c, err := p.dialShared(ctx)
	cancel()
	p.mu.Lock()
	p.shared.dialling--
	if err != nil {
		p.failures.Add(1)
		p.failWaiting(err) // they may be better off elsewhere
		p.mu.Unlock()
		return
	}
	if p.refuses(c) {
		p.failures.Add(1)
		p.failWaiting(errShutOut)
		p.mu.Unlock()
		c.(Peered).Abort()
		c.Run()
		return
	}
	m := &member{Conn: c, idleSince: time.Now()}
	p.shared.members = append(p.shared.members, m)
	p.settle()
	over := p.shared.ended || p.closed && m.inUse == 0
	p.mu.Unlock()
	if over {
		m.Close()
	}
	m.Run()
	p.mu.Lock()
	p.shared.members = slices.DeleteFunc(p.shared.members, func(o *member) bool { return o == m })
	p.settle()
	p.mu.Unlock()
}

func (p *Pool) dialShared(ctx context.Context) (Conn, error) {
	if p.unusable != nil {
		return nil, p.unusable
	}
	c, err := p.shared.dial(ctx, Target{Address: p.key.Address, Security: p.security, Changed: p.changed})
	if err == nil && c.Room() == 0 { // more such connections would be no better
		c.Close()
		c.Run()
		return nil, errors.New("it lets no requests in")
	}
	return c, err
}

// closeShared ends connections that carry nothing, or none that wait for more:
// those for which the condition holds.
func (p *Pool) closeShared(which func(*member) bool) {
	p.mu.Lock()
	var over []*member
	for _, m := range p.shared.members {
		if which(m) {
			over = append(over, m)
		}
	}
	p.mu.Unlock()
	for _, m := range over {
		m.Close()
	}
}

// end: the registry is closed.
func (p *Pool) end() {
	p.mu.Lock()
	p.shared.ended = true
	p.failWaiting(context.Canceled)
	p.mu.Unlock()
	p.closeShared(func(*member) bool { return true })
}

// openLane is Open where connections are shared.
func (s *Stream) openLane(ctx context.Context, x *exchange.Exchange) error {
	p := s.pool
	m, err := p.share(ctx, s.opts.Queue, s.connectBy())
	if err != nil {
		return &Error{Timeout: timedOut(err), Err: fmt.Errorf("connect to %s: %w", p.key.Address, err)}
	}
	s.member = m
	if c, ok := m.Conn.(interface{ Spoken() Protocol }); ok {
		s.spoken = c.Spoken()
	}
	lane := m.Lane()
	s.mu.Lock()
	s.lane = lane
	s.mu.Unlock()
	if err := ctx.Err(); err != nil { // an Abort may have come before there was a lane
		return &Error{Err: fmt.Errorf("connect to %s: %w", p.key.Address, err)}
	}
	if err := lane.Open(ctx, x, &s.opts); err != nil {
		if ctx.Err() == nil { // else it was given up
			p.failures.Add(1)
		}
		return err
	}
	return nil
}

// Spoken is the protocol by which the last Open has asked, or would have.
func (s *Stream) Spoken() Protocol {
	if s.spoken == Mesh { // there was no connection
		return HTTP3
	}
	return s.spoken
}

// connectBy bounds the wait for a connection to the time that one may take to
// be made; with a maximum of them, to that for an answer.
func (s *Stream) connectBy() time.Time {
	until := s.until(time.Now())
	if s.pool.key.MaxConnections > 0 {
		return until
	}
	if by := time.Now().Add(s.pool.key.ConnectTimeout + time.Second); by.Before(until) { // it ends by itself before that
		return by
	}
	return until
}

// closeLane is Close where connections are shared.
func (s *Stream) closeLane(x *exchange.Exchange) {
	if lane := s.lane; lane != nil {
		s.mu.Lock()
		s.lane = nil
		s.mu.Unlock()
		lane.Close(x)
	}
	if m := s.member; m != nil {
		s.member = nil
		s.pool.unshare(m)
	}
}
