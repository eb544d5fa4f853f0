//go:build linux

package cluster

import "testing"

func TestTheLeaderIsKilledAgainAndAgain(t *testing.T) {
	c := form(t, 3, options{})
	load := c.load()
	load.goesOn()
	for range 3 {
		leader := c.leader()
		leader.kill()
		load.goesOn()
		leader.restart()
		c.awaitVoters()
	}
	load.goesOn()
	c.require(load)
}

func TestFollowersAreKilled(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{})
	load := c.load()
	load.goesOn()
	for range 3 {
		follower := c.follower()
		follower.kill()
		load.goesOn()
		follower.restart()
	}
	load.goesOn()
	c.require(load)
}

func TestAllAreKilled(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{})
	load := c.load()
	for range 2 {
		load.goesOn()
		for _, m := range c.all() {
			m.kill()
		}
		for _, m := range c.all() {
			m.start()
		}
	}
	for _, m := range c.all() {
		m.ready()
	}
	load.goesOn()
	c.require(load)
}

func TestTheLeaderIsPaused(t *testing.T) {
	c := form(t, 3, options{})
	load := c.load()
	load.goesOn()
	for range 2 {
		leader := c.leader()
		leader.pause()
		c.leaderAmong(leader.others()...) // as the paused one does not know
		load.goesOn()
		leader.resume() // and answers first what it was asked before
		load.goesOn()
	}
	c.require(load)
}

func TestAFollowerIsPaused(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{})
	load := c.load()
	load.goesOn()
	for range 2 {
		follower := c.follower()
		follower.pause()
		load.goesOnLong()
		follower.resume()
		load.goesOn()
	}
	c.require(load)
}

func TestMembersAreStoppedAsPlanned(t *testing.T) {
	c := form(t, 3, options{})
	load := c.load()
	load.goesOn()
	for range 2 {
		leader := c.leader()
		leader.stop()
		load.goesOn()
		leader.restart()
	}
	follower := c.follower()
	follower.stop()
	load.goesOn()
	follower.restart()
	load.goesOn()
	c.require(load)
}

func TestLeadershipIsTransferred(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{})
	load := c.load()
	load.goesOn()
	for range 3 {
		to := c.follower()
		c.try("cluster", "transfer", to.name)
		if got := c.leader(); got != to {
			t.Logf("%s leads, not %s: somebody else may have been elected since", got.name, to.name)
		}
		load.goesOn()
	}
	c.try("cluster", "transfer")
	load.goesOn()
	c.require(load)
}
