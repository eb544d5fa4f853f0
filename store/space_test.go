//go:build linux

package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// small is a store whose disk has so many bytes.
func small(t *testing.T, size int) (s *Store, dir string, stop chan struct{}) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a file system of its own can only be mounted by root")
	}
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	stop = make(chan struct{})
	s, err := Open(Config{Dir: filepath.Join(dir, "state"), Stop: stop})
	if err != nil {
		t.Fatal(err)
	}
	return s, dir, stop
}

// fill leaves nothing of the disk, until the file is removed.
func fill(t *testing.T, dir string) (ballast string) {
	t.Helper()
	ballast = filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return ballast
}

func big(i int) *weirv1.Command {
	c := putValue("t", fmt.Sprintf("k%d", i), strings.Repeat("x", 100<<10))
	c.Id = fmt.Sprintf("id-%d", i)
	return c
}

// untilFull applies commands, one an entry, and returns once one of them waits for
// space; its results come by the channel.
func untilFull(t *testing.T, s *Store) (index uint64, results <-chan []any) {
	t.Helper()
	for index = 1; ; index++ {
		done := make(chan []any, 1)
		go func() { done <- s.Apply([]uint64{index}, [][]byte{encode(t, big(int(index)))})[0] }()
		for waiting := true; waiting; {
			select {
			case <-done:
				waiting = false
			case <-time.After(time.Millisecond):
				if s.Full() {
					return index, done
				}
			}
		}
		if index > 1000 {
			t.Fatal("the disk is never full")
		}
	}
}

// A full disk holds up what is applied, and harms nothing: what is there can be
// read, and with space the same entry is done, once.
func TestApplyWaitsForSpaceOnAFullDisk(t *testing.T) {
	s, dir, _ := small(t, 32<<20)
	ballast := fill(t, dir)
	index, results := untilFull(t, s)
	if got := s.Applied(); got != index-1 {
		t.Errorf("it holds entry %d, and waits with %d", got, index)
	}
	if _, found := s.View().Value("t", fmt.Sprintf("k%d", index)); found {
		t.Error("what is not written yet is shown")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-results:
		if len(got) != 1 || got[0] == any(ErrStopped) {
			t.Errorf("the result is %v", got)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("it goes on waiting")
	}
	if s.Full() || s.Applied() != index {
		t.Errorf("full %v, applied %d, want %d", s.Full(), s.Applied(), index)
	}
	for i := range index {
		if value, _ := s.View().Value("t", fmt.Sprintf("k%d", i+1)); len(value) != 100<<10 {
			t.Errorf("k%d has %d bytes", i+1, len(value))
		}
	}
	applied := s.Applied()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(Config{Dir: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	if got := again.Applied(); got != applied {
		t.Errorf("after a restart it holds entry %d, want %d", got, applied)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// Who is to stop does not wait, and takes nothing for done that is not.
func TestStopEndsTheWaitForSpace(t *testing.T) {
	s, dir, stop := small(t, 32<<20)
	ballast := fill(t, dir)
	index, results := untilFull(t, s)
	close(stop)
	select {
	case got := <-results:
		if len(got) != 1 || got[0] != any(ErrStopped) {
			t.Errorf("the result is %v", got)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("it goes on waiting")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if got := s.Apply([]uint64{index + 1}, [][]byte{encode(t, big(1000))}); got[0][0] != any(ErrStopped) {
		t.Errorf("the entry after it is done: %v", got)
	}
	if s.Applied() != index-1 {
		t.Errorf("it holds entry %d, want %d", s.Applied(), index-1)
	}
	if _, _, err := s.Snapshot(); !errors.Is(err, ErrStopped) {
		t.Errorf("a snapshot is taken of it: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// What an entry that failed had others forget is known again.
func TestMemoryIsUndone(t *testing.T) {
	m := newMemory()
	for i := range remembered + 10 {
		m.keep(receipt{id: fmt.Sprint(i), revision: uint64(i)})
	}
	var forgotten []receipt
	for i := range 20 {
		forgotten = append(forgotten, m.keep(receipt{id: fmt.Sprint("new-", i)}))
	}
	m.undo(forgotten)
	for i := range remembered {
		if r, ok := m.recall(fmt.Sprint(i + 10)); !ok || r.revision != uint64(i+10) {
			t.Fatalf("%d is %v, %v", i+10, r, ok)
		}
	}
	if _, ok := m.recall("new-3"); ok || m.next != remembered+10 || len(m.byID) != remembered {
		t.Errorf("%d are known, the next is %d", len(m.byID), m.next)
	}
}
