package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/weirmesh/weir/cluster/rpc"
)

// Remove takes a member out of the cluster. It is refused where those voters
// who answer would be no majority of the ones that remain, unless it is forced.
// The member learns that it is out; whether it is let in again is for
// Config.Admit to say.
func (n *Node) Remove(ctx context.Context, name string, force bool) error {
	if err := n.order(ctx, methodRemove, order{member: name, force: force}); err != nil {
		return fmt.Errorf("remove member %s: %w", name, err)
	}
	return nil
}

// Transfer makes another member the leader: the one named to, or with no name
// the one that lags least.
func (n *Node) Transfer(ctx context.Context, to string) error {
	if err := n.order(ctx, methodTransfer, order{member: to}); err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	return nil
}

// order has the leader do it, whoever that is.
func (n *Node) order(ctx context.Context, method byte, o order) error {
	if !n.begin() {
		return ErrClosed
	}
	defer n.calls.Done()
	ctx, cancel := n.whileOpen(ctx)
	defer cancel()
	for {
		leader, period := n.leadership.now()
		err := ErrNotLeader
		switch {
		case n.leads():
			err = n.obey(ctx, method, o)
		case leader != "" && leader != n.cfg.Name:
			var code byte
			var text []byte
			code, text, err = n.call(ctx, leader, method, encodeOrder(o))
			switch {
			case err == nil:
				err = decodeError(code, text)
			case errors.Is(err, rpc.ErrNotSent):
				err = ErrNotLeader
			default:
				return fmt.Errorf("%w: %w", ErrUnknown, err)
			}
		}
		if !errors.Is(err, ErrNotLeader) {
			return err
		}
		if err := n.waitForLeader(ctx, period); err != nil {
			return err
		}
	}
}

func (n *Node) answerOrder(ctx context.Context, method byte, payload []byte) error {
	o, err := decodeOrder(payload)
	if err != nil {
		return err
	}
	if !n.leads() {
		return ErrNotLeader
	}
	return n.obey(ctx, method, o)
}

func (n *Node) obey(ctx context.Context, method byte, o order) error {
	if method == methodTransfer {
		return n.handOver(ctx, o.member)
	}
	return n.remove(ctx, o)
}

func (n *Node) remove(ctx context.Context, o order) error {
	if o.member == n.cfg.Name {
		if err := n.mayRemove(o); err != nil {
			return err
		}
		// Another can do it better: it stays the leader.
		if err := n.handOver(ctx, ""); err != nil {
			return err
		}
		return ErrNotLeader
	}
	return n.changeMembers(ctx, func() error {
		if err := n.mayRemove(o); err != nil {
			return err
		}
		err := n.removeServer(o.member)
		if errors.Is(err, raft.ErrLeadershipLost) {
			// Whoever asks again and hears that there is no such member would think
			// that nothing was done.
			return fmt.Errorf("%w: %w", ErrUnknown, raft.ErrLeadershipLost)
		}
		return err
	})
}

func (n *Node) mayRemove(o order) error {
	if !n.isMember(o.member) {
		return fmt.Errorf("%w: there is no such member", ErrRefused)
	}
	if alive, voters := n.alive(o.member); voters == 0 {
		return fmt.Errorf("%w: no voter would be left", ErrRefused)
	} else if alive <= voters/2 && !o.force {
		return fmt.Errorf("%w: of the %d voters that remain only %d answer, which is no majority", ErrRefused, voters, alive)
	}
	return nil
}

// handOver makes another member the leader. What is under way lands first, so
// that nobody is left without an answer; what comes meanwhile goes to the next.
func (n *Node) handOver(ctx context.Context, to string) error {
	if to == n.cfg.Name {
		return nil
	}
	if to == "" {
		to = n.best()
	}
	if !slices.Contains(n.voters(), to) {
		return fmt.Errorf("%w: there is no such voter that could lead", ErrRefused)
	}
	if !n.handing.CompareAndSwap(false, true) {
		return ErrNotLeader // somebody does it already
	}
	defer n.handing.Store(false)
	for n.airborne.Load() > 0 {
		select {
		case <-n.landed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	future := n.raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to))
	done := make(chan error, 1)
	n.minding.Go(func() { done <- future.Error() })
	select {
	case err := <-done:
		if err != nil && n.leads() {
			return fmt.Errorf("%s does not take over: %w", to, err)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// best is the voter that could lead soonest.
func (n *Node) best() (best string) {
	contacts := n.contacts.in(n.raft.CurrentTerm())
	for _, name := range n.voters() {
		c := contacts[name]
		if name == n.cfg.Name || time.Since(c.heard) > n.cfg.healthy() {
			continue
		}
		if best == "" || c.match > contacts[best].match {
			best = name
		}
	}
	return best
}

// farewellWait bounds what a planned stop of a leader waits for its successor.
const farewellWait = 50 * time.Millisecond

// farewell hands the leadership over before this member ends. Where it does not
// work out the others elect a leader by themselves.
func (n *Node) farewell() {
	if n.cfg.Network == nil || !n.leads() || len(n.voters()) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(n.life, farewellWait)
	defer cancel()
	// One that has only just come to lead is yet to hear of the others.
	for n.best() == "" {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
	if err := n.handOver(ctx, ""); err != nil {
		n.cfg.Logger.Info("the leadership was not handed over", "error", err)
	}
}
