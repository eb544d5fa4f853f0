package wasm

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// When a circuit opens: this many traps within the window, if at least this
// share of the exchanges that were served or trapped in the window did the latter. It is for a policy that can do
// nothing else: one that some requests make trap must go on to serve the others,
// or whoever finds such a request could shut the route for everyone. Each trap
// costs a VM, which takes milliseconds to replace, and these are everybody's. One that
// has emptied its tank has taken as many before, and counts as two.
const (
	circuitTraps      = 5
	circuitWindow     = 10 // seconds
	circuitPercentage = 90
)

// aloneFor is how long an exchange waits at most for those before it, while a policy is
// in doubt.
const aloneFor = 2 * time.Second

// mostPause is how long a circuit that has opened again and again stays open, in
// the pauses that it begins with.
const mostPause = 12

// circuit opens when a policy does little but trap. While it is open the policy's
// filters fail at once, and cost nothing. After a pause one exchange is let through:
// if it traps, the next pause is twice as long; if it ends well, the circuit is
// closed.
//
// From a trap until a callback goes well the policy is in doubt, and its exchanges are
// shown to it one after the other: what comes at once would else trap at once, on all
// processors, before the first of them has been counted.
type circuit struct {
	pause time.Duration // the first
	until atomic.Int64  // Unix nanoseconds; 0: closed
	doubt atomic.Bool
	turn  chan struct{} // holds a token while one has its turn in doubt
	// patience is how long the others wait for theirs.
	patience time.Duration

	latest atomic.Int64 // of the traps, Unix nanoseconds

	mu     sync.Mutex
	since  time.Time     // of the window
	before uint64        // exchanges served before the window
	inside int           // traps in the window
	drawn  int           // those of them that emptied the tank
	now    time.Duration // the pause that was last made; 0: it is the first one's turn

	traps, empty uint64
	last         error
}

// suspect: exchanges trapped just now.
func (c *circuit) suspect() bool {
	return time.Now().UnixNano()-c.latest.Load() < int64(time.Second)
}

var errCircuitOpen = errors.New("it has failed too often and is not asked for a while")

// check says whether an exchange may begin, and whether it is the one that shows
// how the policy fares now: then probed is to be told how it went. If that takes
// long, another one is let through after another pause.
func (c *circuit) check() (probe bool, err error) {
	until := c.until.Load()
	if until == 0 {
		return false, nil
	}
	now := time.Now()
	if now.UnixNano() >= until && c.until.CompareAndSwap(until, now.Add(c.pause).UnixNano()) {
		return true, nil
	}
	return false, errCircuitOpen
}

// queue waits for an exchange's turn, where the policy is in doubt, and reports
// whether it has one, which pass gives up. Nobody waits for long: a guest may hold a
// callback up.
func (c *circuit) queue(x *exchange.Exchange) bool {
	late := time.NewTimer(c.patience)
	defer late.Stop()
	select {
	case c.turn <- struct{}{}:
		return true
	case <-late.C:
	case <-x.Done:
	}
	return false
}

func (c *circuit) pass() { <-c.turn }

// reassure ends a doubt.
func (c *circuit) reassure() {
	if c.doubt.Load() {
		c.doubt.Store(false)
	}
}

// probed returns the pause that follows; 0: the circuit is closed.
func (c *circuit) probed(failed bool) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !failed {
		c.now, c.since = 0, time.Time{}
		c.until.Store(0)
		return 0
	}
	c.now = min(2*max(c.now, c.pause), mostPause*c.pause)
	c.until.Store(time.Now().Add(c.now).UnixNano())
	return c.now
}

// trapped counts a failure and reports whether it has opened the circuit. served is
// how many exchanges were, of all.
func (c *circuit) trapped(err error, served uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.traps++
	var trap *Trap
	empty := errors.As(err, &trap) && trap.OutOfFuel
	if empty {
		c.empty++
	}
	c.last = err
	c.doubt.Store(true)
	c.latest.Store(time.Now().UnixNano())
	if c.until.Load() != 0 {
		return false // it is a probe's, or of an exchange that was under way
	}
	now := time.Now()
	if now.Sub(c.since) > circuitWindow*time.Second {
		c.since, c.before, c.inside, c.drawn = now, served, 0, 0
	}
	c.inside++
	if empty {
		c.drawn++
	}
	// Who was overtaken on the way here has read fewer than there were before the
	// window.
	others := max(served, c.before) - c.before
	if c.inside+c.drawn < circuitTraps || uint64(c.inside)*100 < (uint64(c.inside)+others)*circuitPercentage {
		return false
	}
	c.since, c.now = time.Time{}, c.pause
	c.until.Store(now.Add(c.pause).UnixNano())
	return true
}

func (c *circuit) describe(s *Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Traps, s.OutOfFuel = c.traps, c.empty
	if c.last != nil {
		s.LastError = c.last.Error()
	}
	if until := c.until.Load(); until != 0 {
		s.OpenUntil = time.Unix(0, until)
	}
}
