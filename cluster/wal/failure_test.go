package wal

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/weirmesh/weir/internal/durable"
)

// A segment got its name, but the directory could not be synced. It says how
// much of the one before counts; what is stored later must count all the same.
func TestSegmentThatHasItsNameAndFailed(t *testing.T) {
	failing := false
	options := Options{SegmentBytes: 1 << 10, commit: func(f *durable.File) error {
		if err := f.CommitOpen(); err != nil || !failing {
			return err
		}
		return errors.Join(syscall.EIO, f.Close())
	}}
	for name, fail := range map[string]func(l *Log) error{
		"for want of room": func(l *Log) error {
			return l.StoreLog(&raft.Log{Index: 4, Data: make([]byte, 2<<10)})
		},
		"to void entries": func(l *Log) error { return l.DeleteRange(3, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir, options)
			store(t, l, 1, 3)
			failing = true
			if err := fail(l); !errors.Is(err, syscall.EIO) {
				t.Fatalf("error is %v", err)
			}
			requireEdges(t, l, 1, 3)
			failing = false
			store(t, l, 4, 5)
			requireEdges(t, open(t, copyDir(t, dir), Options{}), 1, 5)
		})
	}
}

// After an error none of the entries counts, after a crash neither. Where that
// is not certain the error does not say what sounds as if it were.
func TestFailedWriteLeavesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		failures int
		certain  bool
	}{
		"that can be undone":    {1, true},
		"that cannot be undone": {2, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir, failures := t.TempDir(), 0
			l := open(t, dir, Options{sync: func(f *os.File) error {
				if failures--; failures >= 0 {
					return syscall.ENOSPC
				}
				return unix.Fdatasync(int(f.Fd()))
			}})
			store(t, l, 1, 3)
			failures = test.failures
			err := l.StoreLogs([]*raft.Log{entry(4), entry(5)})
			if err == nil || errors.Is(err, syscall.ENOSPC) != test.certain {
				t.Fatalf("error is %v", err)
			}
			requireEdges(t, l, 1, 3)
			if test.certain {
				requireEdges(t, open(t, copyDir(t, dir), Options{}), 1, 3)
			}
			failures = 0
			store(t, l, 4, 4)
			requireEdges(t, open(t, copyDir(t, dir), Options{}), 1, 4)
		})
	}
}

func TestLogWithoutItsSegmentsIsLost(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	store(t, l, 1, 3)
	if err := l.Clear(); err != nil { // there is one still
		t.Fatal(err)
	}
	shut(t, l)
	shut(t, open(t, dir, Options{}))
	for _, path := range segmentFiles(t, dir) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "all segments are missing") {
		t.Errorf("error is %v", err)
	}
}
