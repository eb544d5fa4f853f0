//go:build linux

package cluster

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/weirmesh/weir/test/relay"
)

func TestTheLeaderIsInAMinority(t *testing.T) {
	c := form(t, 3, options{})
	load := c.load()
	load.goesOn()
	for range 2 {
		leader := c.leader()
		others := leader.others()
		c.hosts.Partition(names(leader), names(others...)) // clients reach both sides
		c.leaderAmong(others...)
		load.goesOn()
		c.hosts.Heal()
		load.goesOn()
	}
	c.require(load)
}

func TestAFollowerIsCutOff(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{})
	load := c.load()
	load.goesOn()
	for range 2 {
		follower := c.follower()
		c.hosts.Partition(names(follower), names(follower.others()...))
		load.goesOnLong()
		c.hosts.Heal()
		load.goesOn()
	}
	c.require(load)
}

// A one-way cut is worse than a whole one: somebody still hears the leader, or
// still asks for votes.
func TestOneWayCuts(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{})
	load := c.load()
	load.goesOn()
	cuts := []struct {
		name string
		cut  func(leader, other string)
	}{
		{"nobody hears the leader", func(leader, other string) { c.hosts.CutOneWay(leader, other) }},
		{"the leader hears nobody", func(leader, other string) { c.hosts.CutOneWay(other, leader) }},
	}
	for _, way := range cuts {
		t.Log(way.name)
		leader := c.leader()
		for _, other := range leader.others() {
			way.cut(leader.name, other.name)
		}
		load.goesOnLong()
		c.hosts.Heal()
		load.goesOn()

		t.Log(way.name, "but one")
		leader, other := c.leader(), c.follower()
		way.cut(leader.name, other.name)
		load.goesOnLong()
		c.hosts.Heal()
		load.goesOn()
	}
	c.require(load)
}

func TestAMajorityIsLostAndComesBack(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{})
	load := c.load()
	load.goesOn()
	c.hosts.Partition([]string{"a"}, []string{"b"}, []string{"c"})
	c.requireNoMajority()
	c.hosts.Heal()
	load.goesOn()

	leader := c.leader()
	lost := leader.others()
	for _, m := range lost {
		m.kill()
	}
	c.requireNoMajority()
	for _, m := range lost {
		m.start()
	}
	for _, m := range lost {
		m.ready()
	}
	load.goesOn()
	c.require(load)
}

// requireNoMajority waits until writes fail at all members that run, which
// still answer for their own state.
func (c *cluster) requireNoMajority() {
	c.t.Helper()
	for _, m := range c.running() {
		await(c.t, "writes to fail at "+m.name, func(ctx context.Context) error {
			if err := m.write(ctx, "no-majority", "", 0); err == nil {
				return errors.New("it was written")
			}
			_, err := m.list(ctx, true)
			return err
		})
	}
}

func TestAFifthOfThePacketsIsLost(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{})
	load := c.load()
	load.goesOn()
	c.hosts.Loss(c.follower().name, 20)
	load.goesOnLong()
	c.hosts.Heal()
	c.hosts.Loss(c.leader().name, 20)
	load.goesOnLong()
	c.hosts.Heal()
	load.goesOn()
	c.require(load)
}

// So much has been written that the log no longer begins at its beginning, and
// the line is so narrow that the snapshot takes many heartbeats.
func TestASnapshotOverANarrowLine(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{spares: 1})
	c.fill(200, 20_000, 36)
	load := c.load()
	load.goesOn()
	c.hosts.Narrow(c.hosts[3].Name, 2<<20)
	newcomer := c.newMember(3)
	c.awaitVoters()
	load.goesOn()
	c.hosts.Heal()
	if found, err := filepath.Glob(filepath.Join(newcomer.data, "raft", "snapshots", "*")); len(found) == 0 {
		t.Errorf("the newcomer was sent no snapshot (%v)", err)
	}
	c.require(load)
}

func TestPacketsAreLateAndOutOfOrder(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{relayed: true})
	load := c.load()
	load.goesOn()
	for _, r := range c.relays {
		r.udp.Set(relay.Conditions{Delay: 5 * time.Millisecond, Jitter: 15 * time.Millisecond, Reorder: 0.1, Duplicate: 0.05, Drop: 0.02})
		r.tcp.SetDelay(5*time.Millisecond, 15*time.Millisecond)
	}
	load.goesOnLong()
	leader := c.leader()
	leader.kill()
	load.goesOn()
	leader.restart()
	load.goesOn()
	for _, r := range c.relays {
		r.udp.Set(relay.Conditions{})
		r.tcp.SetDelay(0, 0)
	}
	c.require(load)
}

func TestUDPIsBlockedAndComesBack(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{})
	load := c.load()
	load.goesOn()
	c.hosts.BlockUDP(c.follower().name)
	load.goesOnLong()
	for _, m := range c.all() {
		c.hosts.BlockUDP(m.name)
	}
	load.goesOnLong()
	leader := c.leader()
	leader.kill()
	load.goesOn()
	leader.restart() // and is found by TCP alone
	c.awaitVoters()
	load.goesOn()
	c.hosts.Heal()
	load.goesOn()
	c.require(load)
}

func TestMembersMoveToOtherAddresses(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{})
	load := c.load()
	load.goesOn()

	moved := c.leader()
	moved.kill()
	c.hosts.ChangeAddress(moved.name)
	moved.restart()
	c.awaitVoters()
	load.goesOn()

	for _, m := range c.all() {
		m.kill()
		c.hosts.ChangeAddress(m.name)
	}
	for _, m := range c.all() { // nobody knows where another is, unless told
		m.start("--join", c.all()[0].address()+","+c.all()[1].address())
	}
	for _, m := range c.all() {
		m.ready()
	}
	load.goesOn()
	c.require(load)
}
