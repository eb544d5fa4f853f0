package quota

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// limit is one limit of a subscription, as this proxy knows it. What the request path
// reads is atomic.
type limit struct {
	client *Client
	key    key
	// block is what there is to take from; nil: nothing yet.
	block atomic.Pointer[block]
	// fast: it is not exact.
	fast atomic.Bool
	// low is where a block asks for more.
	low atomic.Int64
	// wants: it is in the queue, or an answer is under way.
	wants atomic.Bool
	// spent: nothing remains in the block's window. again is before when it is not
	// asked about, by running time.
	spent atomic.Bool
	again atomic.Int64
	// remaining is what nobody held when the servers last answered.
	remaining atomic.Uint64

	mu       sync.Mutex
	terms    exchange.Limit
	waiters  int
	answered chan struct{} // closed, and made anew, with each answer
	unknown  int64         // until when the servers know no such limit
	holders  uint64        // proxies that hold some, with this one
	since    uint64        // the sequence of the first ask; 0: there was none
	returns  bool          // what was given back is not known to have been heard
	pace     pace
}

// block is what this proxy holds of one window.
type block struct {
	// left is what may yet be taken. It is negative by what has passed beyond it.
	left atomic.Int64
	// expires is until when it may be taken, and ends when the window ends, by running
	// time.
	expires, ends atomic.Int64

	// The limit's lock guards what follows. held is what the servers know, or will, that
	// this proxy holds: what was taken and what is left.
	held int64
	// start and seconds are the window; seconds 0: the servers have yet to say which.
	// It came after that of before, as far as this proxy can tell.
	start, seconds uint64
	before         *block
}

func (b *block) taken() int64 { return b.held - b.left.Load() }

// open: tokens may be taken.
func (b *block) open(now int64) bool { return b != nil && now < b.expires.Load() }

// add changes what is held.
func (b *block) add(tokens int64) {
	b.held += tokens
	b.left.Add(tokens)
}

// until sets how long the block lasts; never less than it did.
func (b *block) until(expires, ends int64) {
	b.expires.Store(max(b.expires.Load(), expires))
	b.ends.Store(max(b.ends.Load(), ends))
}

// declare takes over what is declared.
func (l *limit) declare(terms exchange.Limit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.terms != terms {
		// There may be more now. The servers answer by what is declared there.
		l.spent.Store(false)
		l.again.Store(0)
	}
	l.terms = terms
	l.fast.Store(!terms.Exact)
}

// take takes a token, without a lock, if there is one, and returns the block that it
// is from.
func (l *limit) take(now int64) *block {
	b := l.block.Load()
	if !b.open(now) {
		return nil
	}
	for {
		left := b.left.Load()
		if left <= 0 {
			if l.takeBeyond(b, now) {
				return b
			}
			return nil
		}
		if b.left.CompareAndSwap(left, left-1) {
			if left-1 <= l.low.Load() {
				l.wantMore(now)
			}
			return b
		}
	}
}

// takeBeyond lets one pass and counts it although there is no token, of a limit that
// is not exact.
func (l *limit) takeBeyond(b *block, now int64) bool {
	if !l.fast.Load() || l.spent.Load() || l.client.silent() {
		return false
	}
	b.left.Add(-1)
	l.wantNow(now)
	return true
}

// wantMore has the limit ask, unless it does or that makes no sense yet.
func (l *limit) wantMore(now int64) {
	if l.wants.Load() || now < l.again.Load() || now < l.client.asleep.Load() {
		return
	}
	if l.wants.CompareAndSwap(false, true) {
		l.client.enqueue(l)
	}
}

// wantNow is wantMore, for one that has no token.
func (l *limit) wantNow(now int64) {
	if !l.client.urgent.Load() {
		l.client.urgent.Store(true)
	}
	l.wantMore(now)
}

// refusal says why there is no token. Where that is yet to be seen the outcome is
// Admitted: the caller tries again, at once, or if answered is not nil when that is
// closed; then leave is due.
func (l *limit) refusal() (d Decision, answered <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.client.now()
	b := l.block.Load()
	switch {
	case b.open(now) && b.left.Load() > 0:
		return d, nil
	case b.open(now) && l.spent.Load():
		l.wantMore(now)
		return l.exceeded(b, now), nil
	case l.fast.Load():
		return l.beyond(b, now), nil
	case now < l.unknown:
		return l.unavailable(), nil
	}
	l.wantNow(now)
	if l.client.silent() || l.waiters >= maxWaiters || l.client.waiting.Load() >= maxAllWaiters {
		return l.unavailable(), nil
	}
	l.waiters++
	l.client.waiting.Add(1)
	return d, l.answered
}

func (l *limit) exceeded(b *block, now int64) Decision {
	return Decision{Outcome: Exceeded, Limit: l.key.limit, After: time.Duration(max(b.ends.Load()-now, 0))}
}

func (l *limit) unavailable() Decision {
	return Decision{Outcome: Unavailable, Limit: l.key.limit, After: time.Second}
}

// leave ends a wait.
func (l *limit) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiters--
	l.client.waiting.Add(-1)
}

// beyond decides for a limit that is not exact and has no token. A window of which the
// servers have said nothing yet has a block of nothing, on which is counted what passes.
func (l *limit) beyond(b *block, now int64) Decision {
	if !b.open(now) {
		b = l.presume(b, now)
	}
	l.wantNow(now)
	if !l.client.silent() {
		return Decision{} // takeBeyond counts it
	}
	// Nobody answers: this proxy's share takes the place of what it would be told.
	share := int64(l.terms.Requests / max(l.holders, 1))
	if b.taken() >= share {
		return l.exceeded(b, now)
	}
	b.add(max(share-b.held, 0))
	return Decision{}
}

// presume goes on where a block may not be used any more: in the same window while it
// lasts, else in a new one.
func (l *limit) presume(last *block, now int64) *block {
	if last != nil && now < last.ends.Load() {
		last.expires.Store(last.ends.Load())
		return last
	}
	l.spent.Store(false)
	next := &block{before: last}
	if last != nil && last.seconds == 0 {
		next.before = last.before // of those in between nobody ever heard, nor will
	}
	end := l.presumedEnd(last, now)
	next.until(end, end)
	l.block.Store(next)
	return next
}

// presumedEnd is when a window ends of which the servers have said nothing: whole
// lengths after the last one, else by this machine's clock.
func (l *limit) presumedEnd(last *block, now int64) int64 {
	length := int64(max(l.terms.Window, time.Second))
	if last == nil {
		return now + length - time.Now().UnixNano()%length
	}
	end := last.ends.Load()
	return end + (now-end)/length*length + length
}
