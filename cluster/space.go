package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/weirmesh/weir/internal/durable"
)

// A disk without space is no end: the log takes no entry then, says so, and
// takes entries again when there is space. Below the reserve it does not even
// try, so that there is room left for the term, the vote and what the state
// machine writes.

// freeSpace says how many bytes are left where a directory is.
func freeSpace(dir string) (int64, bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil || s.Blocks == 0 {
		return 0, false // nobody knows: then only writing tells
	}
	return int64(s.Bavail) * s.Bsize, true
}

// lacks tells whether less than the reserve is left.
func (s *logStore) lacks() bool {
	free, known := s.free(filepath.Dir(s.dir))
	return known && free < s.reserve
}

// spaceError sorts out the errors of a disk that is full.
func (s *logStore) spaceError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		s.full.Store(true)
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// retryAfter is how long a term or a vote waits on a full disk before it is
// tried again.
const retryAfter = 100 * time.Millisecond

// insist writes what Raft cannot do without. It waits for space: a member that
// does not answer is one that the others can do without, one whose term is lost
// is not. Once nothing that this member says can get out any more, nothing needs
// to be kept.
func (s *logStore) insist(write func() error) error {
	for {
		err := s.spaceError(write())
		if !errors.Is(err, ErrNoSpace) {
			return err
		}
		select {
		case <-time.After(retryAfter):
		case <-s.mute:
			return nil
		}
	}
}

// probe looks whether there is space again.
func (s *logStore) probe() {
	const size = 1 << 20
	if s.lacks() {
		return
	}
	// Removed in any case; its content says nothing to anyone.
	path := filepath.Join(filepath.Dir(s.dir), "probe")
	err := durable.WriteFile(path, make([]byte, size))
	_ = os.Remove(path)
	if err == nil {
		s.full.Store(false)
	}
}

// isFull tells whether this member has no room for its log, or for its state.
func (n *Node) isFull() bool { return n.log.full.Load() || n.machine.isFull() }

// giveWay has another lead while this one can apply nothing: nobody would hear what
// became of what is proposed. A full log makes Raft itself step down.
func (n *Node) giveWay() {
	if !n.machine.isFull() || !n.leads() || len(n.voters()) < 2 {
		return
	}
	if err := n.raft.LeadershipTransfer().Error(); err != nil {
		n.cfg.Logger.Warn("the disk of the state is full, and no other member leads yet", "error", err)
	}
}

// mindSpace has a member without space stand back: it does not stand for
// election before the others have had time to find a better one.
func (n *Node) mindSpace(stoodBack bool) bool {
	full := n.isFull()
	if n.log.full.Load() {
		n.log.probe()
	}
	if full == stoodBack {
		return full
	}
	conf := n.raft.ReloadableConfig()
	if conf.HeartbeatTimeout = n.cfg.Election; full && len(n.voters()) > 1 {
		conf.HeartbeatTimeout *= 8
	}
	conf.ElectionTimeout = conf.HeartbeatTimeout
	if err := n.raft.ReloadConfig(conf); err != nil {
		n.cfg.Logger.Warn("cannot change the election timeout", "error", err)
	}
	if full {
		n.cfg.Logger.Error("the disk is full: this member takes no writes until there is space again", "dir", n.cfg.Dir)
	} else {
		n.cfg.Logger.Info("there is space on the disk again: this member takes writes")
	}
	return full
}
