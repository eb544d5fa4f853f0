package cluster

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// closeBehind is how far a member may lag and still count as caught up.
	closeBehind = 64
	// MinVoters is how many voters dead members are never removed below.
	MinVoters = 3
)

// stable is how long a member must have been caught up to become a voter.
func (c Config) stable() time.Duration { return 4 * c.Election }

// healthy is how lately a member must have answered to count as alive.
func (c Config) healthy() time.Duration { return 10 * c.Election }

// steward looks after the members while this one leads: who has caught up
// becomes a voter, who has been dead for long is removed.
func (n *Node) steward() {
	ticker := time.NewTicker(n.cfg.Election)
	defer ticker.Stop()
	caughtUp := map[string]time.Time{}
	unheard := map[string]bool{}
	stoodBack := false
	for {
		select {
		case <-ticker.C:
		case <-n.stopped:
			return
		}
		stoodBack = n.mindSpace(stoodBack)
		n.giveWay()
		if !n.leads() || n.handing.Load() {
			clear(caughtUp)
			clear(unheard)
			continue
		}
		n.listen(unheard)
		_ = n.changeMembers(n.life, func() error { // they tell of their errors
			if !n.nameAddresses() && !n.promote(caughtUp) {
				n.buryDead()
			}
			return nil
		})
	}
}

// listen tells of each member that does not answer any more, and that does again.
func (n *Node) listen(unheard map[string]bool) {
	for name, silent := range n.silence() {
		switch away := silent > n.cfg.healthy(); {
		case away && !unheard[name]:
			n.cfg.Logger.Warn("a member does not answer", "member", name)
			unheard[name] = true
		case !away && unheard[name]:
			n.cfg.Logger.Info("a member answers again", "member", name)
			delete(unheard, name)
		}
	}
}

// nameAddresses replaces what a configuration of a member alone had for its
// address: the name is enough, the roster says where.
func (n *Node) nameAddresses() (changed bool) {
	for _, s := range n.servers() {
		if string(s.Address) != string(s.ID) && s.Suffrage == raft.Voter {
			n.tell("cannot change the address of a member", n.addVoter(s.ID), string(s.ID))
			return true
		}
	}
	return false
}

func (n *Node) addVoter(id raft.ServerID) error {
	return memberError(n.raft.AddVoter(id, raft.ServerAddress(id), 0, changeWait).Error())
}

func (n *Node) removeServer(name string) error {
	return memberError(n.raft.RemoveServer(raft.ServerID(name), 0, changeWait).Error())
}

func (n *Node) promote(caughtUp map[string]time.Time) (changed bool) {
	now, commit := time.Now(), n.raft.CommitIndex()
	contacts := n.contacts.in(n.raft.CurrentTerm())
	for _, s := range n.servers() {
		name := string(s.ID)
		if s.Suffrage == raft.Voter {
			delete(caughtUp, name)
			continue
		}
		c := contacts[name]
		if now.Sub(c.heard) > n.cfg.healthy() || c.match+closeBehind < commit {
			delete(caughtUp, name)
			continue
		}
		if caughtUp[name].IsZero() {
			caughtUp[name] = now
		}
		if now.Sub(caughtUp[name]) < n.cfg.stable() {
			continue
		}
		delete(caughtUp, name)
		err := n.addVoter(s.ID)
		if err == nil {
			n.cfg.Logger.Info("a member has caught up and votes from now on", "member", name)
		}
		n.tell("cannot make a member a voter", err, name)
		return true
	}
	return false
}

// silence is how long each other member has not answered this leader. Before
// this one led it can know nothing.
func (n *Node) silence() map[string]time.Duration {
	term := n.raft.CurrentTerm()
	contacts := n.contacts.in(term)
	since := time.Unix(0, n.ledSince.Load())
	if n.ledTerm.Load() != term {
		since = time.Now() // it has only just become the leader, or is none
	}
	silent := map[string]time.Duration{}
	for _, s := range n.servers() {
		if name := string(s.ID); name != n.cfg.Name {
			heard := contacts[name].heard
			if heard.Before(since) {
				heard = since
			}
			silent[name] = time.Since(heard)
		}
	}
	return silent
}

// alive counts the voters other than one that answer, this member among them.
func (n *Node) alive(without string) (alive, voters int) {
	silent := n.silence()
	for _, name := range n.voters() {
		if name == without {
			continue
		}
		voters++
		if name == n.cfg.Name || silent[name] < n.cfg.healthy() {
			alive++
		}
	}
	return alive, voters
}

// buryDead removes the member that has been dead for longest, if it has been
// for long enough and those who live can do without it.
func (n *Node) buryDead() {
	if n.cfg.DeadAfter < 0 {
		return
	}
	dead, longest := "", n.cfg.DeadAfter
	for name, silent := range n.silence() {
		if silent >= longest {
			dead, longest = name, silent
		}
	}
	if dead == "" {
		return
	}
	for _, voter := range n.voters() {
		if voter != dead {
			continue
		}
		if alive, voters := n.alive(dead); voters < MinVoters || alive <= voters/2 {
			return
		}
	}
	err := n.removeServer(dead)
	if err == nil {
		n.cfg.Logger.Warn("a member was removed, as it did not answer for long", "member", dead, "silent", longest)
	}
	n.tell("cannot remove a dead member", err, dead)
}

// tell logs what an operator must know; that this member leads no more is
// nothing of that.
func (n *Node) tell(what string, err error, member string) {
	if err != nil && !errors.Is(err, ErrNotLeader) {
		n.cfg.Logger.Warn(what, "member", member, "error", err)
	}
}
