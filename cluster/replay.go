package cluster

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// replayBatch is how many entries are applied together.
const replayBatch = 256

// replay brings the state machine as far as this member knows the log to be
// agreed on, by itself: the newest snapshot where the state is behind it, then
// the entries. Raft would wait for a leader to tell it so much; a member whose
// majority is away could not even say who may ask it how it fares.
//
// It tells whether Raft may leave the snapshot alone. Where the newest one
// cannot be read that is for Raft, which looks for an older one.
func (n *Node) replay(snapshots raft.SnapshotStore) (ahead bool, err error) {
	if ahead, err = n.reconcile(snapshots); err != nil {
		return false, err
	}
	list, err := snapshots.List()
	if err != nil {
		return false, fmt.Errorf("list snapshots: %w", err)
	}
	if !ahead && len(list) > 0 {
		if err := n.restoreNewest(snapshots, list[0].ID); err != nil {
			err = fmt.Errorf("restore snapshot %s: %w", filepath.Join(n.cfg.Dir, "snapshots", list[0].ID), err)
			if last, lastErr := n.log.LastIndex(); lastErr != nil || last < list[0].Index {
				return false, errors.Join(fmt.Errorf("%w: without it a part of the log is lost", err), lastErr)
			}
			n.cfg.Logger.Warn("cannot restore the newest snapshot: an older one may do", "error", err)
			n.unrestored = err
			return false, nil
		}
		ahead = true
	}
	done := n.machine.Applied()
	if len(list) > 0 {
		if err := n.log.dropConflict(list[0].Index, list[0].Term); err != nil {
			return false, err
		}
		// A snapshot that came of a backup says less of itself, but ends all before
		// it: what a crash has left of that in the log does not count any more.
		done = max(done, list[0].Index)
	}
	return ahead, n.replayLog(done + 1)
}

func (n *Node) restoreNewest(snapshots raft.SnapshotStore, id string) error {
	_, r, err := snapshots.Open(id)
	if err != nil {
		return err
	}
	defer r.Close()
	return n.machine.Restore(r)
}

func (n *Node) replayLog(next uint64) error {
	last := n.log.AgreedIndex()
	first, err := n.log.FirstIndex()
	if err != nil {
		return err
	}
	if next < first {
		return nil // Raft says what is missing
	}
	for next <= last {
		var batch []*raft.Log
		for ; next <= last && len(batch) < replayBatch; next++ {
			l := new(raft.Log)
			if err := n.log.GetLog(next, l); err != nil {
				return fmt.Errorf("read entry %d: %w", next, err)
			}
			// The others are Raft's own, and never come to a state machine.
			if l.Type == raft.LogCommand || l.Type == raft.LogConfiguration {
				batch = append(batch, l)
			}
		}
		if len(batch) > 0 {
			n.machine.ApplyBatch(batch)
		}
	}
	return nil
}
