package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// read is a ReadBarrier that waits for its index.
type read struct {
	// far: it came from another member, and goes no further.
	far bool
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
// nothing. As long as no leader can be asked it waits; its errors are ErrClosed,
// and the context's with ErrNotLeader where that was why.
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
		_, period := n.leadership.now()
		index, err := n.ask(ctx, false)
		if err == nil {
			return n.reach(ctx, index)
		}
		if !errors.Is(err, ErrNotLeader) {
			return err
		}
		if err := n.waitForLeader(ctx, period); err != nil {
			return err
		}
	}
}

// ask returns the index that a read must wait for.
func (n *Node) ask(ctx context.Context, far bool) (uint64, error) {
	for {
		_, _, changed := n.machine.now()
		r := &read{far: far, done: make(chan struct{})}
		select {
		case n.reads <- r:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		if r.err != errNotReady {
			return r.index, r.err
		}
		select {
		case <-changed:
		case <-n.closing:
			return 0, ErrClosed
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// reach waits until this member has applied an index; not for ever, once it is
// closing.
func (n *Node) reach(ctx context.Context, index uint64) error {
	for {
		applied, _, changed := n.machine.now()
		if applied >= index {
			return nil
		}
		select {
		case <-changed:
		case <-n.hurry.Done():
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
		n.look(waiting)
	}
}

func (n *Node) look(waiting []*read) {
	leads := n.leads()
	var index uint64
	err := ErrNotLeader
	if leads {
		index, err = n.committed()
	} else if near := func(r *read) bool { return !r.far }; anyOf(waiting, near) {
		index, err = n.askLeader()
	}
	for _, r := range waiting {
		r.index, r.err = index, err
		if r.far && !leads {
			r.index, r.err = 0, ErrNotLeader
		}
		close(r.done)
	}
}

func anyOf(reads []*read, is func(*read) bool) bool {
	for _, r := range reads {
		if is(r) {
			return true
		}
	}
	return false
}

// askLeader asks the leader for the index, once for all who wait.
func (n *Node) askLeader() (uint64, error) {
	leader, period := n.leadership.now()
	if leader == "" || leader == n.cfg.Name {
		return 0, ErrNotLeader
	}
	// Asking again does no harm, so it waits no longer than for an election.
	ctx, cancel := context.WithTimeout(period, 2*n.cfg.Election)
	defer cancel()
	code, payload, err := n.call(ctx, leader, methodRead, nil)
	if err == nil {
		err = decodeError(code, payload)
	}
	if err != nil || len(payload) != 8 {
		return 0, ErrNotLeader
	}
	return binary.BigEndian.Uint64(payload), nil
}

func (n *Node) answerRead(ctx context.Context) ([]byte, error) {
	index, err := n.ask(ctx, true)
	if err != nil {
		return nil, err
	}
	return binary.BigEndian.AppendUint64(nil, index), nil
}

// committed returns an index not older than anything acknowledged before the
// call. The order is what matters: the term, which must be one in which this
// member has committed; then the index; then the proof that it still led when
// it took the index; then the term again.
//
// The proof is that a quorum has taken an append that began after the index was
// taken (see contacts). VerifyLeader only makes Raft send such appends: when it
// says yes that may be by answers from before.
func (n *Node) committed() (uint64, error) {
	term := n.raft.CurrentTerm()
	if n.raft.State() != raft.Leader {
		return 0, ErrNotLeader
	}
	if _, ready, _ := n.machine.now(); ready != term {
		return 0, errNotReady
	}
	index := n.raft.CommitIndex()
	number := n.contacts.now()
	for try := 0; ; try++ {
		if err := n.raft.VerifyLeader().Error(); err != nil {
			return 0, ErrNotLeader
		}
		if n.raft.CurrentTerm() != term {
			return 0, ErrNotLeader
		}
		if n.contacts.confirmed(term, number, n.cfg.Name, n.voters()) {
			return index, nil
		}
		if try > 2 { // a leader that has no vote is not made to wait by Raft
			time.Sleep(n.cfg.Election / 100)
		}
	}
}

// Ready returns once this member has applied all that the cluster had agreed on
// at the time of the call.
func (n *Node) Ready(ctx context.Context) error {
	if err := n.readBarrier(ctx); err != nil {
		return fmt.Errorf("wait until ready: %w", err)
	}
	return nil
}
