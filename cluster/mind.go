package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// lead opens each term in which this member leads by an entry of its own. Raft
// commits one itself, but tells the state machine nothing of it, and until
// that has seen the term nothing can be read (see progress).
func (n *Node) lead() {
	for {
		select {
		case <-n.stopped:
			return
		case leads := <-n.leading:
			if leads {
				n.ledSince.Store(time.Now().UnixNano())
				n.ledTerm.Store(n.raft.CurrentTerm())
				n.elections.Add(1)
				// Nobody waits for it: if it fails, leadership is lost, and
				// whoever is elected next does the same.
				n.raft.Apply(nil, 0)
			}
			n.machine.nudge()
		}
	}
}

// settleEvery bounds how long the disk may not know that the log's last entries
// are agreed on.
const settleEvery = 5 * time.Second

// noteAgreed has the log note, from time to time, how far it is agreed on.
func (n *Node) noteAgreed() {
	ticker := time.NewTicker(settleEvery)
	defer ticker.Stop()
	for {
		select {
		case <-n.stopped:
			return
		case <-ticker.C:
			if err := n.log.Settle(); err != nil {
				n.cfg.Logger.Error("cannot note how far the log is agreed on", "error", err)
			}
		}
	}
}

// compact takes a snapshot when the log since the last one has many bytes;
// Raft itself only counts entries.
func (n *Node) compact() {
	for {
		select {
		case <-n.stopped:
			return
		case <-n.machine.full:
			if err := n.compactTo(n.cfg.SnapshotBytes); err != nil && n.life.Err() == nil {
				n.cfg.Logger.Error("cannot compact the log", "error", err)
			}
		}
	}
}

// compactTo takes a snapshot and leaves no more than so many bytes of entries
// behind it. Raft counts entries here too: what it leaves of big ones, such as
// the chunks of modules, would be gigabytes.
func (n *Node) compactTo(bytes int64) error {
	entries := max(n.log.Newest(bytes), 1)
	if err := n.leaveBehind(min(entries, n.cfg.trail)); err != nil {
		return err
	}
	return errors.Join(n.Snapshot(), n.leaveBehind(n.cfg.trail))
}

func (n *Node) leaveBehind(entries uint64) error {
	conf := n.raft.ReloadableConfig()
	conf.TrailingLogs = entries
	if err := n.raft.ReloadConfig(conf); err != nil {
		return fmt.Errorf("set the length of the log: %w", err)
	}
	return nil
}

// Snapshot writes the state beside the log and drops the log before it. It is
// done from time to time without being asked for.
func (n *Node) Snapshot() error {
	switch err := n.raft.Snapshot().Error(); {
	case err == nil || errors.Is(err, raft.ErrNothingNewToSnapshot):
		return nil
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrClosed
	default:
		return fmt.Errorf("take snapshot: %w", err)
	}
}
