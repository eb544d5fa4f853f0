// Package store holds what is declared: the resources, the blobs they use and
// the few values that are not declarations. It is a state machine: commands go
// in one after the other, views and events come out.
//
//	entries ─▶ Apply ─▶ draft ─▶ gathered ─▶ state.db (bbolt, a second or 4 MiB at a time)
//	                      └────▶ View (immutable, in memory) ─▶ Get, List, DryRun
//	                               └─▶ events ─▶ Watch, Watch, Watch …
//
// A [View] is the whole of it at one revision: taking one costs nothing, and
// nothing that happens later shows in it. [Store.Watch] goes on from a revision
// by deltas, or starts afresh with everything.
//
// What is refused is refused whole and with all its reasons ([RefusedError]): a
// stale revision, a reference to nothing, the deletion of what is in use. A
// refusal is an outcome like any other, the same on every member.
//
// # Determinism
//
// What a command does depends on the state and on the command alone: no clock,
// no random value, no order of a map. Times come from the command. So members
// that apply the same log hold the same state and give the same answers, and
// the rules in this package are part of the log's meaning: a new rule needs a
// new kind of command, proposed once every member knows it.
//
// A revision is the log index of the change. Where several changes share an
// entry the later ones take the next numbers, so that no two changes ever have
// the same revision (docs/decisions/revisions.md). It only grows.
//
// A command that bears the id of one of the last few thousand is not done
// again: it gets the first one's outcome. Refused commands did nothing, so
// they are decided anew.
//
// An entry that cannot be read, or a disk that fails on what was decided, ends the
// process: going on would let members part. A disk that is full does not: the store
// waits for space, and shows meanwhile what it has.
//
// # Usage
//
// What proxies count is in the file alone. A report is added once, whatever order its
// segments come in and however often: for each epoch of a node the store remembers up to
// where all has come, and what has come beyond it (usage.go).
//
// # Durability
//
// The log is what is durable, not this package's file. The index of the last
// entry applied is written in the same transaction as its effects, entries at
// or below it are skipped, and nothing is ever synced while the store runs; nor
// is it written at once: entries of a second, or 4 MiB, gather first.
// That leaves one question: which file may be trusted at the next start? Only
// one that was closed. Close syncs the file and then leaves a note of its size
// and checksum; Open takes that note away before anything can change the file,
// and where there is no note, or it does not fit, Open begins with an empty
// file. The log's owner then restores the newest snapshot and replays what
// follows. So a killed process, a power cut and a flipped bit all take the same
// road, and it is one that every test of a crash walks
// (docs/decisions/state-file.md).
package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
)

// ErrClosed is what a Watch ends with when the store closes.
var ErrClosed = errors.New("store is closed")

// Config is what a store needs. It does not change once the store is open.
type Config struct {
	// Dir is the store's own directory; it is made where it is missing.
	Dir string
	// Logger is told when a state is discarded, and when the disk is full. nil:
	// nobody is.
	Logger *slog.Logger
	// Stop ends the wait for space on a full disk: the owner of the log is about to
	// stop. nil: nothing does.
	Stop <-chan struct{}
}

// Store is the state machine. Apply, Snapshot, Restore and Close are called by
// the one who owns the log, one at a time; everything else by anyone, always.
type Store struct {
	dir  string
	log  *slog.Logger
	lock *os.File

	// files guards db, which Restore replaces. Apply runs under the read lock
	// like every reader: only Restore and Close may swap the file.
	files     sync.RWMutex
	db        *bolt.DB
	unwritten unwritten

	applied atomic.Uint64
	view    atomic.Pointer[View]
	memory  *memory
	history *history
	closed  chan struct{}

	stop <-chan struct{}
	// full: Apply waits for space. stopped: it has given up, and what the store
	// holds is behind what its owner thinks.
	full, stopped atomic.Bool
}

// Open opens the state in a directory. A state that was not closed is
// discarded: Applied is then 0, and the log's owner brings everything back.
func Open(cfg Config) (*Store, error) {
	s := &Store{dir: cfg.Dir, log: cfg.Logger, stop: cfg.Stop, closed: make(chan struct{})}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	var err error
	if s.lock, err = lockDir(s.dir); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := s.openState(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), s.lock.Close())
	}
	return s, nil
}

// openState takes over the file that the last Close left, else a new one.
func (s *Store) openState() error {
	db, err := reopenState(s.dir)
	if err == nil {
		content, err := load(db)
		if err == nil {
			s.adopt(db, content)
			return nil
		}
		s.log.Warn("state is rebuilt from the log", "reason", err)
		if err := db.Close(); err != nil {
			return err
		}
	} else if !errors.Is(err, errNothing) {
		s.log.Info("state is rebuilt from the log", "reason", err)
	}
	if db, err = createState(s.dir, stateName); err != nil {
		return err
	}
	s.adopt(db, &loaded{view: emptyView(), memory: newMemory()})
	return nil
}

// adopt makes an open file and what was loaded from it the state.
func (s *Store) adopt(db *bolt.DB, content *loaded) {
	s.db, s.memory, s.unwritten = db, content.memory, newUnwritten()
	s.applied.Store(content.applied)
	show := func() { s.view.Store(content.view) }
	if s.history == nil {
		s.history = newHistory(content.view.revision)
		show()
		return
	}
	s.history.restart(content.view.revision, show)
}

// Applied is the index of the last entry whose effects the store holds.
func (s *Store) Applied() uint64 { return s.applied.Load() }

// View is everything that is declared, as of the last entry applied.
func (s *Store) View() *View { return s.view.Load() }

// Close ends every Watch, syncs the state and leaves the note that lets the
// next Open trust it.
func (s *Store) Close() error {
	close(s.closed)
	s.files.Lock()
	defer s.files.Unlock()
	err := s.settle()
	err = errors.Join(err, s.db.Sync(), s.db.Close())
	if err == nil {
		err = noteClosed(s.dir, s.Applied())
	}
	if err := errors.Join(err, s.lock.Close()); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}
