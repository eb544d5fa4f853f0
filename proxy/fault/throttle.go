package fault

import (
	"context"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// step is how often a slowed body moves: often enough to be a slow stream rather
// than a series of stops.
const step = 20 * time.Millisecond

// Throttle is a body that comes no faster than a bandwidth.
type Throttle struct {
	inner exchange.Body
	ctx   context.Context
	rate  int // bytes a second
	rest  []byte
	next  time.Time // when more may come
	timer *time.Timer
}

// NewThrottle slows a body down until ctx ends, after which it fails.
func NewThrottle(ctx context.Context, inner exchange.Body, bytesPerSecond int) *Throttle {
	return &Throttle{inner: inner, ctx: ctx, rate: bytesPerSecond}
}

// Length implements exchange.Body.
func (t *Throttle) Length() int64 {
	n := t.inner.Length()
	if n < 0 {
		return n
	}
	return n + int64(len(t.rest))
}

// Next implements exchange.Body.
func (t *Throttle) Next() ([]byte, error) {
	if len(t.rest) == 0 {
		chunk, err := t.inner.Next()
		if err != nil {
			return nil, err
		}
		t.rest = chunk
	}
	if err := t.wait(); err != nil {
		return nil, err
	}
	n := min(len(t.rest), max(1, int(int64(t.rate)*int64(step)/int64(time.Second))))
	part := t.rest[:n]
	t.rest = t.rest[n:]
	t.next = t.next.Add(time.Duration(n) * time.Second / time.Duration(t.rate))
	return part, nil
}

// wait until more may come. Time in which nothing came is not made up for.
func (t *Throttle) wait() error {
	now := time.Now()
	if t.next.Before(now) {
		t.next = now
		return t.ctx.Err()
	}
	if t.timer == nil {
		t.timer = time.NewTimer(t.next.Sub(now))
	} else {
		t.timer.Reset(t.next.Sub(now))
	}
	select {
	case <-t.timer.C:
		return nil
	case <-t.ctx.Done():
		t.timer.Stop()
		return t.ctx.Err()
	}
}
