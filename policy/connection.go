package policy

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// ConnectionPolicy is a policy that also knows connections which carry no HTTP. One
// that is not, or whose plugin has no code for them, cannot be used on them.
type ConnectionPolicy interface {
	Policy
	// Connects says whether its plugin has code for connections.
	Connects() bool
	NewConnectionFilter() ConnectionFilter
}

// Direction is one of the two ways of a connection's bytes.
type Direction uint8

// The directions.
const (
	// Downstream bytes are the client's.
	Downstream Direction = iota
	// Upstream bytes are the service's.
	Upstream
)

func (d Direction) other() Direction { return 1 - d }

func (d Direction) phase() string {
	if d == Downstream {
		return "client's bytes"
	}
	return "service's bytes"
}

// ConnectionFilter sees one connection, of which the exchange says what is known. Its
// methods are called one at a time, and none of them waits: what it holds back, it
// keeps.
//
//	Begin ─▶ OnConnect ─▶ OnBytes… each way ─▶ OnDisconnect… ─▶ Close
//
// Hold means: nothing is passed on, from OnConnect not even to the service that there
// is a client. It ends with the next OnBytes that does not return it, or when Resume
// says so, which is asked after a call of wake. Respond means that the connection is to
// be closed.
type ConnectionFilter interface {
	// Begin takes up a connection. After an error nothing more is called.
	Begin(x *exchange.Exchange) error
	// OnConnect sees that there is a client. wake is kept: it is called, by anybody, when
	// what the filter holds of a direction may have been let go. It does not block.
	OnConnect(x *exchange.Exchange, wake func(Direction)) (Verdict, error)
	// OnBytes sees a piece and returns what is passed on, which is valid until it is
	// called again for the same direction; end: nothing follows. With an error comes
	// what would be passed on if the filter were not there.
	OnBytes(x *exchange.Exchange, d Direction, piece []byte, end bool) ([]byte, Verdict, error)
	// Resume returns what was held back, if it is held no longer.
	Resume(x *exchange.Exchange, d Direction) ([]byte, Verdict, error)
	// Release gives up what was held back, of a filter that has failed.
	Release(d Direction) []byte
	// OnDisconnect sees that the connection to one of the two is over; remote: because
	// that one has ended it.
	OnDisconnect(x *exchange.Exchange, d Direction, remote bool) error
	Close(x *exchange.Exchange)
}

// ErrClosed ends a connection that a filter has closed.
var ErrClosed = errors.New("a policy has closed the connection")

// maxHeldOpen is how long a filter may hold a new connection back.
const maxHeldOpen = time.Minute

// Connects says whether all policies of the chain know connections that carry no HTTP.
func (c *Chain) Connects() bool {
	for _, p := range c.policies {
		if cp, ok := p.(ConnectionPolicy); !ok || !cp.Connects() {
			return false
		}
	}
	return true
}

// Connection is a chain at work on one connection that carries no HTTP: the filters
// see the client's bytes from first to last, and the service's from last to first.
//
//	c := chain.Connect(x)
//	defer c.Close()
//	err := c.Open(ctx)           // may wait; then the service is connected to
//	out, ended, err := c.Pass(…) // each way, by a goroutine each
//	c.Disconnected(…)
//
// Both ways take turns in the filters, and only there: who waits for a peer keeps nobody.
// A filter may hold as many bytes, each way, as of a body.
type Connection struct {
	chain *Chain
	x     *exchange.Exchange
	woken chan struct{} // for Open
	wake  atomic.Pointer[[2]func()]

	mu    sync.Mutex // of the filters
	steps []connectionStep
	over  error // what it has ended with, both ways
}

// connectionStep is one policy's part in a connection.
type connectionStep struct {
	filter ConnectionFilter
	begun  bool
	silent bool // it has failed, and is asked no more
	flows  [2]struct {
		holding, ended bool
		held           int
	}
}

// Connect begins a connection. The chain Connects.
func (c *Chain) Connect(x *exchange.Exchange) *Connection {
	n := &Connection{chain: c, x: x, woken: make(chan struct{}, 1), steps: make([]connectionStep, len(c.policies))}
	for i, p := range c.policies {
		n.steps[i].filter = p.(ConnectionPolicy).NewConnectionFilter()
	}
	return n
}

// Attach says how to have a direction's Pass called again though nothing has come.
func (c *Connection) Attach(client, service func()) {
	c.wake.Store(&[2]func(){client, service})
}

