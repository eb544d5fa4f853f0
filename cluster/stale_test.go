package cluster

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// TestAnswerFromBeforeConfirmsNoRead: a leader whose clock stands still, so that
// its lease does not run out, has asked a follower whether it still leads. The
// answer is under way when the leader is cut off and another is elected, and
// arrives after a read has begun. Raft's VerifyLeader is content with it; the
// read must not be.
func TestAnswerFromBeforeConfirmsNoRead(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, func(c *Config) {
			// b never stands for election before c: it has no streams to a.
			c.Election = map[string]time.Duration{"a": time.Minute, "b": 300 * time.Millisecond, "c": 100 * time.Millisecond}[c.Name]
		})
		g.found("b", "c", "a")
		if err := g.node("b").Transfer(g.ctx(), "a"); err != nil {
			t.Fatal(err)
		}
		a := g.node("a")
		g.eventually("a leads", a.leads)
		g.write("a", "x", "old")
		if got := g.read("a", "x"); got != "old" { // opens the streams
			t.Fatalf("a reads %q", got)
		}
		time.Sleep(50 * time.Millisecond) // one of the two was enough for it

		g.net.Cut("a", "c")
		g.net.Cut("c", "a")
		g.net.Cut("b", "a")
		before := a.raft.VerifyLeader() // b gets it, and its answer is held
		time.Sleep(20 * time.Millisecond)
		g.net.Cut("a", "b")
		g.eventually("b follows another", func() bool { l := g.node("b").Status().Leader; return l == "b" || l == "c" })
		g.write("b", "x", "new")

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		read := make(chan error, 1)
		go func() { read <- a.ReadBarrier(ctx) }()
		plain := a.raft.VerifyLeader()
		synctest.Wait() // both wait
		g.net.Mend("b", "a")
		if err := errors.Join(before.Error(), plain.Error()); err != nil || a.raft.State() != raft.Leader {
			t.Fatalf("the test does not make the hazard: VerifyLeader says %v, a is %v", err, a.raft.State())
		}
		if err := <-read; err == nil && g.members["a"].sm.get("x") != "new" {
			t.Fatalf("a read was confirmed, and is %q", g.members["a"].sm.get("x"))
		}
		g.net.Heal()
		if got := g.read("a", "x"); got != "new" {
			t.Errorf("a reads %q in the end", got)
		}
	})
}
