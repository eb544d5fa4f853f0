package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestJoining(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a")
		for _, name := range []string{"b", "c"} {
			m := g.add(name, nil)
			if s := m.node.Status(); !s.Waiting || s.State != "FOLLOWER" {
				t.Errorf("before it joined: %+v", s)
			}
			for range 2 { // once more does no harm
				if err := m.node.Join(g.ctx(), []string{"nowhere:1", address("a")}); err != nil {
					t.Fatal(err)
				}
			}
			g.eventually(name+" votes", func() bool { return g.role(name) == Voter })
			g.write(name, "from", name)
		}
		// By a member that does not lead.
		g.eventually("a leads", func() bool { return g.leader() == "a" })
		d := g.add("d", nil)
		if err := d.node.Join(g.ctx(), []string{address("b")}); err != nil {
			t.Fatal(err)
		}
		if got := g.read("d", "from"); got != "c" {
			t.Errorf("d reads %q", got)
		}
		g.kill("a")
		g.eventually("d votes after another took over", func() bool { return g.role("d") == Voter })
		g.start("a")
		g.converge()
	})
}

func TestWaitingMemberKeepsWaitingAfterARestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a")
		g.add("b", nil)
		g.stop("b")
		g.members["b"].cfg.Existing = true
		b := g.start("b")
		if err := b.Join(g.ctx(), []string{address("a")}); err != nil {
			t.Fatal(err)
		}
		g.eventually("b votes", func() bool { return g.role("b") == Voter })
	})
}

func TestAddressesMayChange(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a", "b", "c")
		// Of one.
		{
			g.stop("b")
			g.members["b"].cfg.Address = "b:7999"
			g.start("b")
			if got := g.read("b", "founded"); got != "yes" {
				t.Errorf("b reads %q", got)
			}
			g.eventually("a has heard of it", func() bool {
				for _, m := range g.node("a").Status().Members {
					if m.Name == "b" {
						return m.Address == "b:7999"
					}
				}
				return false
			})
		}
		// Of all at once.
		{
			for _, name := range g.names() {
				g.stop(name)
			}
			for _, name := range g.names() {
				m := g.members[name]
				m.cfg.Address, m.cfg.Seeds = "new-"+name+":1", []string{"new-c:1"}
				g.start(name)
			}
			g.write("a", "moved", "yes")
			g.converge()
		}
	})
}

// admission is what the owner of a cluster remembers of whom he removed.
type admission struct{ banned map[string]bool }

var errBanned = errors.New("an operator removed it")

func (a *admission) admit(_ context.Context, name string) error {
	if a.banned[name] {
		return errBanned
	}
	return nil
}

func TestRemoving(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &admission{banned: map[string]bool{}}
		g := newGroup(t, 1, func(c *Config) { c.Admit = a.admit })
		g.found("a", "b", "c", "d")
		gone := g.follower()
		a.banned[gone] = true
		if err := g.node(gone).Remove(g.ctx(), gone, false); err != nil {
			t.Fatal(err)
		}
		g.eventually("it knows", func() bool {
			s := g.node(gone).Status()
			return s.Removed && s.Refused != "" && s.State == "FOLLOWER"
		})
		for what, call := range map[string]func() error{
			"propose":  func() error { _, err := g.node(gone).Propose(g.ctx(), key("k")); return err },
			"read":     func() error { return g.node(gone).ReadBarrier(g.ctx()) },
			"transfer": func() error { return g.node(gone).Transfer(g.ctx(), "") },
		} {
			begun := time.Now()
			err := call()
			if took := time.Since(begun); !errors.Is(err, ErrRemoved) || !strings.Contains(err.Error(), errBanned.Error()) || took > time.Second {
				t.Errorf("%s: %v after %s", what, err, took)
			}
		}
		time.Sleep(5 * time.Second)
		if role := g.role(gone); role != "" {
			t.Errorf("it is %s again", role)
		}
		if err := g.node(gone).Join(g.ctx(), []string{address(g.leader())}); !errors.Is(err, ErrRefused) {
			t.Errorf("joining again: %v", err)
		}
		delete(a.banned, gone)
		if err := g.node(gone).Join(g.ctx(), []string{address(g.leader())}); err != nil {
			t.Fatal(err)
		}
		g.eventually("it votes again", func() bool { return g.role(gone) == Voter })

		// The leader.
		{
			was := g.leader()
			a.banned[was] = true
			if err := g.node(was).Remove(g.ctx(), was, false); err != nil {
				t.Fatal(err)
			}
			g.eventually("another leads without it", func() bool { return g.leader() != was && g.role(was) == "" })
			g.stop(was)
		}
		// Not below a majority that is alive.
		{
			g.stop(g.follower())
			g.write(g.leader(), "x", "1")
			time.Sleep(5 * time.Second)
			other := g.follower()
			if err := g.node(other).Remove(g.ctx(), other, false); !errors.Is(err, ErrRefused) {
				t.Errorf("error is %v", err)
			}
		}
		// Who is none.
		{
			if err := g.node(g.leader()).Remove(g.ctx(), "nobody", true); !errors.Is(err, ErrRefused) {
				t.Errorf("error is %v", err)
			}
		}
	})
}

func TestDeadMembersAreRemovedAndComeBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, func(c *Config) { c.DeadAfter = 6 * time.Second })
		g.found("a", "b", "c", "d")
		dead := g.follower()
		g.kill(dead)
		g.eventually("it is removed", func() bool { return g.role(dead) == "" })
		second := g.follower()
		g.kill(second)
		time.Sleep(12 * time.Second)
		if g.role(second) != Voter {
			t.Error("three voters became two")
		}
		// It does not know what happened, and asks by itself.
		g.start(dead)
		g.eventually("it is back", func() bool { return g.role(dead) == Voter })
		g.start(second)
		g.converge()
	})
}

func TestHandingOver(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a", "b", "c")
		for _, to := range []string{"a", "b", "c", ""} {
			was := g.leader()
			if err := g.node("b").Transfer(g.ctx(), to); err != nil {
				t.Fatal(err)
			}
			g.eventually("it leads", func() bool {
				is := g.leader()
				return is == to || to == "" && is != was
			})
		}
		if err := g.node("a").Transfer(g.ctx(), "nobody"); !errors.Is(err, ErrRefused) {
			t.Errorf("error is %v", err)
		}
		// A leader that stops leaves no time without one.
		leader := g.leader()
		other := g.follower()
		began := time.Now()
		g.stop(leader)
		g.write(other, "x", "1")
		if took := time.Since(began); took > g.members[other].cfg.withDefaults().Election {
			t.Errorf("the next write took %v", took)
		}
	})
}

func TestLeaderThatHasOnlyJustBegunHandsOver(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a", "b", "c")
		g.net.SetDelay(2 * time.Millisecond)
		was, next := g.leader(), g.follower()
		transferred := make(chan error, 1)
		go func() { transferred <- g.node(was).Transfer(g.ctx(), next) }()
		for !g.node(next).leads() {
			time.Sleep(100 * time.Microsecond)
		}
		if best := g.node(next).best(); best != "" {
			t.Fatalf("the test does not make the hazard: %s has answered", best)
		}
		began := time.Now()
		g.stop(next)
		if err := <-transferred; err != nil {
			t.Fatal(err)
		}
		g.write(was, "x", "1")
		if took := time.Since(began); took > g.members[was].cfg.withDefaults().Election {
			t.Errorf("the next write took %v", took)
		}
	})
}

func TestCommandsWaitUntilAllUnderstandThem(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a", "b")
		leader := g.node(g.leader())
		c := g.add("c", func(c *Config) { c.Newest = 20 })
		if err := c.node.Join(g.ctx(), []string{address("a")}); err != nil {
			t.Fatal(err)
		}
		p := &proposal{kind: 20, done: make(chan outcome, 1)}
		if leader.understood(p) {
			t.Fatal("a command was taken that two members do not know")
		}
		out := <-p.done
		requireError(t, out.err, ErrTooNew)
		if want := "a, b must be upgraded first"; !contains(out.err.Error(), want) {
			t.Errorf("error is %q, want %q", out.err, want)
		}
		for _, name := range []string{"a", "b"} {
			g.stop(name)
			g.members[name].cfg.Newest = 20
			g.start(name)
			g.leader()
		}
		g.eventually("all say so", func() bool {
			return g.node(g.leader()).understood(&proposal{kind: 20, done: make(chan outcome, 1)})
		})
		d := g.add("d", nil)
		if err := d.node.Join(g.ctx(), []string{address("a")}); !errors.Is(err, ErrRefused) {
			t.Errorf("a member that lags joined: %v", err)
		}
	})
}
