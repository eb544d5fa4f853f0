package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/weirmesh/weir/cluster/wal"
)

// logStore is the log of package wal, and how it bears a disk without space (see
// space.go).
type logStore struct {
	*wal.Log
	dir string
	// snapshots are those beside it; nil: there are none yet.
	snapshots raft.SnapshotStore

	full    atomic.Bool
	reserve int64
	free    func(dir string) (bytes int64, known bool)
	mute    chan struct{}

	syncs  latencies
	newest newest
}

var (
	_ raft.LogStore          = (*logStore)(nil)
	_ raft.StableStore       = (*logStore)(nil)
	_ raft.MonotonicLogStore = (*logStore)(nil)
)

// simulatedSegment keeps simulations, which make many small logs, small.
const simulatedSegment = 256 << 10

func openLog(cfg Config) (*logStore, error) {
	s := &logStore{dir: filepath.Join(cfg.Dir, logDir), reserve: cfg.Reserve, free: freeSpace, mute: make(chan struct{})}
	old := filepath.Join(cfg.Dir, "log.db")
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open log: %s is of a version that is too old", old)
	}
	options := wal.Options{Synced: s.syncs.add, NoSync: cfg.unsafe}
	if cfg.unsafe {
		options.SegmentBytes = simulatedSegment
	}
	var err error
	if s.Log, err = wal.Open(s.dir, options); err != nil {
		return nil, err
	}
	return s, nil
}

// StoreLog is StoreLogs for one.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs writes entries and syncs them. Its error is ErrNoSpace where the
// disk is full.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	if s.lacks() {
		s.full.Store(true)
		return ErrNoSpace
	}
	err := s.spaceError(s.closeGap(logs))
	if err == nil {
		err = s.spaceError(s.Log.StoreLogs(logs))
	}
	if err != nil {
		s.newest.forget() // of what is replaced nobody knows
		return err
	}
	if len(logs) > 0 {
		s.newest.add(logs)
	}
	s.full.Store(false)
	return nil
}

// GetLog reads an entry, one of the newest from memory.
func (s *logStore) GetLog(index uint64, out *raft.Log) error {
	if s.newest.get(index, out) {
		return nil
	}
	return s.Log.GetLog(index, out)
}

// closeGap drops a log that ends before the newest snapshot, where what comes
// goes on from that. Raft drops it when it takes over the snapshot, but may die
// or fail in between, and does not try again.
func (s *logStore) closeGap(logs []*raft.Log) error {
	last, err := s.LastIndex()
	if err != nil || s.snapshots == nil || last == 0 || len(logs) == 0 || logs[0].Index <= last+1 {
		return err
	}
	list, err := s.snapshots.List()
	if err != nil || len(list) == 0 || list[0].Index+1 < logs[0].Index {
		return err // then it is refused
	}
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	s.newest.forget()
	return s.Log.DeleteRange(first, last)
}

// DeleteRange deletes entries at the beginning, or all. At the end it does
// nothing: Raft deletes there only what it replaces with its next StoreLogs, and
// that does both at once. In two steps the second could fail, for want of space,
// and Raft would then go on as if what it deleted were still there.
func (s *logStore) DeleteRange(first, last uint64) error {
	oldest, err1 := s.FirstIndex()
	newest, err2 := s.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if first > oldest && last >= newest {
		return nil
	}
	if first <= oldest && last >= newest {
		if at, agrees := s.goesOnFromSnapshot(newest); agrees {
			last = at - 1
		}
	}
	s.newest.forget()
	return s.Log.DeleteRange(first, last)
}

// goesOnFromSnapshot tells whether the log holds the entry that the newest snapshot
// ends with, and what follows. Raft deletes all when it takes over a snapshot, and
// goes on as if it still held what follows; and so it should.
func (s *logStore) goesOnFromSnapshot(newest uint64) (at uint64, agrees bool) {
	if s.snapshots == nil {
		return 0, false
	}
	list, err := s.snapshots.List()
	if err != nil || len(list) == 0 || list[0].Index >= newest {
		return 0, false
	}
	var entry raft.Log
	err = s.GetLog(list[0].Index, &entry)
	return list[0].Index, err == nil && entry.Term == list[0].Term
}

// Clear deletes all.
func (s *logStore) Clear() error {
	s.newest.forget()
	return s.Log.Clear()
}

// Set keeps one of Raft's values.
func (s *logStore) Set(key, value []byte) error {
	return s.insist(func() error { return s.Log.Set(key, value) })
}

// SetUint64 is Set for a number.
func (s *logStore) SetUint64(key []byte, n uint64) error {
	return s.insist(func() error { return s.Log.SetUint64(key, n) })
}
