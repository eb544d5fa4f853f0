//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A snapshot for which there is no room is not taken; the log keeps what it would
// have held, the member goes on, and the next one is whole.
func TestSnapshotOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a file system of its own can only be mounted by root")
	}
	cfg := quiet(config(t))
	dir := filepath.Join(cfg.Dir, "snapshots")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	sm := &ledger{}
	n := start(t, cfg, sm)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20-4096), 0o600); err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	var keys []string
	for i := range 20 {
		keys = append(keys, fmt.Sprint(i, strings.Repeat("x", 2000)))
	}
	propose(t, n, keys...)
	if err := n.Snapshot(); err == nil || !strings.Contains(err.Error(), unix.ENOSPC.Error()) {
		t.Fatalf("a snapshot without room: %v", err)
	}
	if parts, err := filepath.Glob(filepath.Join(dir, "*.tmp")); err != nil || len(parts) > 0 {
		t.Errorf("what was begun takes room: %v, %v", parts, err)
	}
	if s := n.Status(); s.Snapshot != 0 {
		t.Errorf("there is one of %d", s.Snapshot)
	}
	propose(t, n, "more")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := n.Snapshot(); err != nil {
		t.Fatal(err)
	}
	s := n.Status()
	if s.Snapshot == 0 || s.SnapshotTaken.IsZero() {
		t.Error("there is none")
	}
	shut(t, n)
	again := &ledger{}
	m := start(t, cfg, again)
	if after := m.Status(); after.Snapshot != s.Snapshot || after.SnapshotTaken.IsZero() {
		t.Errorf("after a start it is of %d, not of %d", after.Snapshot, s.Snapshot)
	}
	again.require(t, append(keys, "more")...)
	shut(t, m)
}
