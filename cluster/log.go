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
	// snapshotEnd is the last entry that the newest snapshot beside it holds; of
	// index 0: there is none.
	snapshotEnd func() (index, term uint64)

	full    atomic.Bool
	reserve int64
	free    func(dir string) (bytes int64, known bool)
	mute    chan struct{}

	syncs  latencies
	newest newest
	// installing: Raft takes over a snapshot of another member, and then drops the
	// log.
	installing atomic.Bool
	void       atomic.Pointer[void]
}

// void is what Raft believes of a log that a snapshot has ended: that it still
// reaches up to the last index that it had. The log answers for those entries with
// such as nobody agrees with, until one is stored that is the snapshot's last: that
// is Raft's way to hear where a log ends, and nothing of it is written.
type void struct {
	index, term uint64 // the snapshot's last entry
	last        uint64
}

// errHistory is what comes of a member that was left out when a cluster was
// recovered, and is in it again with the log that it had.
var errHistory = errors.New("it would replace what is agreed on: the log is of another history; start this member anew, without it")

var errVoid = errors.New("the log ends with a snapshot, and Raft does not know that yet")

var (
	_ raft.LogStore          = (*logStore)(nil)
	_ raft.StableStore       = (*logStore)(nil)
	_ raft.MonotonicLogStore = (*logStore)(nil)
)

// simulatedSegment keeps simulations, which make many small logs, small.
const simulatedSegment = 256 << 10

func openLog(cfg Config) (*logStore, error) {
	s := &logStore{dir: filepath.Join(cfg.Dir, logDir), reserve: cfg.Reserve, free: freeSpace, mute: make(chan struct{}),
		snapshotEnd: func() (uint64, uint64) { return 0, 0 }}
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
	if v := s.void.Load(); v != nil {
		return s.endVoid(v, logs)
	}
	if s.lacks() {
		s.full.Store(true)
		return ErrNoSpace
	}
	if len(logs) > 0 && logs[0].Index <= s.AgreedIndex() {
		return errHistory
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

// endVoid is for the entry that ends a void.
func (s *logStore) endVoid(v *void, logs []*raft.Log) error {
	if len(logs) != 1 || logs[0].Index != v.index || logs[0].Term != v.term || logs[0].Type != raft.LogNoop {
		return errVoid
	}
	if err := s.drop(); err != nil { // where it failed the first time
		return err
	}
	s.void.Store(nil)
	return nil
}

// GetLog reads an entry, one of the newest from memory. Of those that a snapshot
// has taken in it still knows the term of the last.
func (s *logStore) GetLog(index uint64, out *raft.Log) error {
	if v := s.void.Load(); v != nil && v.index <= index && index <= v.last {
		*out = raft.Log{Index: index, Type: raft.LogNoop} // no leader has the term 0
		return nil
	}
	if s.newest.get(index, out) {
		return nil
	}
	err := s.Log.GetLog(index, out)
	if !errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	// Where entries before it are still there it is not the snapshot's: one that came
	// of a backup ends with an index of no entry, and must not be passed on as one.
	at, term := s.snapshotEnd()
	if first, _ := s.FirstIndex(); at == index && at > 0 && (first == 0 || first > at) {
		*out = raft.Log{Index: index, Term: term, Type: raft.LogNoop}
		return nil
	}
	return err
}

// closeGap drops a log that ends before the newest snapshot, where what comes
// goes on from that. Raft drops it when it takes over the snapshot, but may die
// or fail in between, and does not try again.
func (s *logStore) closeGap(logs []*raft.Log) error {
	last, err := s.LastIndex()
	if err != nil || last == 0 || len(logs) == 0 || logs[0].Index <= last+1 {
		return err
	}
	if at, _ := s.snapshotEnd(); at+1 < logs[0].Index {
		return nil // then it is refused
	}
	return s.drop()
}

// drop deletes all entries.
func (s *logStore) drop() error {
	oldest, err1 := s.FirstIndex()
	newest, err2 := s.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	s.newest.forget()
	return s.Log.DeleteRange(oldest, newest)
}

// dropConflict drops a log that does not agree with a snapshot whose last entry is
// this: what it holds up to there counts no more, and what follows never did.
func (s *logStore) dropConflict(index, term uint64) error {
	var entry raft.Log
	switch err := s.Log.GetLog(index, &entry); {
	case errors.Is(err, raft.ErrLogNotFound):
		return nil
	case err != nil:
		return err
	case entry.Term == term:
		return nil
	}
	return s.drop()
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
	at, term := s.snapshotEnd()
	all := first <= oldest && last >= newest
	switch {
	case s.installing.Load():
		if all && newest >= at {
			s.void.Store(&void{at, term, newest})
		}
	case last >= newest && (first > oldest || first > at):
		return nil // with a short log the end may be all of it
	}
	s.newest.forget()
	return s.Log.DeleteRange(first, last)
}

// Clear deletes all.
func (s *logStore) Clear() error {
	s.newest.forget()
	s.void.Store(nil)
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
