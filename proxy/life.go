package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// life is a context that lasts as long as an exchange is wanted. It serves one
// exchange after the other, so that those that end by themselves, which is
// nearly all, cost nothing.
type life struct {
	ended atomic.Bool

	mu   sync.Mutex
	done chan struct{}
}

var _ context.Context = (*life)(nil)

// begin makes it whole again.
func (l *life) begin() {
	if l.done != nil && !l.ended.Load() {
		return
	}
	l.mu.Lock()
	l.done = make(chan struct{})
	l.ended.Store(false)
	l.mu.Unlock()
}

// end may be called by anyone, after begin.
func (l *life) end() {
	l.mu.Lock()
	if !l.ended.Swap(true) {
		close(l.done)
	}
	l.mu.Unlock()
}

// Deadline implements context.Context.
func (l *life) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

// Done implements context.Context.
func (l *life) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}

// Err implements context.Context.
func (l *life) Err() error {
	if l.ended.Load() {
		return context.Canceled
	}
	return nil
}

// Value implements context.Context.
func (l *life) Value(any) any { return nil }
