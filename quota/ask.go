package quota

import (
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// question is what a limit has asked, to make sense of the answer.
type question struct {
	limit *limit
	ask   *weirv1.LeaseAsk
	// block is what there was to take from, and held what of it was told.
	block *block
	held  int64
}

// question says what the limit holds and wants.
func (l *limit) question(now int64, sequence uint64) question {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since == 0 {
		l.since = sequence
	}
	q := question{limit: l, block: l.block.Load(), ask: &weirv1.LeaseAsk{
		Tenant: l.key.tenant, Subscription: l.key.subscription, Limit: l.key.limit, Since: l.since,
	}}
	left := int64(0)
	if b := q.block; b != nil {
		told := b
		if b.seconds == 0 {
			b.settle(b.left.Load())
			q.ask.Beyond = uint64(max(b.held, 0))
			told = b.before
		}
		if told != nil {
			if passed := told.left.Load(); passed < 0 {
				told.settle(passed)
			}
			q.ask.WindowStart, q.ask.WindowSeconds = told.start, told.seconds
			q.ask.Held, q.ask.Used = uint64(max(told.held, 0)), uint64(max(told.taken(), 0))
		}
		q.held = b.held
		if b.open(now) {
			left = max(b.left.Load(), 0)
		}
	}
	l.pace.measure(q.block, now)
	q.ask.Want = uint64(l.wanted(left, now))
	return q
}

// settle makes what was taken what is held: what has passed beyond is held from now
// on, what is left no more.
func (b *block) settle(left int64) {
	b.left.Add(-left)
	b.held -= left
}

// wanted is how many tokens more the limit can do with, and sets where it asks again.
func (l *limit) wanted(left, now int64) int64 {
	rtt := time.Duration(l.client.rtt.Load())
	target := int64(l.pace.rate*max(ahead, 4*rtt).Seconds()) + int64(l.waiters)
	if l.pace.rate == 0 {
		target += firstBlock
	}
	l.low.Store(min(target/2, int64(l.pace.rate*(2*rtt+leisure).Seconds())))
	if l.returns && l.waiters == 0 && now-l.pace.quiet >= int64(housekeeping) {
		return 0
	}
	return max(target-left, 1)
}

// firstBlock is what a limit wants of whose traffic nothing is known.
const firstBlock = 4

// hear takes an answer in, which was asked at a time; nil: there was none.
func (l *limit) hear(q question, g *weirv1.LeaseGrant, asked int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.client.now()
	switch {
	case g == nil:
	case g.GetUnknown():
		l.unknown = now + int64(time.Second)
		l.again.Store(l.unknown)
	default:
		l.unknown, l.returns = 0, false
		l.holders = uint64(g.GetHolders())
		l.remaining.Store(g.GetRemaining())
		b := l.fill(q, g)
		b.until(asked+int64(g.GetLasts().AsDuration()), asked+int64(g.GetEnds().AsDuration()))
		l.spent.Store(g.GetRemaining() == 0)
		l.again.Store(l.nextAsk(b, g, now))
		l.client.meters.overshot(g.GetOvershoot())
	}
	l.wants.Store(false)
	close(l.answered)
	l.answered = make(chan struct{})
}

// nextAsk is before when it makes no sense to ask.
func (l *limit) nextAsk(b *block, g *weirv1.LeaseGrant, now int64) int64 {
	switch {
	case g.GetExhausted():
		return b.expires.Load()
	case g.GetRemaining() == 0:
		return min(now+int64(again), b.expires.Load())
	}
	return 0
}

// fill puts what was granted where it belongs, and returns that block.
func (l *limit) fill(q question, g *weirv1.LeaseGrant) *block {
	now := l.block.Load()
	same := func(b *block) bool {
		return b != nil && b.seconds == g.GetWindowSeconds() && b.start == g.GetWindowStart()
	}
	held := int64(g.GetHeld())
	switch {
	case now != nil && now.seconds == 0 && now == q.block && same(now.before):
		// It was not over, after all: what was taken of both is of one window.
		before := now.before
		now.add(held - q.held - before.held)
		now.held += before.held
		now.left.Add(before.left.Load())
	case now != nil && now.seconds == 0 && now == q.block:
		now.add(held - q.held)
	case now != nil && now.seconds == 0 && same(q.block):
		// The new window began while this was under way, or is thought to have.
		q.block.add(held - q.held)
		return q.block
	case now != nil && now.seconds == 0:
		now.add(held)
	case same(now):
		now.add(held - q.held)
		return now
	default:
		now = &block{}
		now.add(held)
		now.start, now.seconds = g.GetWindowStart(), g.GetWindowSeconds()
		l.block.Store(now)
		return now
	}
	now.start, now.seconds, now.before = g.GetWindowStart(), g.GetWindowSeconds(), nil
	return now
}

// tidy gives back what nobody takes. It reports whether the servers should hear of it.
func (l *limit) tidy(now int64) (ask bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.block.Load()
	l.pace.measure(b, now)
	if l.wants.Load() || !b.open(now) || b.seconds == 0 {
		return false
	}
	keep := 4*int64(l.pace.rate) + 1
	if now-l.pace.quiet >= min(int64(unused), int64(b.seconds)*int64(time.Second)/8) {
		keep = 0
	}
	if left := b.left.Load(); left > 2*keep && (keep == 0 || left > smallBlock) {
		// Others take at the same time: only what is there still is given back.
		if b.left.CompareAndSwap(left, keep) {
			b.held -= left - keep
			l.returns = true
		}
	}
	return l.returns && now >= l.client.asleep.Load() && l.wants.CompareAndSwap(false, true)
}

// smallBlock is what is not worth giving back while there is any traffic.
const smallBlock = 16

// idle: the limit can be forgotten.
func (l *limit) idle(now int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.block.Load()
	return !l.wants.Load() && !l.returns && l.waiters == 0 && (!b.open(now) || b.left.Load() == 0)
}

// pace is how much of a limit is taken here.
type pace struct {
	rate     float64 // a second
	block    *block
	taken    int64
	measured int64
	quiet    int64 // since when nothing was
}

// measured moments are at least this far apart.
const moment = 20 * time.Millisecond

func (p *pace) measure(b *block, now int64) {
	if now-p.measured < int64(moment) && b == p.block {
		return
	}
	taken := int64(0)
	if b != nil {
		taken = b.taken()
	}
	n := taken
	if b == p.block {
		n -= p.taken
	}
	if n > 0 || p.quiet == 0 {
		p.quiet = now
	}
	if passed := now - p.measured; p.measured > 0 && passed > 0 {
		p.rate += (float64(max(n, 0))/(float64(passed)/1e9) - p.rate) / 2
		if p.rate < 0.01 {
			p.rate = 0
		}
	}
	p.block, p.taken, p.measured = b, taken, now
}