// rouse is called with a filter's own locks held, by anyone.
func (c *Connection) rouse(d Direction) {
	select {
	case c.woken <- struct{}{}:
	default:
	}
	if wake := c.wake.Load(); wake != nil {
		wake[d]()
	}
}

// Open shows the connection to the filters, each of which may take its time.
func (c *Connection) Open(ctx context.Context) error {
	for i := range c.steps {
		if err := c.open(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (c *Connection) open(ctx context.Context, i int) error {
	s := &c.steps[i]
	err := s.filter.Begin(c.x)
	if err != nil {
		return c.fail(i, "connection", err)
	}
	s.begun = true
	c.mu.Lock()
	verdict, err := s.filter.OnConnect(c.x, c.rouse)
	c.mu.Unlock()
	if err == nil && verdict == Hold {
		verdict, err = c.wait(ctx, s)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		return c.fail(i, "connection", err)
	case verdict == Respond:
		return ErrClosed
	}
	return nil
}

func (c *Connection) wait(ctx context.Context, s *connectionStep) (verdict Verdict, err error) {
	timer := time.NewTimer(maxHeldOpen)
	defer timer.Stop()
	for {
		select {
		case <-c.woken:
		case <-timer.C:
			return Hold, ErrWaited
		case <-ctx.Done():
			return Hold, context.Cause(ctx)
		}
		c.mu.Lock()
		_, verdict, err = s.filter.Resume(c.x, Downstream)
		c.mu.Unlock()
		if err != nil || verdict != Hold {
			return verdict, err
		}
	}
}

// Pass shows a piece of a direction's bytes to the filters and returns what is to be
// passed on. end: nothing follows the piece. ended: nor does anything follow what is
// returned; else what is held is still to come, and Pass to be called again when it
// is woken. What it returns is valid until it is called again for the direction.
func (c *Connection) Pass(d Direction, piece []byte, end bool) (out []byte, ended bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range c.steps {
		i := n
		if d == Upstream {
			i = len(c.steps) - 1 - n
		}
		if c.over == nil {
			piece, end, c.over = c.step(i, d, piece, end)
		}
	}
	if c.over != nil {
		return nil, false, c.over
	}
	return piece, end, nil
}

// step is one filter's part of Pass.
func (c *Connection) step(i int, d Direction, piece []byte, end bool) ([]byte, bool, error) {
	s := &c.steps[i]
	f := &s.flows[d]
	news := len(piece) > 0 || end && !f.ended
	f.ended = f.ended || end
	verdict, err := Continue, error(nil)
	given := len(piece)
	switch {
	case !s.begun:
	case s.silent && f.holding:
		piece = append(s.filter.Release(d), piece...)
	case s.silent:
	case news:
		piece, verdict, err = s.filter.OnBytes(c.x, d, piece, end)
	case f.holding:
		piece, verdict, err = s.filter.Resume(c.x, d)
	}
	if err != nil {
		if err = c.fail(i, d.phase(), err); err != nil {
			return nil, false, err
		}
		c.rouse(d.other()) // what it holds there is to be released
		verdict = Continue
	}
	f.holding = verdict == Hold
	switch verdict {
	case Respond:
		return nil, false, ErrClosed
	case Hold:
		if f.held += given; f.held > c.chain.config.HoldLimit {
			return nil, false, c.chain.failure(c.x, i, d.phase(), 500, errTooLarge)
		}
		return nil, false, nil
	}
	f.held = 0
	return piece, f.ended, nil
}

// fail applies the failure mode: nil when the connection goes on without the filter.
func (c *Connection) fail(i int, phase string, cause error) error {
	c.steps[i].silent = true
	return c.chain.forgive(c.chain.failure(c.x, i, phase, 500, cause), i)
}

// Disconnected tells the filters that the connection to one of the two is over; remote:
// that one has ended it.
func (c *Connection) Disconnected(d Direction, remote bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.steps {
		if s := &c.steps[i]; s.begun && !s.silent {
			if err := s.filter.OnDisconnect(c.x, d, remote); err != nil {
				_ = c.fail(i, "end", err) // it is over, whatever the mode
			}
		}
	}
}

// Close ends the connection for every filter. No Pass is under way.
func (c *Connection) Close() {
	for i := range c.steps {
		if s := &c.steps[i]; s.begun {
			s.filter.Close(c.x)
		}
	}
}
