package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/weirmesh/weir/cluster/roster"
)

// announce makes this member's own entry in the roster, if anything in it is
// new. The clock makes a version higher than those of an earlier life whose
// roster was lost.
func (n *Node) announce() error {
	mine := roster.Entry{Name: n.cfg.Name, Address: n.cfg.Address, Newest: n.cfg.Newest}
	had, _ := n.roster.Get(n.cfg.Name)
	if mine.Version = had.Version; mine == had {
		return nil
	}
	mine.Version = max(had.Version+1, uint64(time.Now().UnixMilli()))
	_, err := n.roster.Merge(mine)
	return err
}

func (n *Node) merge(entries []roster.Entry) {
	// Nobody else may say where this member is.
	entries = slices.DeleteFunc(slices.Clone(entries), func(e roster.Entry) bool {
		if e.Name == n.cfg.Name {
			n.contradict(e)
		}
		return e.Name == n.cfg.Name
	})
	if _, err := n.roster.Merge(entries...); err != nil {
		n.cfg.Logger.Warn("cannot keep where the members are", "error", err)
	}
}

// contradict makes this member's own entry newer than one that others have: of
// an earlier life, whose roster was lost and whose clock was ahead, or made by
// somebody else. Nobody would hear where this member is.
func (n *Node) contradict(e roster.Entry) {
	mine, found := n.roster.Get(n.cfg.Name)
	if !found || e == mine || e.Version < mine.Version {
		return
	}
	mine.Version = e.Version + 1
	if _, err := n.roster.Merge(mine); err != nil {
		n.cfg.Logger.Warn("cannot keep where this member is", "error", err)
	}
}

// spread tells the others where this member is, and hears where they are: often
// while there is no leader, then now and then.
func (n *Node) spread() {
	for {
		n.exchangeAll()
		pause := 10 * n.cfg.Election
		if leader, _ := n.leadership.now(); leader == "" {
			pause = 2 * n.cfg.Election
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-n.life.Done():
			timer.Stop()
			return
		}
	}
}

func (n *Node) exchangeAll() {
	var asking sync.WaitGroup
	ctx, cancel := context.WithTimeout(n.life, n.cfg.stallAfter())
	defer cancel()
	ask := func(call func(payload []byte) (byte, []byte, error)) {
		asking.Go(func() {
			code, payload, err := call(encodeMembership(membership{from: n.cfg.Name, entries: n.roster.List()}))
			switch {
			case err == nil && code == codeDone:
				n.heed(payload)
			case errors.Is(err, ErrRefused):
				n.castOut(err) // of its streams: nobody who may come back gets that
			}
		})
	}
	leader, _ := n.leadership.now()
	for _, e := range n.roster.List() {
		// Who is out asks by himself; who is alone asks everyone he ever knew.
		if e.Name != n.cfg.Name && (leader == "" || n.removed() || n.isMember(e.Name)) {
			ask(func(payload []byte) (byte, []byte, error) { return n.call(ctx, e.Name, methodRoster, payload) })
		}
	}
	// Where nobody leads, all others may have moved.
	if leader == "" {
		for _, address := range n.cfg.Seeds {
			if address != n.cfg.Address {
				ask(func(payload []byte) (byte, []byte, error) { return n.callAt(ctx, address, methodRoster, payload) })
			}
		}
	}
	asking.Wait()
	n.askBackIn(ctx)
}

// heed takes in what another member answered.
func (n *Node) heed(payload []byte) {
	m, err := decodeMembership(payload)
	if err != nil {
		n.cfg.Logger.Warn("cannot read what another member says", "error", err)
		return
	}
	n.merge(m.entries)
	n.standing.heard(m.from)
	// Only a leader says that this member is out, and one of the past may be
	// wrong about it.
	if m.out && m.at >= n.raft.CurrentTerm() && len(n.servers()) > 0 {
		n.standing.removed(m.at)
	}
}

func (n *Node) answerRoster(sender string, payload []byte) ([]byte, error) {
	m, err := decodeMembership(payload)
	if err != nil {
		return nil, err
	}
	if m.from != sender {
		return nil, fmt.Errorf("%w: %s speaks in the name of %s", ErrRefused, sender, m.from)
	}
	n.merge(m.entries)
	n.standing.heard(m.from)
	return encodeMembership(n.myWord(m.from)), nil
}

// myWord is what this member tells another.
func (n *Node) myWord(to string) membership {
	return membership{
		from: n.cfg.Name, entries: n.roster.List(), at: n.raft.CurrentTerm(),
		out: n.leads() && !n.isMember(to),
	}
}

// standing is how this member stands with the others.
type standing struct {
	mu sync.Mutex
	// out is the term in which a leader said that this member is none.
	out uint64
	// refused is why it was not let in again.
	refused string
	times   map[string]time.Time
}

func (s *standing) heard(from string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times[from] = time.Now()
}

func (s *standing) lastHeard(from string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.times[from]
}

func (s *standing) removed(term uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = max(s.out, term)
}

func (s *standing) letIn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out, s.refused = 0, ""
}

func (s *standing) refuse(term uint64, why string) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news = s.refused == ""
	s.out, s.refused = max(s.out, term, 1), why
	return news
}

func (s *standing) now() (out uint64, refused string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out, s.refused
}

// removed tells whether this member was one and is none any more.
func (n *Node) removed() bool {
	servers := n.servers()
	if len(servers) == 0 {
		return false
	}
	out, _ := n.standing.now()
	return out > 0 || !n.isMember(n.cfg.Name)
}
