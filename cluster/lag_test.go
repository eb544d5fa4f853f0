package cluster

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Cases in which a member and its leader are so far apart that a snapshot comes
// between them. Left alone, Raft asks such a member for what it has not, for
// ever.

// apart is a group in which hardly any log stays behind a snapshot.
func apart(t *testing.T) *group {
	g := newGroup(t, 1, func(c *Config) { c.trail = 1 })
	g.found("a", "b", "c")
	return g
}

// writeAll writes so many values at a member.
func (g *group) writeAll(at string, from, to int) {
	g.t.Helper()
	for i := from; i < to; i++ {
		g.write(at, fmt.Sprint("key ", i), fmt.Sprint("value ", i))
	}
}

func (g *group) snapshot(name string) {
	g.t.Helper()
	if err := g.node(name).Snapshot(); err != nil {
		g.t.Fatal(err)
	}
}

// forge adds entries to the log of a member that does not run, as if it had led
// and nobody had heard of it.
func (g *group) forge(name string, count int) {
	g.t.Helper()
	log, err := openLog(g.members[name].cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	defer log.Close()
	last, err := log.LastIndex()
	if err != nil {
		g.t.Fatal(err)
	}
	term, err := log.GetUint64([]byte("CurrentTerm"))
	if err != nil {
		g.t.Fatal(err)
	}
	for i := range uint64(count) {
		if err := log.StoreLog(&raft.Log{Index: last + 1 + i, Term: term, Type: raft.LogCommand, Data: []byte("nobody has agreed")}); err != nil {
			g.t.Fatal(err)
		}
	}
}

// A member led, and was cut off with entries that nobody else has. The others
// went on, and their log no longer reaches back to where it parted from theirs.
func TestSnapshotReplacesEntriesThatOthersDoNotHave(t *testing.T) {
	for name, extra := range map[string]int{"fewer than the snapshot holds": 1, "as many": 3, "one more": 4, "many more": 200} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g := apart(t)
				cut := g.leader()
				g.kill(cut)
				g.forge(cut, extra)
				leader := g.leader() // its first two entries are Raft's and its own
				g.writeAll(leader, 0, 1)
				g.snapshot(leader)
				g.start(cut)
				g.requireFollows(cut)
				// And it can do without the others' disks.
				g.kill(cut)
				g.start(cut)
				g.requireFollows(cut)
			})
		})
	}
}

// What a member stored is acknowledged late. Meanwhile it took a snapshot, and
// its log no longer reaches back to what the leader knows of it.
func TestMemberHasLessLogThanItsLeaderThinks(t *testing.T) {
	for name, leaderSnapshot := range map[string]bool{"the leader has all of its log": false, "the leader has an older snapshot": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g := apart(t)
				leader, far := g.leader(), g.follower()
				for i := range 10 {
					g.writeAll(leader, i, i+1)
					g.eventually("all have it", func() bool { return g.members[far].sm.get(fmt.Sprint("key ", i)) != "" })
					if leaderSnapshot && i == 5 {
						g.snapshot(leader)
					}
				}
				g.net.Cut(far, leader) // what it says is not heard
				g.writeAll(leader, 10, 14)
				g.eventually("it has applied what it was sent", func() bool { return g.members[far].sm.get("key 10") != "" })
				g.snapshot(far)
				g.net.Break(far) // and never will be
				g.net.Heal()
				g.requireFollows(far)
				if sm := g.members[far].sm; sm.wentBack() {
					t.Error("it took over a state that it had been past")
				}
			})
		})
	}
}

// requireFollows waits until a member has what is written at another, without
// being sent snapshots over and over.
func (g *group) requireFollows(name string) {
	g.t.Helper()
	names := slices.DeleteFunc(g.names(), func(n string) bool { return n == name || g.node(n) == nil })
	key := fmt.Sprint("follow ", time.Now().UnixNano())
	g.write(names[0], key, "yes")
	g.eventually(name+" follows", func() bool { return g.members[name].sm.get(key) == "yes" })
	before := g.members[name].sm.restores()
	for i := range 5 {
		g.write(names[0], key, fmt.Sprint(i))
		g.eventually(name+" follows", func() bool { return g.members[name].sm.get(key) == fmt.Sprint(i) })
	}
	if n := g.members[name].sm.restores() - before; n > 0 {
		g.t.Errorf("%s was sent %d snapshots for five writes", name, n)
	}
}
