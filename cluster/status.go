package cluster

import (
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Status is a member's view of the cluster. It needs no leader.
type Status struct {
	// Name is this member's, Leader the leader's; empty where none is known.
	Name, Leader string
	// State is FOLLOWER, CANDIDATE or LEADER.
	State string
	Term  uint64
	// Commit is the last index known to be agreed on, Applied the last one
	// that this member's state machine holds, Last the last one in its log.
	Commit, Applied, Last uint64
	Members               []Member
	// Peers are the same members, with what this one knows of how they are.
	Peers []Peer
	// Waiting: this member has not been let into a cluster yet. Removed: it was
	// in one and is no more; Refused is why it is not let in again.
	Waiting, Removed bool
	Refused          string
	// Full: the disk has no space, and this member takes no writes.
	Full bool
	// Sync is how long it takes to write to the log and sync it.
	Sync Latency
	// Snapshot is the index of the newest one, Taken when it was; zero where
	// there is none.
	Snapshot      uint64
	SnapshotTaken time.Time
}

// Peer is how a member looks from here.
type Peer struct {
	Name string
	// Reachable: it answered lately. For this member itself it is true.
	Reachable bool
	// Heard is when it last did; zero where it never did.
	Heard time.Time
	// Match is the last index that the member is known to hold, and Lag how far
	// that is behind this one's log. Only the leader knows.
	Match, Lag uint64
	Known      bool
}

// Status says how the cluster looks from here, now.
func (n *Node) Status() Status {
	leader, _ := n.leadership.now()
	applied, _, _ := n.machine.now()
	_, refused := n.standing.now()
	s := Status{
		Name: n.cfg.Name, Leader: leader,
		State: strings.ToUpper(n.raft.State().String()), Term: n.raft.CurrentTerm(),
		Commit: n.raft.CommitIndex(), Applied: applied, Last: n.raft.LastIndex(),
		Members: n.members(),
		Waiting: len(n.servers()) == 0, Removed: n.removed(), Refused: refused,
		Full: n.isFull(), Sync: n.log.syncs.summary(),
	}
	for _, m := range s.Members {
		s.Peers = append(s.Peers, n.peer(m.Name, s))
	}
	newest := n.snapshots.newest.Load()
	s.Snapshot, s.SnapshotTaken = newest.index, newest.at
	return s
}

func (n *Node) peer(name string, s Status) Peer {
	p := Peer{Name: name}
	switch {
	case name == n.cfg.Name:
		return Peer{Name: name, Reachable: true, Heard: time.Now(), Match: s.Last, Known: true}
	case n.leads():
		c := n.contacts.in(s.Term)[name]
		p.Heard, p.Match, p.Known = c.heard, c.match, !c.heard.IsZero()
		p.Lag = s.Last - min(p.Match, s.Last)
		p.Reachable = time.Since(p.Heard) < n.cfg.healthy()
	case name == s.Leader:
		p.Heard = n.raft.LastContact()
		p.Reachable = time.Since(p.Heard) < n.cfg.healthy()
	default:
		// They ask each other only now and then.
		p.Heard = n.standing.lastHeard(name)
		p.Reachable = time.Since(p.Heard) < 3*n.cfg.healthy()
	}
	return p
}

// Metrics are the numbers of a member, for whoever exports them.
type Metrics struct {
	Leads, Full                bool
	Term, Commit, Applied      uint64
	Last, Snapshot             uint64
	Members, Voters, Reachable int
	// Syncs are the writes of the log.
	Syncs Latency
	// LogBytes is the room that the log takes on the disk.
	LogBytes int64
	// Elections counts the terms in which this member led.
	Elections uint64
}

// Metrics reads the numbers as they are now.
func (n *Node) Metrics() Metrics {
	s := n.Status()
	m := Metrics{
		Leads: s.State == strings.ToUpper(raft.Leader.String()), Full: s.Full,
		Term: s.Term, Commit: s.Commit, Applied: s.Applied, Last: s.Last, Snapshot: s.Snapshot,
		Members: len(s.Members), Syncs: s.Sync, Elections: n.elections.Load(),
	}
	for i, member := range s.Members {
		if member.Role == Voter {
			m.Voters++
		}
		if s.Peers[i].Reachable {
			m.Reachable++
		}
	}
	m.LogBytes = n.log.Bytes()
	return m
}
