package cluster

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
)

// leadership is who leads, as far as this member knows.
type leadership struct {
	mu     sync.Mutex
	leader string
	term   uint64
	// period ends when somebody else leads, or the same one anew.
	period context.Context
	end    context.CancelFunc
}

func newLeadership(life context.Context) *leadership {
	l := new(leadership)
	l.period, l.end = context.WithCancel(life)
	return l
}

// now returns the leader, or nothing, and a context that lasts as long as that
// is so.
func (l *leadership) now() (leader string, period context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leader, l.period
}

func (l *leadership) set(leader string, term uint64, life context.Context) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leader == leader && l.term == term {
		return false
	}
	l.end()
	l.leader, l.term = leader, term
	l.period, l.end = context.WithCancel(life)
	return true
}

// observe follows Raft's own idea of who leads.
func (n *Node) observe() {
	// One is enough: whoever is told looks for itself, at what is so then.
	events := make(chan raft.Observation, 1)
	observer := raft.NewObserver(events, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	n.raft.RegisterObserver(observer)
	defer n.raft.DeregisterObserver(observer)
	for {
		n.lookWhoLeads()
		select {
		case <-events:
		case <-n.stopped:
			return
		}
	}
}

func (n *Node) lookWhoLeads() {
	_, id := n.raft.LeaderWithID()
	leader := string(id)
	if leader == n.cfg.Name && n.raft.State() != raft.Leader {
		leader = ""
	}
	// The term parts two times of the same leader.
	if n.leadership.set(leader, n.raft.CurrentTerm(), n.life) {
		n.machine.nudge()
	}
}

// Leader is who leads, as far as this member knows; empty: it knows of none.
func (n *Node) Leader() string {
	leader, _ := n.leadership.now()
	return leader
}

// Leads tells whether this member leads, as far as it knows.
func (n *Node) Leads() bool { return n.leads() }

// leads tells whether this member takes proposals itself.
func (n *Node) leads() bool { return n.raft.State() == raft.Leader }
