package cluster

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// contacts are what the other members have answered to this one as their
// leader. They are what a read is confirmed by.
//
// Every append has a number, taken before it is sent. A read takes one too, and
// counts a member's answer only if it is to an append with a higher number:
// such an append reached the member after the read began, and the member then
// still followed. Raft's own VerifyLeader also counts an answer that was given
// before and lay in a buffer since; a leader that was paused for longer than an
// election would take it for a proof that it still leads.
type contacts struct {
	number atomic.Uint64

	mu      sync.Mutex
	term    uint64
	members map[string]contact
}

// contact is what one member has answered in the term.
type contact struct {
	// Begun is the highest number of an append that it took.
	begun uint64
	// Heard is when it last answered anything.
	heard time.Time
	// Match is the last index that it is known to hold.
	match uint64
}

func newContacts() *contacts { return &contacts{members: map[string]contact{}} }

func (c *contacts) begin() uint64 { return c.number.Add(1) }

// now is a number below that of any append that begins later.
func (c *contacts) now() uint64 { return c.number.Load() }

func (c *contacts) answered(member string, begun uint64, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	if resp.Term > args.Term {
		return
	}
	c.update(member, args.Term, func(m *contact) {
		if !resp.Success {
			return
		}
		m.begun = max(m.begun, begun)
		last := args.PrevLogEntry
		if n := len(args.Entries); n > 0 {
			last = args.Entries[n-1].Index
		}
		m.match = max(m.match, last)
	})
}

func (c *contacts) matches(member string, term, index uint64) {
	c.update(member, term, func(m *contact) { m.match = max(m.match, index) })
}

func (c *contacts) update(member string, term uint64, change func(*contact)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if term < c.term {
		return
	}
	if term > c.term {
		c.term = term
		clear(c.members)
	}
	m := c.members[member]
	m.heard = time.Now()
	change(&m)
	c.members[member] = m
}

// in returns the contacts of a term.
func (c *contacts) in(term uint64) map[string]contact {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.term != term {
		return nil
	}
	return maps.Clone(c.members)
}

// confirmed tells whether a quorum of the voters, of which this member is one,
// has taken an append of the term that began after the number.
func (c *contacts) confirmed(term, number uint64, self string, voters []string) bool {
	members := c.in(term)
	confirmed := 0
	for _, voter := range voters {
		if voter == self || members[voter].begun > number {
			confirmed++
		}
	}
	return confirmed > len(voters)/2
}
