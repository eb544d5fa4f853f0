//go:build linux

package cluster

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/weirmesh/weir/test/hosts"
)

func TestFormByJoining(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{})
	c.requireQuiet()
	c.requireRoles(map[string]string{"a": "VOTER", "b": "VOTER", "c": "VOTER"})
	load := c.load()
	load.goesOn()
	for _, m := range c.all() { // what they have on disk is all that they need
		m.restart()
	}
	load.goesOn()
	c.require(load)
}

func TestFormAllAtOnce(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{expect: true})
	c.requireQuiet()
	c.requireRoles(map[string]string{"a": "VOTER", "b": "VOTER", "c": "VOTER"})
	load := c.load()
	load.goesOn()
	for _, m := range c.all() {
		m.restart()
	}
	load.goesOn()
	c.require(load)
}

// A founder is killed as soon as it has its certificate, and may not know of the
// others'. When it comes back, they have been started anew, and the first of them has
// to be led by it.
func TestAFounderIsKilledWhileItFounds(t *testing.T) {
	inFull(t)
	h := hosts.New(t, 4)
	c := newCluster(t, h[:3], h[3], options{expect: true})
	keyring := filepath.Join(t.TempDir(), "keyring")
	c.must(c.command("cluster", "keys", "new", keyring))
	c.addMembers(3, keyring)
	late := c.all()[c.random(0).IntN(3)]
	for _, m := range c.all() {
		m.start("--bootstrap-expect", "3", "--join", addresses(m.others()))
	}
	await(t, "a certificate of "+late.name, func(context.Context) error {
		_, err := os.Stat(late.inside("identity/cert.pem"))
		return err
	})
	late.kill()
	for _, m := range late.others() {
		m.ready()
	}
	for _, m := range late.others() {
		m.kill()
	}
	others := late.others()
	late.start()
	others[0].start()
	late.ready()
	others[0].ready()
	others[1].restart()
	c.readAdminEnv(c.withAdminEnv())
	c.awaitVoters()
	load := c.load()
	load.goesOn()
	c.require(load)
}

// requireQuiet demands that nothing was said that an operator would have to look at.
func (c *cluster) requireQuiet() {
	c.t.Helper()
	for _, m := range c.all() {
		for line := range strings.Lines(m.output()) {
			if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
				c.t.Errorf("%s says: %s", m.name, line)
			}
		}
	}
}

// requireRoles waits until the members are these, as an operator is told.
func (c *cluster) requireRoles(want map[string]string) {
	c.t.Helper()
	await(c.t, "members as listed", func(context.Context) error {
		got, err := c.roles()
		if err == nil && !maps.Equal(got, want) {
			err = fmt.Errorf("they are %v, want %v", got, want)
		}
		return err
	})
}

func TestAMemberIsRemovedAndAnotherJoins(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{spares: 1})
	load := c.load()
	load.goesOn()

	gone := c.leader()
	c.forget(gone)
	c.try("cluster", "remove", gone.name)
	load.goesOn()
	gone.kill()
	c.awaitVoters()
	c.newMember(3)
	load.goesOn()

	// The name comes back too, with an empty disk and a new token.
	for i, host := range c.hosts[:3] {
		if host == gone.host {
			c.newMember(i)
		}
	}
	load.goesOn()
	c.require(load)
}

// A server that was removed, and whose process nobody has stopped, says so to
// callers, gives its proxies to the others, and is refused by them; also when it is
// started again, and when it was off while it was removed.
func TestARemovedMemberSaysSo(t *testing.T) {
	inFull(t)
	c := form(t, 4, options{spares: 1})
	load := c.load()
	load.goesOn()
	c.declare("one.example")
	e := c.edge(c.hosts[4])
	e.serves("one.example")

	running := e.server()
	off := running.others()[0]
	if leader := c.leader(); off == leader {
		off = running.others()[1]
	}
	off.kill()
	for _, gone := range []*member{off, running} {
		c.forget(gone)
		c.try("cluster", "remove", gone.name, "--force")
	}
	off.start()
	for _, gone := range []*member{off, running} {
		gone.saysItWasRemoved()
	}
	running.kill()
	running.start()
	running.saysItWasRemoved()
	c.declare("two.example")
	e.serves("two.example")
	load.goesOn()
	c.require(load)
	for _, gone := range []*member{off, running} {
		if !gone.isRunning() {
			t.Errorf("%s has ended: %s", gone.name, gone.output())
		}
		gone.kill()
	}
}

// saysItWasRemoved waits until calls are answered so, and at once.
func (m *member) saysItWasRemoved() {
	m.c.t.Helper()
	await(m.c.t, m.name+" to say that it was removed", func(ctx context.Context) error {
		_, err := m.read(ctx, "any") // no longer than a call may take
		if connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), m.name+" was removed") {
			return fmt.Errorf("it says %v", err)
		}
		return nil
	})
	await(m.c.t, m.name+" to log what to do, once", func(context.Context) error {
		if n := strings.Count(m.run().Output(), "it can only join anew"); n != 1 {
			return fmt.Errorf("it has done so %d times", n)
		}
		return nil
	})
}

func TestADeadMemberIsBuriedAndComesBack(t *testing.T) {
	inFull(t)
	c := form(t, 4, options{flags: []string{"--dead-after", "5s"}})
	load := c.load()
	load.goesOn()

	dead := c.follower()
	dead.kill()
	c.forget(dead)
	c.awaitVoters() // all but it
	load.goesOn()

	c.remember(dead)
	dead.restart()
	load.goesOn()
	c.require(load) // that it votes, too
}

// remember takes a member back into the tests' own list.
func (c *cluster) remember(m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = append(c.members[:len(c.members):len(c.members)], m)
}

func TestANewMemberCatchesUpWhileWritesGoOn(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{spares: 1})
	c.fill(10_000, 0, 1)
	load := c.load()
	load.goesOn()
	c.newMember(3)
	load.goesOn()
	c.awaitVoters()
	load.goesOn()
	c.require(load)
}

func TestFiveMembersServeWithTwoDead(t *testing.T) {
	inFull(t)
	c := form(t, 5, options{})
	load := c.load()
	load.goesOn()
	for range 2 {
		dead := []*member{c.leader(), nil}
		dead[0].kill()
		load.goesOn()
		dead[1] = c.follower()
		dead[1].kill()
		load.goesOn()
		for _, m := range dead {
			m.restart()
		}
	}
	load.goesOn()
	c.require(load)
}
