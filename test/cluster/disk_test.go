//go:build linux

package cluster

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAMemberLosesPower(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{disks: true})
	load := c.load()
	load.goesOn()
	for _, victim := range []func() *member{c.leader, c.follower, c.leader} {
		m := victim()
		m.cutPower()
		load.goesOn()
		m.disk.Mount()
		m.restart()
		c.awaitVoters()
	}
	load.goesOn()
	c.require(load)
}

func TestAllLosePowerAtOnce(t *testing.T) {
	c := form(t, 3, options{disks: true})
	load := c.load()
	for range 2 {
		load.goesOn()
		for _, m := range c.all() {
			m.cutPower()
		}
		for _, m := range c.all() {
			m.disk.Mount()
			m.start()
		}
		for _, m := range c.all() {
			m.ready()
		}
	}
	load.goesOn()
	c.require(load)
}

func TestADiskIsFull(t *testing.T) {
	inFull(t)
	for _, tool := range []string{"unshare", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("a file system of its own needs %s: %v", tool, err)
		}
	}
	c := form(t, 3, options{small: 192 << 20})
	full := c.all()[2]
	load := c.load()
	load.goesOn()

	full.fillDisk()
	load.goesOn()
	if !full.isRunning() {
		t.Fatal("the member has died of its full disk")
	}
	full.freeDisk()
	c.awaitVoters()

	// And once more while it leads, or tries to.
	c.try("cluster", "transfer", full.name)
	full.fillDisk()
	load.goesOn()
	full.freeDisk()
	load.goesOn()
	if !full.isRunning() {
		t.Error("the member has died of its full disk")
	}
	c.require(load)
}

// The state has a disk of its own, which is full while the log's is not: the others
// go on, it says what is wrong, and it has all of it once there is space.
func TestTheDiskOfTheStateIsFull(t *testing.T) {
	inFull(t)
	for _, tool := range []string{"unshare", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("a file system of its own needs %s: %v", tool, err)
		}
	}
	c := form(t, 3, options{small: 32 << 20, smallDir: "state"})
	full := c.all()[2]
	if c.leader() == full {
		c.try("cluster", "transfer", c.all()[0].name)
	}
	load := c.load()
	load.goesOn()
	full.fillDisk()
	c.fill(2_000, 1_000, 1)
	load.goesOn()
	await(t, full.name+" to say that its disk is full", func(ctx context.Context) error {
		out, err := c.commandAt(ctx, full.adminAddress(), "cluster", "status")
		if err == nil && !strings.Contains(out, "its disk is full") {
			err = errors.New(out)
		}
		return err
	})
	full.freeDisk()
	load.goesOn()
	c.awaitVoters()

	// And once more while it leads: another does then.
	c.try("cluster", "transfer", full.name)
	full.fillDisk()
	await(t, "another to lead", func(ctx context.Context) error {
		if c.leader() == full {
			return errors.New("it still leads")
		}
		return nil
	})
	load.goesOn()
	full.freeDisk()
	load.goesOn()
	c.require(load)
	if !full.isRunning() {
		t.Error("the member has died of its full disk")
	}
}

// fillDisk takes all that is left of the space that the member has.
func (m *member) fillDisk() {
	m.c.t.Helper()
	f, err := os.Create(m.inside(filepath.Join(m.spaceAt, "ballast")))
	if err != nil {
		m.c.t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10} {
		piece := make([]byte, size)
		for err = nil; err == nil; {
			_, err = f.Write(piece)
		}
		if !errors.Is(err, unix.ENOSPC) {
			m.c.t.Fatal(err)
		}
	}
}

func (m *member) freeDisk() {
	m.c.t.Helper()
	if err := os.Remove(m.inside(filepath.Join(m.spaceAt, "ballast"))); err != nil {
		m.c.t.Fatal(err)
	}
}
