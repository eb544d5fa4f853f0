package store

import (
	"errors"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// ErrStopped is the result of a command that is agreed on and was not applied here,
// since the store was to stop while its disk was full.
var ErrStopped = errors.New("the state could not be written: its disk is full")

// spaceEvery is how often a full disk is tried again.
const spaceEvery = 250 * time.Millisecond

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Full tells whether the store waits for space on its disk.
func (s *Store) Full() bool { return s.full.Load() }

// awaitSpace waits a moment before the disk is tried again, and tells whether it is
// to be.
func (s *Store) awaitSpace() bool {
	t := time.NewTimer(spaceEvery)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stop:
		s.stopped.Store(true)
		return false
	}
}

// stopped are the results of entries that are not applied any more.
func stopped(entries [][]byte) [][]any {
	results := make([][]any, len(entries))
	for i, data := range entries {
		entry := new(weirv1.Entry)
		_ = proto.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: reading.RecursionLimit}.Unmarshal(data, entry)
		results[i] = make([]any, len(entry.GetCommands()))
		for j := range results[i] {
			results[i][j] = ErrStopped
		}
	}
	return results
}
