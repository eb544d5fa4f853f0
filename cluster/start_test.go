package cluster

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

func TestRestartKeepsEverything(t *testing.T) {
	cfg := config(t)
	first := new(ledger)
	n := start(t, cfg, first)
	propose(t, n, "a", "b")
	term := n.Status().Term
	shut(t, n)

	t.Run("for a state machine that lost its state", func(t *testing.T) {
		sm := new(ledger)
		n := start(t, cfg, sm)
		defer shut(t, n)
		sm.require(t, "a", "b")
		if n.Status().Term <= term {
			t.Errorf("the term went from %d to %d", term, n.Status().Term)
		}
	})
	t.Run("for one that kept it", func(t *testing.T) {
		n := start(t, cfg, first)
		defer shut(t, n)
		propose(t, n, "c")
		first.require(t, "a", "b", "c")
	})
}

func TestRestartFromASnapshot(t *testing.T) {
	cfg := config(t)
	first := new(ledger)
	n := start(t, cfg, first)
	propose(t, n, "a", "b")
	if err := n.Snapshot(); err != nil {
		t.Fatal(err)
	}
	propose(t, n, "c")
	shut(t, n)

	lost := new(ledger)
	n = start(t, cfg, lost)
	lost.require(t, "a", "b", "c")
	if lost.restored != 1 {
		t.Errorf("a state machine without its state was restored %d times", lost.restored)
	}
	propose(t, n, "d")
	shut(t, n)

	first.mu.Lock()
	first.keys, first.applied = lost.keys, lost.applied
	first.mu.Unlock()
	start(t, cfg, first)
	first.require(t, "a", "b", "c", "d")
	if first.restored != 0 {
		t.Error("a state machine that has its state was restored")
	}
}

func TestLogIsCompactedByItsBytes(t *testing.T) {
	cfg := config(t)
	cfg.SnapshotBytes = 64 << 10
	sm := new(ledger)
	n := start(t, cfg, sm)
	for snapshots := 0; snapshots < 3 || n.log.Newest(cfg.SnapshotBytes) == n.log.Newest(1<<40); {
		before := n.raft.Stats()["last_snapshot_index"]
		propose(t, n, strings.Repeat("x", 4<<10))
		if n.raft.Stats()["last_snapshot_index"] != before {
			snapshots++
		}
	}
	propose(t, n, "last")
	// What grew while a snapshot was taken asks for another.
	for !logWithin(t, n.log, 3*cfg.SnapshotBytes) {
		waitABit(t)
	}
	shut(t, n)
	again := new(ledger)
	start(t, cfg, again)
	again.require(t, sm.keys...)
	if again.restored != 1 {
		t.Errorf("it was restored %d times", again.restored)
	}
}

