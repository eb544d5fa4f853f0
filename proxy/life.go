package proxy

import (
	"context"
	"sync/atomic"
	"time"
)

// life is a context that lasts as long as an exchange is wanted. It serves one
// exchange after the other, so that those that end by themselves, which is
// nearly all, cost nothing.
type life struct{ term atomic.Pointer[term] }

// begin makes it whole again: by a new context, for whoever was given the one
// that has ended may look at it later still.
func (l *life) begin() {
	if t := l.term.Load(); t != nil && !t.ended.Load() {
		return
	}
	l.term.Store(newTerm())
}

// end may be called by anyone, after begin.
func (l *life) end() { l.term.Load().end() }

// now is the context of the exchange that is being served.
func (l *life) now() context.Context { return l.term.Load() }

// term is a context that ends once and for all.
type term struct {
	ended atomic.Bool
	done  chan struct{}
}

func newTerm() *term { return &term{done: make(chan struct{})} }

var _ context.Context = (*term)(nil)

func (t *term) end() {
	if !t.ended.Swap(true) {
		close(t.done)
	}
}

// Deadline implements context.Context.
func (*term) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

// Done implements context.Context.
func (t *term) Done() <-chan struct{} { return t.done }

// Err implements context.Context.
func (t *term) Err() error {
	if t.ended.Load() {
		return context.Canceled
	}
	return nil
}

// Value implements context.Context.
func (*term) Value(any) any { return nil }
