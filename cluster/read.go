package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// read is a ReadBarrier that waits for its index.
type read struct {
	// index is what must be applied, unless err says why there is none.
	index uint64
	err   error
	done  chan struct{}
}

// errNotReady: this member leads, but has not committed anything in its term
// yet, so it cannot know what was committed before.
var errNotReady = errors.New("the leader is not ready yet")

// ReadBarrier returns when everything that any member had acknowledged at the
// time of the call can be read from this member's state machine. It writes
// nothing. Its errors are ErrNotLeader, ErrClosed and the context's.
func (n *Node) ReadBarrier(ctx context.Context) error {
	if err := n.readBarrier(ctx); err != nil {
		return fmt.Errorf("wait to read: %w", err)
	}
	return nil
}

func (n *Node) readBarrier(ctx context.Context) error {
	if !n.begin() {
		return ErrClosed
	}
	defer n.calls.Done()
	for {
		_, _, changed := n.machine.now()
		r := &read{done: make(chan struct{})}
		select {
		case n.reads <- r:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if r.err == nil {
			return n.machine.reach(ctx, r.index)
		}
		if r.err != errNotReady {
			return r.err
		}
		select {
		case <-changed:
		case <-n.closing:
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// verify answers reads. All that wait when it begins share one look: the index
// it finds is not older than any of them.
func (n *Node) verify() {
	for first := range n.reads {
		waiting := []*read{first}
		for more := true; more; {
			select {
			case r, ok := <-n.reads:
				if more = ok; ok {
					waiting = append(waiting, r)
				}
			default:
				more = false
			}
		}
		index, err := n.committed()
		for _, r := range waiting {
			r.index, r.err = index, err
			close(r.done)
		}
	}
}

// committed returns an index not older than anything acknowledged before the
// call. The order is what matters: the term, which must be one in which this
// member has committed; then the index; then the proof that it still led when
// it took the index; then the term again.
func (n *Node) committed() (uint64, error) {
	term := n.raft.CurrentTerm()
	if n.raft.State() != raft.Leader {
		return 0, ErrNotLeader
	}
	if _, ready, _ := n.machine.now(); ready != term {
		return 0, errNotReady
	}
	index := n.raft.CommitIndex()
	if err := n.raft.VerifyLeader().Error(); err != nil {
		return 0, ErrNotLeader
	}
	if n.raft.CurrentTerm() != term {
		return 0, ErrNotLeader
	}
	return index, nil
}

// Ready returns once this member leads and has applied its whole log.
func (n *Node) Ready(ctx context.Context) error {
	for {
		_, _, changed := n.machine.now()
		err := n.readBarrier(ctx)
		if !errors.Is(err, ErrNotLeader) {
			if err != nil {
				return fmt.Errorf("wait until ready: %w", err)
			}
			return nil
		}
		select {
		case <-changed:
		case <-n.closing:
			return fmt.Errorf("wait until ready: %w", ErrClosed)
		case <-ctx.Done():
			return fmt.Errorf("wait until ready: %w", context.Cause(ctx))
		}
	}
}
