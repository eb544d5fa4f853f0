//go:build linux

package cluster

import (
	"errors"
	"os"
	"os/exec"
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

// fillDisk takes all that is left of the space that the member has.
func (m *member) fillDisk() {
	m.c.t.Helper()
	f, err := os.Create(m.inside("ballast"))
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
	if err := os.Remove(m.inside("ballast")); err != nil {
		m.c.t.Fatal(err)
	}
}
