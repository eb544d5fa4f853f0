package cluster

import (
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// disks say how much space is left on the disk of each member.
type disks struct {
	mu   sync.Mutex
	full map[string]bool
}

func (d *disks) set(name string, full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full[name] = full
}

func (d *disks) adjust(c *Config) {
	c.Reserve = 1000
	c.free = func(dir string) (int64, bool) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.full[filepath.Base(dir)] {
			return 999, true
		}
		return 1000, true
	}
}

func TestFullDisk(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d := &disks{full: map[string]bool{}}
		g := newGroup(t, 1, d.adjust)
		g.found("a", "b", "c")
		full := g.leader()
		other := g.follower()
		d.set(full, true)
		// The others go on.
		g.write(other, "x", "1")
		g.eventually("it has noticed", func() bool { return g.node(full).Status().Full })
		g.eventually("another leads", func() bool { return g.leader() != full })
		_, err := g.node(full).Propose(g.ctx(), put("x", "2"))
		requireError(t, err, ErrNoSpace, ErrUnknown)
		if got := g.read(other, "x"); got != "1" {
			t.Errorf("what was refused for want of space was done: %q", got)
		}
		d.set(full, false)
		g.eventually("it has noticed", func() bool { return !g.node(full).Status().Full })
		g.write(full, "x", "3")
		g.converge()
	})
}

func TestFullDiskOfAMemberAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d := &disks{full: map[string]bool{}}
		g := newGroup(t, 1, d.adjust)
		g.found("a")
		d.set("a", true)
		for range 3 {
			_, err := g.node("a").Propose(g.ctx(), put("x", "1"))
			requireError(t, err, ErrNoSpace, ErrUnknown)
			time.Sleep(time.Second)
		}
		if got := g.members["a"].sm.get("founded"); got != "yes" {
			t.Errorf("it cannot be read: %q", got)
		}
		d.set("a", false)
		g.eventually("it has noticed", func() bool { return !g.node("a").Status().Full })
		g.write("a", "x", "2")
	})
}
