package testcluster

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/internal/memnet"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/store"
)

// Cluster is several members on a network in memory.
//
//	c := testcluster.StartCluster(t, 3)
//	c.Partition(c.Leader())
//	c.Apply(route)
//	c.Heal()
//	c.RequireConverged()
type Cluster struct {
	// Net is the network, for faults of a finer kind.
	Net *memnet.Net

	t       testing.TB
	dir     string
	founded []cluster.Member
	members map[string]*running
	// cut are the members that Partition has cut off.
	cut map[string]bool
}

// running is a member, and its place in the network.
type running struct {
	*Member
	host    *memnet.Host
	stopped bool
}

const (
	// patience bounds what must come about.
	patience = 2 * time.Minute
	// election is longer than in production: on a machine that runs many tests
	// at once a healthy member may not answer for half a second.
	election = 1500 * time.Millisecond
)

// Names are what the first members are called, in their order.
func Names(members int) (names []string) {
	for i := range members {
		names = append(names, fmt.Sprint("s", i+1))
	}
	return names
}

func address(name string) string { return name + ":7400" }

// StartCluster runs a cluster of so many voters, until the test ends.
func StartCluster(t testing.TB, members int) *Cluster {
	t.Helper()
	c := &Cluster{
		Net: memnet.New(1), t: t, dir: t.TempDir(),
		members: map[string]*running{}, cut: map[string]bool{},
	}
	t.Cleanup(func() {
		c.Net.Heal()
		for name := range c.members {
			c.Stop(name)
		}
	})
	for _, name := range Names(members) {
		c.founded = append(c.founded, cluster.Member{Name: name, Address: address(name)})
	}
	for _, m := range c.founded {
		c.start(m.Name, c.founded)
	}
	c.Leader()
	return c
}

func (c *Cluster) start(name string, found []cluster.Member) {
	c.t.Helper()
	host := c.Net.Host(name, address(name))
	m, err := open(filepath.Join(c.dir, name), cluster.Config{
		Name: name, Address: address(name), Network: host, Found: found, Election: election,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.members[name] = &running{Member: m, host: host}
}

// Member is the store and the node of a member.
func (c *Cluster) Member(name string) *Member {
	c.t.Helper()
	m := c.members[name]
	if m == nil || m.stopped {
		c.t.Fatalf("there is no member %s that runs", name)
	}
	return m.Member
}

// Join starts a new member and has it let in.
func (c *Cluster) Join(name string) *Member {
	c.t.Helper()
	seed := address(c.Leader())
	c.start(name, nil)
	if err := c.Member(name).Node.Join(c.t.Context(), []string{seed}); err != nil {
		c.t.Fatal(err)
	}
	return c.Member(name)
}

// Stop ends a member in order.
func (c *Cluster) Stop(name string) {
	c.t.Helper()
	m := c.members[name]
	if m.stopped {
		return
	}
	m.stopped = true
	if err := errors.Join(m.Close(), m.host.Close()); err != nil {
		c.t.Error(err)
	}
}

// Restart starts a member from its directory; it is stopped first if it runs.
func (c *Cluster) Restart(name string) {
	c.t.Helper()
	c.Stop(name)
	c.start(name, nil)
}

// Partition cuts a member off from all others. More than one that is cut off
// are so from each other too.
func (c *Cluster) Partition(name string) {
	c.cut[name] = true
	c.Net.Isolate(name)
}

// Heal ends all partitions.
func (c *Cluster) Heal() {
	clear(c.cut)
	c.Net.Heal()
}

// Leader waits until those who run and are not cut off know one leader among
// themselves, and returns its name.
func (c *Cluster) Leader() string {
	c.t.Helper()
	var leader string
	c.eventually("all know one leader", func() bool {
		leader = ""
		for name, m := range c.members {
			if m.stopped || c.cut[name] {
				continue
			}
			is := m.Node.Status().Leader
			if is == "" || c.cut[is] || leader != "" && is != leader || c.members[is] == nil || c.members[is].stopped {
				return false
			}
			leader = is
		}
		return leader != "" && c.members[leader].Node.Status().State == "LEADER"
	})
	return leader
}

// Apply puts resources at the leader, which must accept them.
func (c *Cluster) Apply(puts ...*weirv1.Resource) *weirv1.ApplyResponse {
	c.t.Helper()
	return c.Member(c.Leader()).Apply(c.t, puts...)
}

// RequireConverged waits until all who run hold the same state, byte for byte.
func (c *Cluster) RequireConverged() {
	c.t.Helper()
	leader := c.Member(c.Leader())
	if err := leader.Node.ReadBarrier(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	applied := leader.Store.Applied()
	c.eventually("all hold the same state", func() bool {
		want := c.state(leader.Store)
		for _, m := range c.members {
			if !m.stopped && (m.Store.Applied() < applied || !bytes.Equal(c.state(m.Store), want)) {
				return false
			}
		}
		return true
	})
}

func (c *Cluster) state(s *store.Store) []byte {
	c.t.Helper()
	write, release, err := s.Snapshot()
	if err != nil {
		c.t.Fatal(err)
	}
	defer release()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		c.t.Fatal(err)
	}
	return b.Bytes()
}

func (c *Cluster) eventually(what string, is func() bool) {
	c.t.Helper()
	for began := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > patience {
			for name, m := range c.members {
				if !m.stopped {
					c.t.Logf("%s: %+v", name, m.Node.Status())
				}
			}
			c.t.Fatalf("never: %s", what)
		}
	}
}
