// Package wal is a log on disk that loses nothing it has acknowledged: Raft's
// entries in segment files, one sync for each batch of them, and beside them
// the few values that Raft keeps (its term, its vote).
//
//	StoreLogs ─▶ records, one write, one fdatasync ─▶ 0000000000000007.seg
//	Set       ─▶ stable, replaced whole
//
// It keeps raft.LogStore, raft.StableStore and raft.MonotonicLogStore.
//
// # Segments
//
// A segment is a file of records, made at its full size, whose header says what
// came before it: the number of the segment before and how many bytes of that
// count. What follows there is void, whatever it is. So nothing written is ever
// written over, and the three ways in which a log can change beside growing are
// all the same: a new segment begins, and says from which index on older entries
// are void. Segments that hold nothing any more are removed, the oldest first.
//
// # What is damage, and what a crash left
//
// A crash may leave the last batch in pieces. It was not acknowledged, so it is
// dropped. A damaged disk looks the same, but damages what was acknowledged too,
// and dropping that would be a lie to those who count on this member. Each record
// therefore says up to which entry the log was safe when it was written. Open
// refuses a log in which an entry is missing of which a later record, or the
// index to which the log is known to be agreed on, says that it was safe. After a
// Close that is all of them. And it refuses a file that is shorter than it was
// made: no crash does that.
package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/weirmesh/weir/internal/durable"
)

// Options of a log. The zero value is the usual one.
type Options struct {
	// SegmentBytes is the size of a segment. 0: 8 MiB. An entry that is larger
	// gets a segment of its own.
	SegmentBytes int64
	// Synced is told how long each batch took to write and to sync; nil: nobody
	// is. It must return at once.
	Synced func(time.Duration)
	// NoSync syncs nothing: for simulations in which no power fails.
	NoSync bool

	// sync and commit, unless nil, are how a batch is synced and a new segment
	// gets its name, for tests of what happens when that fails.
	sync   func(*os.File) error
	commit func(*durable.File) error
}

// Log is an open log. Its methods may be called at once; those that write wait
// for one another, as Raft has it anyway.
type Log struct {
	dir     string
	options Options
	lock    *os.File
	stable  *stable

	// agreed is how far the log is known to be agreed on; noted is what the disk
	// knows of that.
	agreed, noted atomic.Uint64

	writing sync.Mutex // held by those who write
	buf     []byte     // of the batch being written
	// broken: the open segment had an error, and takes nothing more.
	broken bool

	mu       sync.RWMutex
	segments []*segment // the oldest first; the last is open for writing if it has a file
	closed   bool
}

var (
	_ raft.LogStore          = (*Log)(nil)
	_ raft.StableStore       = (*Log)(nil)
	_ raft.MonotonicLogStore = (*Log)(nil)
)

var errClosed = errors.New("the log is closed")

// Open opens the log in a directory, which is made where it is missing. It
// reads all of it, and refuses what is damaged, naming the file. One process
// has a log at a time.
func Open(dir string, options Options) (*Log, error) {
	if options.SegmentBytes == 0 {
		options.SegmentBytes = 8 << 20
	}
	l := &Log{dir: dir, options: options}
	if err := l.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), l.release())
	}
	return l, nil
}

func (l *Log) open() (err error) {
	if err := durable.MakeDir(l.dir); err != nil {
		return err
	}
	if l.lock, err = lockDir(l.dir); err != nil {
		return err
	}
	if l.segments, err = readSegments(l.dir, l.options.NoSync); err != nil {
		return err
	}
	// It comes before the first segment: a log without it has lost it.
	if l.stable, err = openStable(filepath.Join(l.dir, "stable"), len(l.segments) == 0, l.options.NoSync); err != nil {
		return err
	}
	if err := l.checkBegun(); err != nil {
		return err
	}
	for _, s := range l.segments {
		l.agreed.Store(max(l.agreed.Load(), s.agreed))
	}
	if agreed, last := l.agreed.Load(), l.lastIndex(); agreed > last && l.holds() {
		return fmt.Errorf("read %s: the log ends at %d, but was agreed on up to %d: its end is damaged or was taken away", l.dir, last, agreed)
	}
	l.noted.Store(l.agreed.Load())
	return nil
}

