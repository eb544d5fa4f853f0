package cluster

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirmesh/weir/cluster/roster"
)

// A member that has lost its disk does not know what it has acknowledged and
// for whom it voted. It must do neither again before the others know.
func TestMemberThatLostItsDiskDoesNotVote(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a", "b", "c")
		leader, lost := g.leader(), g.follower()
		var behind string
		for _, name := range g.names() {
			if name != leader && name != lost {
				behind = name
			}
		}
		g.net.Isolate(behind)
		g.write(leader, "x", "only two have it")
		g.stop(lost)
		g.kill(leader)
		g.net.Heal()
		m := g.members[lost]
		m.cfg.Dir, m.cfg.Found = filepath.Join(g.root, "another disk"), nil
		blank := g.start(lost)
		time.Sleep(20 * time.Second)
		if s := g.node(behind).Status(); s.State == "LEADER" {
			t.Fatalf("%s leads, and has not what was acknowledged: %+v", behind, s)
		}
		g.start(leader)
		if err := blank.Join(g.ctx(), []string{address(behind)}); err != nil {
			t.Fatal(err)
		}
		if role := g.role(lost); role != NonVoter {
			t.Errorf("it comes in as %s", role)
		}
		if got := g.read(lost, "x"); got != "only two have it" {
			t.Errorf("it reads %q", got)
		}
		g.eventually("it votes again", func() bool { return g.role(lost) == Voter })
		g.converge()
	})
}

// An entry of an earlier life, or one that somebody made up, must not hide
// where a member is.
func TestMemberContradictsWhatIsSaidOfIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a", "b", "c")
		wrong, _ := g.node("b").roster.Get("a")
		wrong.Address, wrong.Version = "nowhere:1", wrong.Version+1<<40
		g.node("b").merge([]roster.Entry{wrong})
		g.eventually("all know where it is", func() bool {
			for _, name := range g.names() {
				if e, _ := g.node(name).roster.Get("a"); e.Address != address("a") || e.Version <= wrong.Version {
					return false
				}
			}
			return true
		})
	})
}

// Two that decide at once by the same look at the members would leave fewer than
// either meant to.
func TestMembersAreChangedOneByOne(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, func(c *Config) { c.Admit = func(context.Context, string) error { return errBanned } })
		g.found("a", "b", "c")
		leader := g.node(g.leader())
		g.net.SetDelay(10 * time.Millisecond)
		g.write(g.leader(), "x", "1")
		var orders sync.WaitGroup
		var removed, refused atomic.Int64
		for _, name := range g.names() {
			if name == leader.cfg.Name {
				continue
			}
			// Of three either may go: two answer. Then of the other and the leader
			// only the leader would remain, which is its own majority.
			for range 2 {
				orders.Go(func() {
					switch err := leader.Remove(g.ctx(), name, false); {
					case err == nil:
						removed.Add(1)
					case errors.Is(err, ErrRefused):
						refused.Add(1)
					default:
						t.Errorf("remove %s: %v", name, err)
					}
				})
			}
		}
		orders.Wait()
		if removed.Load() != 2 || refused.Load() != 2 || len(leader.members()) != 1 {
			t.Errorf("%d were removed, %d refused, %v are left", removed.Load(), refused.Load(), leader.members())
		}
	})
}

// One that has just come to lead again knows nothing of how long ago it heard of
// the others.
func TestNewLeaderTakesNobodyForDead(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a", "b", "c")
		leader := g.node(g.leader())
		leader.ledSince.Store(0)
		leader.ledTerm.Store(leader.raft.CurrentTerm() - 1)
		leader.contacts.mu.Lock()
		clear(leader.contacts.members)
		leader.contacts.mu.Unlock()
		for name, silent := range leader.silence() {
			if silent > time.Minute {
				t.Errorf("%s is said to be silent for %v", name, silent)
			}
		}
	})
}
