package proxy

import (
	"context"
	"testing"
)

// What was derived from a life that has ended may notice only when the next one
// has begun.
func TestLifeEndsForThoseWhoKnewIt(t *testing.T) {
	var l life
	l.begin()
	first := l.now()
	l.end()
	l.begin()
	if first.Err() == nil {
		t.Error("what has ended is whole again")
	}
	if l.now().Err() != nil {
		t.Error("what has begun has ended")
	}
	child, cancel := context.WithCancel(first)
	defer cancel()
	<-child.Done()
	whole := l.now()
	l.begin()
	if l.now() != whole {
		t.Error("a life that goes on was replaced")
	}
}