// keyBegun is set once the log has had a segment. From then on there is always
// one, so a log without any has lost them.
var keyBegun = []byte("\x00begun")

func (l *Log) checkBegun() error {
	begun := len(l.stable.get(keyBegun)) > 0
	switch {
	case len(l.segments) == 0 && begun:
		return fmt.Errorf("read %s: all segments are missing", l.dir)
	case len(l.segments) > 0 && !begun:
		// A crash came between the two, or an earlier version made it.
		return l.stable.set(keyBegun, []byte{1})
	}
	return nil
}

// holds tells whether the log ever held anything since it was last emptied.
func (l *Log) holds() bool { return l.lastIndex() > 0 }

// Close notes that nothing is missing, and closes the files.
func (l *Log) Close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.isClosed() {
		return nil
	}
	var err error
	if s := l.current(); s != nil && !l.broken {
		err = l.note(s, kindClosed)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if err := errors.Join(err, l.release()); err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}

func (l *Log) isClosed() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.closed
}

func (l *Log) release() error {
	var errs []error
	for _, s := range l.segments {
		errs = append(errs, s.close())
	}
	if l.stable != nil {
		errs = append(errs, l.stable.Close())
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	return errors.Join(errs...)
}

// IsMonotonic tells Raft that a log has no gaps.
func (l *Log) IsMonotonic() bool { return true }

// FirstIndex is the index of the oldest entry; 0 where there is none.
func (l *Log) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.segments {
		if s.live() > 0 {
			return s.first, nil
		}
	}
	return 0, nil
}

// LastIndex is the index of the newest entry; 0 where there is none.
func (l *Log) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.lastIndex(), nil
}

func (l *Log) lastIndex() uint64 {
	for i := len(l.segments) - 1; i >= 0; i-- {
		if s := l.segments[i]; s.live() > 0 {
			return s.last
		}
	}
	return 0
}

// GetLog reads an entry.
func (l *Log) GetLog(index uint64, out *raft.Log) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return errClosed
	}
	for i := len(l.segments) - 1; i >= 0; i-- {
		if s := l.segments[i]; s.live() > 0 && s.first <= index && index <= s.last {
			return s.read(index, out)
		}
	}
	return raft.ErrLogNotFound
}

// Newest counts the newest entries that have no more than so many bytes on disk
// together; where there are any, at the least there is one.
func (l *Log) Newest(size int64) (entries uint64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i := len(l.segments) - 1; i >= 0; i-- {
		s := l.segments[i]
		for n := s.live(); n > 0; n-- {
			if size -= s.size(s.first + n - 1); size < 0 {
				return max(entries, 1)
			}
			entries++
		}
	}
	return entries
}

// Bytes is how much room the log takes on the disk.
func (l *Log) Bytes() (bytes int64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.segments {
		bytes += s.room
	}
	return bytes
}

// NoteAgreed takes note that the log is agreed on up to an index. It is written
// with the entries that come next and costs no sync of its own, so what the disk
// knows is a little old: see Settle.
func (l *Log) NoteAgreed(index uint64) { l.agreed.Store(index) }

// AgreedIndex is how far the log is known to be agreed on. It is never more than
// the log holds.
func (l *Log) AgreedIndex() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return min(l.agreed.Load(), l.lastIndex())
}

// Settle writes that index where no entry came that would have taken it along.
func (l *Log) Settle() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	s := l.current()
	if l.isClosed() || s == nil || l.broken || l.agreed.Load() <= l.noted.Load() {
		return nil
	}
	return l.note(s, kindNote)
}

// Set, Get, SetUint64 and GetUint64 keep Raft's values.
func (l *Log) Set(key, value []byte) error { return l.stable.set(key, value) }

// Get returns nil where nothing was set.
func (l *Log) Get(key []byte) ([]byte, error) { return l.stable.get(key), nil }

// SetUint64 is Set for a number.
func (l *Log) SetUint64(key []byte, n uint64) error { return l.stable.setUint64(key, n) }

// GetUint64 returns 0 where nothing was set.
func (l *Log) GetUint64(key []byte) (uint64, error) { return l.stable.getUint64(key) }
