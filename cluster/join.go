package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Join asks to be let into the cluster of the members at the addresses, any one
// of which is enough, and returns once this member is in. It is a non-voter at
// first and becomes a voter when it has caught up. Who is in already only tells
// the others where it is now.
func (n *Node) Join(ctx context.Context, addresses []string) error {
	if !n.begin() {
		return fmt.Errorf("join cluster: %w", ErrClosed)
	}
	defer n.calls.Done()
	ctx, cancel := n.whileOpen(ctx)
	defer cancel()
	var last error
	begun, said := time.Now(), ""
	for {
		_, period := n.leadership.now()
		for _, address := range addresses {
			err := n.knock(func(payload []byte) (byte, []byte, error) {
				return n.callAt(ctx, address, methodJoin, payload)
			})
			if err == nil {
				n.standing.letIn()
				n.blank.Store(false)
				return n.awaitEntry(ctx)
			}
			if errors.Is(err, ErrRefused) || errors.Is(err, errFar) {
				return fmt.Errorf("join cluster: %w", err)
			}
			last = err
		}
		// That nobody leads just then is nothing to tell.
		if time.Since(begun) > n.cfg.healthy() && last.Error() != said {
			n.cfg.Logger.Warn("not let in yet; trying on", "addresses", addresses, "error", last)
			said = last.Error()
		}
		if err := n.waitForLeader(ctx, period); err != nil {
			return fmt.Errorf("join cluster: %w", errors.Join(err, last))
		}
	}
}

// knock asks once.
func (n *Node) knock(call func(payload []byte) (byte, []byte, error)) error {
	code, payload, err := call(encodeMembership(membership{from: n.cfg.Name, blank: n.blank.Load(), entries: n.roster.List()}))
	if err == nil {
		err = decodeError(code, payload)
	}
	if err != nil {
		return err
	}
	n.heed(payload)
	return nil
}

// awaitEntry waits until this member finds itself in the configuration.
func (n *Node) awaitEntry(ctx context.Context) error {
	for {
		_, period := n.leadership.now()
		if leader, _ := n.leadership.now(); leader != "" && n.isMember(n.cfg.Name) {
			return nil
		}
		if err := n.waitForLeader(ctx, period); err != nil {
			return fmt.Errorf("join cluster: wait for the leader: %w", err)
		}
	}
}

// askBackIn has a member that was removed ask to be let in again, unless it was
// told that it will not be.
func (n *Node) askBackIn(ctx context.Context) {
	out, refused := n.standing.now()
	if out > 0 && refused == "" && n.raft.CurrentTerm() >= out && n.isMember(n.cfg.Name) {
		if leader, _ := n.leadership.now(); leader != "" {
			n.standing.letIn()
			return
		}
	}
	if !n.removed() || refused != "" {
		return
	}
	for _, e := range n.roster.List() {
		if e.Name == n.cfg.Name {
			continue
		}
		err := n.knock(func(payload []byte) (byte, []byte, error) { return n.call(ctx, e.Name, methodJoin, payload) })
		switch {
		case err == nil:
			n.cfg.Logger.Info("this member was removed, and was let in again")
			n.standing.letIn()
			return
		case errors.Is(err, ErrRefused):
			n.castOut(err)
			return
		}
	}
}

// castOut notes that this member is not let in again. What an operator must do is
// said once.
func (n *Node) castOut(why error) {
	if !n.standing.refuse(n.raft.CurrentTerm(), why.Error()) {
		return
	}
	n.cfg.Logger.Error("this member was removed from the cluster, and is not let in again: stop it; it can only join anew, with an empty directory", "reason", why)
}

// Outcast says why this member, which was removed, is not let in again. It is
// empty for one that is in the cluster, or may come to be.
func (n *Node) Outcast() string {
	_, refused := n.standing.now()
	return refused
}

// answerJoin lets a member in, or relays its request to the leader.
func (n *Node) answerJoin(ctx context.Context, sender string, payload []byte) ([]byte, error) {
	m, err := decodeMembership(payload)
	if err != nil {
		return nil, err
	}
	if !m.relayed && m.from != sender {
		return nil, fmt.Errorf("%w: %s asks in the name of %s", ErrRefused, sender, m.from)
	}
	n.merge(m.entries)
	if n.leads() {
		err := n.changeMembers(ctx, func() error { return n.letIn(ctx, m.from, m.blank) })
		if err != nil {
			return nil, err
		}
		return encodeMembership(n.myWord(m.from)), nil
	}
	leader, _ := n.leadership.now()
	if m.relayed || leader == "" || leader == n.cfg.Name {
		return nil, ErrNotLeader
	}
	m.relayed = true
	code, answer, err := n.call(ctx, leader, methodJoin, encodeMembership(m))
	if err != nil {
		return nil, ErrNotLeader // asking twice does no harm
	}
	return answer, decodeError(code, answer)
}

// letIn adds a member as non-voter. The steward makes it a voter. One that is a
// member, and has no log, has lost it, and with it what it promised: it ends as
// the member that it was, so that nobody counts on that any more.
func (n *Node) letIn(ctx context.Context, name string, blank bool) error {
	was := n.isMember(name)
	if was && !blank {
		return nil
	}
	if n.cfg.Admit != nil {
		err := n.cfg.Admit(ctx, name)
		if ctx.Err() != nil {
			return context.Cause(ctx) // that is no verdict
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	e, found := n.roster.Get(name)
	if !found || e.Address == "" {
		return fmt.Errorf("%w: %s does not say where it is", ErrRefused, name)
	}
	if agreed := n.agreed(); e.Newest < agreed {
		return fmt.Errorf("%w: %s understands commands up to kind %d, the members of this cluster up to %d: upgrade it first", ErrRefused, name, e.Newest, agreed)
	}
	if was {
		if err := n.removeServer(name); err != nil {
			return err
		}
		n.cfg.Logger.Warn("a member has lost its log, and comes in anew", "member", name)
	}
	return memberError(n.raft.AddNonvoter(raft.ServerID(name), raft.ServerAddress(name), 0, changeWait).Error())
}

// changeWait bounds the wait for Raft to begin a change of its members.
const changeWait = 10 * time.Second

// memberError sorts Raft's errors of a change of members, all of which can be
// asked for again.
func memberError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrLeadershipLost):
		return fmt.Errorf("%w: %w", ErrNotLeader, err) // it may have been done
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrNotLeader
	}
	return err
}
