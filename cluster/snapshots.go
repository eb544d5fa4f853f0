package cluster

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// snapshots is Raft's store of snapshots, but for what Raft leaves of one that was
// given up for want of room: it would take more of it with each try.
type snapshots struct {
	*raft.FileSnapshotStore
	dir string
}

func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, transport raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(version, index, term, configuration, configurationIndex, transport)
	if err != nil {
		return nil, err
	}
	return &snapshotSink{SnapshotSink: sink, dir: filepath.Join(s.dir, "snapshots", sink.ID()+".tmp")}, nil
}

type snapshotSink struct {
	raft.SnapshotSink
	dir string
}

// Cancel gives the snapshot up. Raft may not have closed the file: what is in it
// goes at once.
func (s *snapshotSink) Cancel() error {
	err := s.SnapshotSink.Cancel()
	if err == nil {
		return nil
	}
	_ = os.Truncate(filepath.Join(s.dir, "state.bin"), 0)
	return errors.Join(err, os.RemoveAll(s.dir))
}
