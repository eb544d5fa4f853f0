//go:build linux

package powercut

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Options of a disk. The zero value is the strictest disk.
type Options struct {
	// Seed decides what survives of what was not synced.
	Seed uint64
	// LoseAll lets nothing survive that was not synced.
	LoseAll bool
	// Journal relaxes the rules for names to those of a file system with an
	// ordered journal: see the package comment.
	Journal bool
	// SyncTime is how long a sync takes, and how long it can still fail.
	SyncTime time.Duration
}

// A Report says what a cut did to what was not synced.
type Report struct {
	LostPages, KeptPages int
	LostNames, KeptNames int // changes of names: create, rename, link, remove
	LostAttributes       int // files and directories whose size, mode or time went back
}

// A Disk is one directory with a power switch.
type Disk struct {
	t       testing.TB
	dir     string
	options Options

	mu     sync.Mutex // guards all below, and the volume
	volume *volume
	random *rand.Rand
	mount  *mount // nil while it has no power
}

// New makes an empty disk, mounted, for as long as the test runs. It skips the
// test where the machine does not let it mount.
func New(t testing.TB, options Options) *Disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("powercut: mounting needs root")
	}
	if err := sweep(); err != nil {
		t.Logf("powercut: unmount what earlier runs left: %v", err)
	}
	d := &Disk{
		t: t, dir: t.TempDir(), options: options,
		volume: newVolume(options.Journal),
		random: rand.New(rand.NewPCG(options.Seed, 0)),
	}
	err := d.base()
	if err == nil {
		err = d.attach()
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		t.Skipf("powercut: no FUSE on this machine: %v", err)
	}
	if err != nil {
		t.Fatalf("powercut: %v", err)
	}
	t.Cleanup(func() { d.detach(func() {}) })
	return d
}

// base puts something below the disk that cannot be written to, so that what
// runs while the disk has no power does not find a directory to use.
func (d *Disk) base() error {
	if err := unix.Mount(source(), d.dir, "tmpfs", unix.MS_RDONLY, "size=4k"); err != nil {
		return fmt.Errorf("mount base of disk: %w", err)
	}
	d.t.Cleanup(func() {
		if err := unix.Unmount(d.dir, unix.MNT_DETACH); err != nil {
			d.t.Errorf("powercut: unmount base of disk: %v", err)
		}
	})
	return nil
}

// Dir is where the disk is mounted; the same after each cut.
func (d *Disk) Dir() string { return d.dir }

// Cut cuts the power. Files that are open fail from this moment on (EIO or
// ECONNABORTED), the directory is empty and read-only until Mount, and what was not synced
// is gone as the seed has it. Processes that used the disk should be killed now.
func (d *Disk) Cut() Report {
	d.t.Helper()
	var report Report
	d.detach(func() { report = d.volume.crash(d.random, d.options.LoseAll) })
	return report
}

// Mount gives a disk its power back.
func (d *Disk) Mount() {
	d.t.Helper()
	if err := d.attach(); err != nil {
		d.t.Fatalf("powercut: %v", err)
	}
}

func (d *Disk) attach() error {
	d.mu.Lock()
	mounted := d.mount != nil
	d.mu.Unlock()
	if mounted {
		return errors.New("mount disk: it has power")
	}
	m, err := newMount(d)
	if err != nil {
		return fmt.Errorf("mount disk: %w", err)
	}
	d.mu.Lock()
	d.mount = m
	d.mu.Unlock()
	return nil
}

// detach ends a mount. No request is answered with success after then, which
// runs with the disk locked: a sync was before it, or has failed.
func (d *Disk) detach(then func()) {
	d.mu.Lock()
	m := d.mount
	d.mount = nil
	if m == nil {
		d.mu.Unlock()
		return
	}
	close(m.off)
	then()
	d.mu.Unlock()
	if err := m.close(); err != nil {
		d.t.Errorf("powercut: %v", err)
	}
}
