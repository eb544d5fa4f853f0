//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestANewClusterBeginsWithABackup(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{spares: 3})
	c.fill(2_000, 100, 1)
	load := c.load()
	load.goesOn()
	before := load.acknowledgedKeys()
	file := filepath.Join(t.TempDir(), "backup")
	c.must(c.command("cluster", "backup", file))
	load.goesOn()
	c.require(load)
	for _, m := range c.all() {
		m.stop()
	}

	// What seals a backup is kept apart from it.
	keyring := filepath.Join(c.all()[0].data, "keyring")
	restored := newCluster(t, c.hosts[3:6], c.outside, options{})
	restored.addMembers(1, keyring)
	restored.token, restored.ca = c.token, c.ca // which the state holds
	restored.loads = c.loads                    // so are the keys of the first
	first := restored.members[0]
	restored.must(restored.command("cluster", "recover", "--name", first.name, "--data", first.data, "--from", file))
	first.start()
	first.ready()
	operator := restored.token
	restored.readAdminEnv(first) // the first start leaves one anew
	if restored.token == operator {
		t.Error("admin.env has no token of its own")
	}
	restored.newMember(1)
	restored.newMember(2)
	restored.awaitVoters()
	restored.requireKeys(before)
	again := restored.load()
	again.goesOn()
	restored.require(again)
}

// A cluster goes back to what it was, while its members run: what came after the
// backup is gone, proxies follow, and no revision is given twice.
func TestABackupIsRestoredOntoItsOwnCluster(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{spares: 2})
	c.declare("one.example")
	connected, off := c.edge(c.hosts[3]), c.edge(c.hosts[4])
	kept := c.load()
	kept.goesOn()
	c.require(kept)
	file := filepath.Join(t.TempDir(), "backup")
	c.must(c.command("cluster", "backup", file))

	undone := c.load()
	undone.goesOn()
	c.require(undone) // so that nobody writes while what was written is taken back
	c.declare("two.example")
	connected.serves("two.example")
	off.serves("two.example")
	off.process.Kill9()
	if _, err := c.command("cluster", "restore", file); err == nil {
		t.Error("what is declared was replaced without --force")
	}
	newest := c.revision()
	c.try("cluster", "restore", "--force", file)
	c.requireRestored(kept, undone)
	connected.serves("one.example")
	off.process.Restart()
	off.ready()
	off.serves("one.example") // though its cache has what is of a greater revision

	for _, m := range c.all() { // what they have on disk is what was restored
		m.restart()
	}
	c.requireRestored(kept, undone)
	again := c.load()
	again.goesOn()
	c.require(again)
	if after := c.revision(); after <= newest {
		t.Errorf("the revision is %d, and was %d before the restore", after, newest)
	}
	c.declare("three.example")
	connected.serves("three.example")
	off.serves("three.example")
}

// requireRestored waits until every member has what was there at the backup, and
// nothing that came after it.
func (c *cluster) requireRestored(kept, undone *load) {
	c.t.Helper()
	c.requireKeys(kept.acknowledgedKeys())
	c.requireNoKeys(undone.acknowledgedKeys())
}

// requireKeys waits until every member has all of these by its own state.
func (c *cluster) requireKeys(want map[string]string) {
	c.t.Helper()
	for _, m := range c.all() {
		await(c.t, "what was acknowledged, at "+m.name, func(ctx context.Context) error {
			found, err := m.list(ctx, true)
			if err != nil {
				return err
			}
			for key, value := range want {
				if found[key].value != value {
					return fmt.Errorf("%s is %q, want %q (%d keys are there)", key, found[key].value, value, len(found))
				}
			}
			return nil
		})
	}
}

// requireNoKeys waits until no member has any of these by its own state.
func (c *cluster) requireNoKeys(gone map[string]string) {
	c.t.Helper()
	for _, m := range c.all() {
		await(c.t, "what was taken back to be gone, at "+m.name, func(ctx context.Context) error {
			found, err := m.list(ctx, true)
			for key := range gone {
				if err == nil && found[key].revision != 0 {
					err = fmt.Errorf("%s is still there", key)
				}
			}
			return err
		})
	}
}

// revision is the newest that the leader has.
func (c *cluster) revision() (revision uint64) {
	c.t.Helper()
	await(c.t, "the revision", func(ctx context.Context) error {
		status, err := c.leader().status(ctx)
		revision = status.GetRevision()
		return err
	})
	return revision
}

// acknowledgedKeys are those that nobody writes to again.
func (l *load) acknowledgedKeys() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.created)
}

func TestOneSurvivorOfThreeRecoversTheCluster(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{spares: 2})
	load := c.load()
	load.goesOn()
	c.require(load) // so that the survivor has all of it

	survivor := c.follower()
	for _, m := range c.all() {
		m.kill()
		if m != survivor {
			c.forget(m)
		}
	}
	c.must(c.command("cluster", "recover", "--data", survivor.data))
	survivor.restart()
	c.awaitVoters()
	c.requireKeys(load.acknowledgedKeys())
	c.newMember(3)
	c.newMember(4)
	again := c.load()
	again.goesOn()
	c.require(again)
}

func TestKeysAndRootAreRotatedUnderLoad(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{spares: 2})
	load := c.load()
	load.goesOn()
	c.declare("one.example")
	e := c.edge(c.hosts[3])
	e.serves("one.example")

	c.try("cluster", "keys", "rotate")
	load.goesOn()
	c.try("cluster", "keys", "rotate-root")
	load.goesOn()
	for _, m := range c.all() {
		m.restart()
		c.readRoots(m)
		load.goesOn()
	}
	c.newMember(4)
	load.goesOn()
	c.declare("two.example")
	e.serves("two.example")
	c.rotated()
	c.require(load)
}

// rotated waits until no rotation is under way any more: edges are asked to renew.
func (c *cluster) rotated() {
	c.t.Helper()
	await(c.t, "the end of the rotations", func(context.Context) error {
		out, err := c.command("cluster", "keys", "list")
		if err == nil && strings.Contains(out, "Waiting for") {
			err = errors.New(out)
		}
		return err
	})
}

// readRoots learns what clients are to trust now, from a member's directory.
func (c *cluster) readRoots(m *member) {
	c.t.Helper()
	if _, err := os.Stat(filepath.Join(m.data, "admin.env")); err == nil {
		c.readAdminEnv(m)
	}
}