// A snapshot takes a while to begin; what is applied meanwhile asks for no other.
func TestLogThatHasGrownIsCompactedOnce(t *testing.T) {
	m := newMachine(new(ledger), 100*leastLog)
	asked := 0
	for index := range uint64(21) {
		// Not a command: the state machine only sees that it passes.
		m.ApplyBatch([]*raft.Log{{Index: index + 1, Type: raft.LogConfiguration, Data: make([]byte, 10)}})
		select {
		case <-m.full:
			asked++
		default:
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times for 210 bytes", asked)
	}
}

// What a start replays has a measure in what it restores.
func TestTheLogMayGrowAsLargeAsTheState(t *testing.T) {
	const bound = 80 << 10
	for name, c := range map[string]struct{ state, least, most int }{
		"a small one": {1 << 10, bound / leastLog, bound/leastLog + 1<<10},
		"one between": {30 << 10, 30 << 10, 32 << 10},
		"a large one": {200 << 10, bound, bound + 1<<10},
	} {
		t.Run(name, func(t *testing.T) {
			full := func(m *machine, from uint64) (bytes int) {
				for {
					from++
					m.ApplyBatch([]*raft.Log{{Index: from, Type: raft.LogConfiguration, Data: make([]byte, 1<<10)}})
					bytes += 1 << 10
					select {
					case <-m.full:
						return bytes
					default:
					}
				}
			}
			sm := &ledger{keys: []string{strings.Repeat("k", c.state)}}
			dir := t.TempDir()
			open := func() *snapshots {
				files, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, nil)
				if err != nil {
					t.Fatal(err)
				}
				s, err := openSnapshots(files, dir)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			m, kept := newMachine(sm, bound), open()
			m.snapshotSize = kept.size
			taken, err := m.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			sink, err := kept.Create(raft.SnapshotVersionMax, 1, 1, raft.Configuration{}, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := taken.Persist(sink); err != nil {
				t.Fatal(err)
			}
			if bytes := full(m, 1); bytes < c.least || bytes > c.most {
				t.Errorf("asked for a snapshot after %d bytes", bytes)
			}
			again := open()
			_, whole, err := again.Open(sink.ID())
			if err != nil {
				t.Fatal(err)
			}
			restored := newMachine(new(ledger), bound)
			restored.snapshotSize = again.size
			if err := restored.Restore(whole); err != nil {
				t.Fatal(err)
			}
			if bytes := full(restored, 1); bytes < c.least || bytes > c.most {
				t.Errorf("restored from one, asked for another after %d bytes", bytes)
			}
		})
	}
}

// A start that needs no snapshot knows all the same how large one is.
func TestTheSizeOfTheStateIsKnownAfterAStart(t *testing.T) {
	cfg, sm := config(t), new(ledger)
	n := start(t, cfg, sm)
	for range 8 {
		propose(t, n, strings.Repeat("x", 4<<10))
	}
	if err := n.Snapshot(); err != nil {
		t.Fatal(err)
	}
	shut(t, n)
	if got := start(t, cfg, sm).machine.snapshotSize(); got < 32<<10 || sm.restored != 0 {
		t.Errorf("it has %d bytes, restored %d times", got, sm.restored)
	}
}

func logWithin(t *testing.T, l *logStore, most int64) bool {
	t.Helper()
	fit := l.Newest(most)
	first, err1 := l.FirstIndex()
	last, err2 := l.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return first > 1 && last-first < fit
}

func TestFoundingThatWasInterrupted(t *testing.T) {
	cfg := config(t)
	l, err := openLog(cfg.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.SetUint64([]byte("CurrentTerm"), 1), l.Close()); err != nil {
		t.Fatal(err)
	}
	sm := new(ledger)
	propose(t, start(t, cfg, sm), "a")
	sm.require(t, "a")
}

func TestStartRefuses(t *testing.T) {
	// used is a member with a log, closed, and its state.
	used := func(t *testing.T) (Config, *ledger) {
		cfg, sm := config(t), new(ledger)
		n := start(t, cfg, sm)
		propose(t, n, "a", "b")
		shut(t, n)
		return cfg, sm
	}
	t.Run("settings that make no sense", func(t *testing.T) {
		for want, cfg := range map[string]Config{
			"needs a name":      {Dir: "x"},
			"needs a directory": {Name: "x"},
			"too short":         {Name: "x", Dir: "x", Election: 1},
			"cannot be bounded": {Name: "x", Dir: "x", SnapshotBytes: -1},
		} {
			requireStartError(t, cfg, new(ledger), want)
		}
	})
	t.Run("another member's log", func(t *testing.T) {
		cfg, sm := used(t)
		cfg.Name = "two"
		requireStartError(t, cfg, sm, "is another member's: it knows [{one VOTER one}]")
	})
	t.Run("a second process", func(t *testing.T) {
		cfg := config(t)
		start(t, cfg, new(ledger))
		requireStartError(t, cfg, new(ledger), "another process uses it")
	})
	t.Run("a log that is older than the state", func(t *testing.T) {
		cfg, sm := used(t)
		cfg.Dir = t.TempDir()
		requireStartError(t, cfg, sm, "a part of it is lost")
		requireStartError(t, cfg, sm, "a part of it is lost") // and does not found a new one
	})
	t.Run("a log that is gone", func(t *testing.T) {
		cfg := config(t)
		cfg.Existing = true
		requireStartError(t, cfg, new(ledger), "though this member had one")
		requireStartError(t, cfg, new(ledger), "though this member had one") // the first try left none
	})
	t.Run("a log that was damaged", func(t *testing.T) {
		for _, pattern := range []string{"*.seg", "stable"} {
			cfg, sm := used(t)
			damage(t, filepath.Join(cfg.Dir, logDir, pattern))
			requireStartError(t, cfg, sm, "the file is damaged")
		}
	})
	t.Run("snapshots that were damaged", func(t *testing.T) {
		cfg, sm := config(t), new(ledger)
		n := start(t, cfg, sm)
		propose(t, n, "a", "b")
		if err := n.Snapshot(); err != nil {
			t.Fatal(err)
		}
		shut(t, n)
		files, _ := filepath.Glob(filepath.Join(cfg.Dir, "snapshots", "*", "state.bin"))
		if len(files) != 1 {
			t.Fatalf("snapshots are %v", files)
		}
		if err := os.WriteFile(files[0], []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		requireStartError(t, cfg, new(ledger), "failed to load any existing snapshots")
	})
	t.Run("a gap between the snapshot and the log", func(t *testing.T) {
		cfg, _ := used(t)
		l, err := openLog(cfg.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		// The configuration moves, so that it is still this member's log.
		var configuration raft.Log
		err = l.GetLog(1, &configuration)
		configuration.Index = 7
		if err := errors.Join(err, l.Clear(), l.SetUint64([]byte("CurrentTerm"), 2), l.StoreLog(&configuration), l.Close()); err != nil {
			t.Fatal(err)
		}
		requireStartError(t, cfg, new(ledger), "does not go on from the newest snapshot")
	})
}

// damage flips a bit in the middle of what a file holds.
func damage(t *testing.T, pattern string) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("there is no %s: %v", pattern, err)
	}
	data, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	data[len(bytes.TrimRight(data, "\x00"))/2] ^= 4
	if err := os.WriteFile(paths[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What is in a snapshot is as secret as what is in the log, and one that is damaged
// is named.
func TestSnapshotFiles(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg, new(ledger))
	propose(t, n, "a", "b")
	if err := n.Snapshot(); err != nil {
		t.Fatal(err)
	}
	shut(t, n)
	var state string
	for path, entry := range walk(t, filepath.Join(cfg.Dir, "snapshots")) {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			t.Errorf("%s has the mode %s", path, mode)
		}
		if filepath.Base(path) == "state.bin" {
			state = path
		}
	}
	if err := os.Truncate(state, 3); err != nil {
		t.Fatal(err)
	}
	requireStartError(t, cfg, new(ledger), "restore snapshot "+filepath.Dir(state))
}

func walk(t *testing.T, dir string) map[string]fs.DirEntry {
	t.Helper()
	all := map[string]fs.DirEntry{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		all[path] = entry
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
