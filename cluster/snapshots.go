package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// snapshots is Raft's store of snapshots, but for what Raft leaves of one that was
// given up for want of room: it would take more of it with each try. It remembers
// which is the newest.
type snapshots struct {
	*raft.FileSnapshotStore
	dir    string
	newest atomic.Pointer[taken]
}

// taken is a snapshot that is whole.
type taken struct {
	index, term uint64
	at          time.Time
	size        int64 // bytes
}

// end is the last entry that the newest snapshot holds.
func (s *snapshots) end() (index, term uint64) {
	newest := s.newest.Load()
	return newest.index, newest.term
}

// size is that of the newest snapshot, in bytes; 0: there is none.
func (s *snapshots) size() int64 { return s.newest.Load().size }

func openSnapshots(files *raft.FileSnapshotStore, dir string) (*snapshots, error) {
	s := &snapshots{FileSnapshotStore: files, dir: dir}
	if err := os.Chmod(filepath.Join(dir, "snapshots"), 0o700); err != nil {
		return nil, err
	}
	s.newest.Store(new(taken))
	list, err := files.List()
	if err != nil || len(list) == 0 {
		return s, err
	}
	newest := &taken{index: list[0].Index, term: list[0].Term, size: list[0].Size}
	if info, err := os.Stat(filepath.Join(dir, "snapshots", list[0].ID)); err == nil {
		newest.at = info.ModTime()
	}
	s.newest.Store(newest)
	return s, nil
}

func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, transport raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(version, index, term, configuration, configurationIndex, transport)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, "snapshots", sink.ID()+".tmp")
	if err := ownerOnly(dir); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return &snapshotSink{
		SnapshotSink: sink, dir: dir,
		whole: func(size int64) { s.newest.Store(&taken{index: index, term: term, at: time.Now(), size: size}) },
	}, nil
}

// ownerOnly takes from others what Raft gives them of a snapshot.
func ownerOnly(dir string) error {
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"meta.json", "state.bin"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// snapshotSink is a snapshot that is written. Raft closes one that was given up,
// or closed, once more.
type snapshotSink struct {
	raft.SnapshotSink
	dir   string
	size  int64
	whole func(size int64) // tells that it is
	over  sync.Once
}

func (s *snapshotSink) Write(p []byte) (int, error) {
	n, err := s.SnapshotSink.Write(p)
	s.size += int64(n)
	return n, err
}

// Close makes the snapshot the newest.
func (s *snapshotSink) Close() error {
	err := s.SnapshotSink.Close()
	s.over.Do(func() {
		if err == nil {
			s.whole(s.size)
		}
	})
	return err
}

// Cancel gives the snapshot up. Raft may not have closed the file: what is in it
// goes at once.
func (s *snapshotSink) Cancel() error {
	s.over.Do(func() {})
	err := s.SnapshotSink.Cancel()
	if err == nil {
		return nil
	}
	_ = os.Truncate(filepath.Join(s.dir, "state.bin"), 0)
	return errors.Join(err, os.RemoveAll(s.dir))
}
