package cluster

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
)

var errGivenUp = errors.New("given up")

// quitter is a ledger that at some point takes nothing more, as the store does on
// a full disk when the process is to stop.
type quitter struct {
	ledger
	given atomic.Bool
}

func (q *quitter) Apply(indexes []uint64, entries [][]byte) [][]any {
	if !q.given.Load() {
		return q.ledger.Apply(indexes, entries)
	}
	results := (&ledger{}).Apply(indexes, entries) // as many as there are commands
	for _, of := range results {
		for i := range of {
			of[i] = errGivenUp
		}
	}
	return results
}

// What a member has agreed on and cannot apply any more, nobody reads there as if
// it were.
func TestNothingIsReadOfAMachineThatGaveUp(t *testing.T) {
	sm := &quitter{}
	n := start(t, config(t), sm)
	propose(t, n, "a")
	before := n.Status().Applied
	sm.given.Store(true)
	if result, err := n.Propose(t.Context(), key("b")); err != nil || !errors.Is(result.(error), errGivenUp) {
		t.Errorf("the command it gave up on: %v, %v", result, err)
	}
	read := make(chan error, 1)
	go func() { read <- n.ReadBarrier(t.Context()) }()
	// By itself it would wait for ever: two more entries are as good as a while.
	for i := range 2 {
		if _, err := n.Propose(t.Context(), key(fmt.Sprint(i))); err != nil {
			t.Error(err)
		}
	}
	shut(t, n)
	requireError(t, <-read, ErrClosed)
	if after := n.Status().Applied; after != before {
		t.Errorf("it says that it applied %d, it has %d", after, before)
	}
}
