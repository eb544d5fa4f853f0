package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// ErrFull: all connections that an endpoint may have are in use, and as many
// requests wait for one as may.
var ErrFull = errors.New("too many requests wait for a connection")

// Queue bounds how many requests wait for a connection of the pools that share
// it. Pools without a maximum do not use it.
type Queue struct {
	Max     int64
	Waiting *atomic.Int64
}

// enter counts one who waits, if one more may.
func (q *Queue) enter() bool {
	if q == nil {
		return true
	}
	if q.Waiting.Add(1) > q.Max {
		q.Waiting.Add(-1)
		return false
	}
	return true
}

func (q *Queue) leave() {
	if q != nil {
		q.Waiting.Add(-1)
	}
}

// gate is what a pool with a maximum of connections has beside; all of it is
// under Pool.mu. A place is a connection, or the right to make one.
//
// Invariants: no more places are given than there may be; nobody waits while a
// connection is idle or a place is free; those who came first are served first.
type gate struct {
	places  int // given
	waiting []chan *link
}

// enter returns an idle connection, or nil and the right to make one. Where
// neither is to be had it waits for it until the given time. look: as in take.
func (p *Pool) enter(ctx context.Context, look bool, q *Queue, until time.Time) (*link, error) {
	for p.key.MaxConnections > 0 {
		l, err := p.enterOnce(ctx, q, until)
		if l == nil || !look || l.Alive() {
			return l, err
		}
		discard(l)
	}
	return nil, nil
}

func (p *Pool) enterOnce(ctx context.Context, q *Queue, until time.Time) (*link, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 && !p.personal() { // it came back since it was looked for
		l := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		p.reuses.Add(1)
		return l, nil
	}
	if p.gate.places < p.key.MaxConnections {
		p.gate.places++
		p.mu.Unlock()
		return nil, nil
	}
	if p.takePlaceOfIdle() {
		p.mu.Unlock()
		return nil, nil
	}
	if !q.enter() {
		p.mu.Unlock()
		return nil, &Error{Err: fmt.Errorf("connect to %s: %w", p.key.Address, ErrFull)}
	}
	turn := make(chan *link, 1)
	p.gate.waiting = append(p.gate.waiting, turn)
	p.mu.Unlock()
	defer q.leave()
	return p.wait(ctx, turn, until)
}

func (p *Pool) wait(ctx context.Context, turn chan *link, until time.Time) (*link, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	select {
	case l := <-turn:
		if l != nil {
			p.reuses.Add(1)
		}
		return l, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	i := slices.Index(p.gate.waiting, turn)
	if i >= 0 {
		p.gate.waiting = slices.Delete(p.gate.waiting, i, i+1)
	}
	p.mu.Unlock()
	if i < 0 { // its turn came meanwhile: pass it on
		if l := <-turn; l != nil {
			p.put(l, time.Now())
		} else {
			p.vacate()
		}
	}
	return nil, fmt.Errorf("wait for one of %d connections: %w", p.key.MaxConnections, ctx.Err())
}

// hand gives a connection, or with nil a place, to the first who waits. The
// caller holds p.mu.
func (p *Pool) hand(l *link) bool {
	if len(p.gate.waiting) == 0 {
		return false
	}
	p.gate.waiting[0] <- l
	p.gate.waiting = slices.Delete(p.gate.waiting, 0, 1)
	return true
}

// vacate gives a place back.
func (p *Pool) vacate() {
	if p.key.MaxConnections == 0 {
		return
	}
	p.mu.Lock()
	if !p.hand(nil) {
		p.gate.places--
	}
	p.mu.Unlock()
}

// vacate gives the place of a connection back, which is going to be closed or
// replaced; once.
func (l *link) vacate() {
	if p := l.pool; p != nil {
		l.pool = nil
		p.vacate()
	}
}
