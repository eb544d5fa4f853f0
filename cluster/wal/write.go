package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/weirmesh/weir/internal/durable"
)

// StoreLog is StoreLogs for one.
func (l *Log) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs appends entries, which follow one another, and returns when they
// are safe. Where they begin before the log's end they replace what is there
// from there on. After an error none of them counts; the log goes on.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.storeLogs(entries); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

func (l *Log) storeLogs(entries []*raft.Log) error {
	if l.isClosed() {
		return errClosed
	}
	first, last := entries[0].Index, l.lastIndex()
	size := int64(0)
	for i, entry := range entries {
		if entry.Index == 0 || entry.Index != first+uint64(i) {
			return fmt.Errorf("entry %d cannot stand at place %d of those from %d on", entry.Index, i, first)
		}
		one := entrySize(entry)
		if one > maxRecord {
			return fmt.Errorf("entry %d has %d bytes, more than %d", entry.Index, one, maxRecord)
		}
		size += one
	}
	void, safe := first, first-1
	if last == 0 {
		void, safe = 1, 0 // an empty log begins anywhere
	} else if first > last+1 {
		return fmt.Errorf("entry %d does not follow entry %d", first, last)
	}
	s := l.current()
	if s == nil || l.broken || last >= first || s.end+size > s.room {
		var err error
		if s, err = l.begin(void, size); err != nil {
			return err
		}
	}
	return l.append(s, entries, safe)
}

// append writes entries to a segment that has the room.
func (l *Log) append(s *segment, entries []*raft.Log, safe uint64) error {
	agreed := l.agreed.Load()
	b, at := l.buf[:0], make([]int64, len(entries))
	for i, entry := range entries {
		at[i] = s.end + int64(len(b))
		b = appendEntry(b, s.nonce[:], safe, agreed, entry)
	}
	if cap(b) <= 1<<20 {
		l.buf = b
	}
	if err := l.write(s, b); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, entry := range entries {
		s.add(entry.Index, at[i])
	}
	s.end += int64(len(b))
	l.noted.Store(agreed)
	return nil
}

// note writes a record that holds no entry.
func (l *Log) note(s *segment, k kind) error {
	agreed := l.agreed.Load()
	b := appendRecord(nil, s.nonce[:], k, l.lastIndex(), agreed, nil)
	if s.end+int64(len(b)) > s.room {
		return nil // the next segment will say it
	}
	if err := l.write(s, b); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.end += int64(len(b))
	l.noted.Store(agreed)
	return nil
}

// write writes and syncs. A segment of which that failed takes nothing more:
// what the disk holds behind its end is not known.
func (l *Log) write(s *segment, b []byte) error {
	begun := time.Now()
	_, err := s.f.WriteAt(b, s.end)
	if err == nil && !l.options.NoSync {
		err = l.sync(s)
	}
	if err != nil {
		l.broken = true
		return l.undo(s, err)
	}
	if l.options.Synced != nil {
		l.options.Synced(time.Since(begun))
	}
	return nil
}

func (l *Log) sync(s *segment) error {
	if l.options.sync != nil {
		return l.options.sync(s.f)
	}
	return unix.Fdatasync(int(s.f.Fd()))
}

// undo cuts off what a write that failed may have left: the first records of a
// batch may be whole, and would count after a restart, though the caller was
// told that none does. Where even that fails nobody knows, and no reason such as
// a full disk may be told that sounds as if nothing had been written.
func (l *Log) undo(s *segment, failed error) error {
	err := s.blank()
	if err == nil && !l.options.NoSync {
		err = l.sync(s)
	}
	if err != nil {
		return fmt.Errorf("%s: %v, and what was written of it may count later: %v", s.path, failed, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.room = s.end
	return fmt.Errorf("%s: %w", s.path, failed)
}

// current is the segment that is written to, if there is one.
func (l *Log) current() *segment {
	if len(l.segments) == 0 || !l.segments[len(l.segments)-1].writable {
		return nil
	}
	return l.segments[len(l.segments)-1]
}

// begin goes on in a new segment with room for so many bytes; entries from void
// on are no longer there.
func (l *Log) begin(void uint64, size int64) (*segment, error) {
	h := header{seq: 1, void: void}
	var before *segment
	if len(l.segments) > 0 {
		before = l.segments[len(l.segments)-1]
		h.seq, h.prevSeq, h.prevEnd = before.seq+1, before.seq, before.end
	}
	s, err := createSegment(l.dir, h, max(l.options.SegmentBytes, headerSize+size), l.options)
	if err != nil {
		// It may have its name already, and then says how much of the segment before
		// counts: what came to stand behind that would be void.
		if _, missing := os.Lstat(segmentPath(l.dir, h.seq)); !errors.Is(missing, fs.ErrNotExist) {
			l.broken = true
		}
		return nil, err
	}
	if before == nil {
		if err := l.stable.set(keyBegun, []byte{1}); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, earlier := range l.segments {
		earlier.voidFrom(void)
	}
	if before != nil {
		before.trim()
	}
	l.segments, l.broken = append(l.segments, s), false
	return s, nil
}

// DeleteRange deletes the entries from first to last, both included: those at
// the beginning of the log, or those at its end. At the beginning it may leave
// some until the segment that holds them holds nothing else.
func (l *Log) DeleteRange(first, last uint64) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.deleteRange(first, last); err != nil {
		return fmt.Errorf("delete entries %d to %d: %w", first, last, err)
	}
	return nil
}

func (l *Log) deleteRange(first, last uint64) error {
	oldest, err := l.FirstIndex()
	if err != nil || oldest == 0 {
		return err
	}
	newest := l.lastIndex()
	switch {
	case l.isClosed():
		return errClosed
	case last < oldest || first > newest || last < first:
		return nil
	case last >= newest && first <= oldest:
		if _, err = l.begin(1, 0); err == nil {
			l.agreed.Store(0) // that was of what is gone
			l.noted.Store(0)
		}
	case last >= newest:
		_, err = l.begin(first, 0)
	case first <= oldest:
		l.forget(last)
	default:
		err = fmt.Errorf("they lie between others, %d to %d", oldest, newest)
	}
	return errors.Join(err, l.drop())
}

// forget deletes the entries up to one.
func (l *Log) forget(last uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		if s.live() > 0 && s.first <= last {
			s.first = last + 1
		}
	}
}

// drop removes the oldest segments that hold nothing, one after the other: if
// the power goes, what is left has no hole.
func (l *Log) drop() error {
	for len(l.segments) > 1 && l.segments[0].live() == 0 {
		s := l.segments[0]
		// It is gone where only the sync of the directory failed the last time.
		if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := durable.SyncDir(filepath.Dir(s.path)); err != nil {
			return err
		}
		l.mu.Lock()
		l.segments = l.segments[1:]
		l.mu.Unlock()
		if err := s.close(); err != nil {
			return err
		}
	}
	return nil
}

// Clear forgets all entries and all values.
func (l *Log) Clear() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.isClosed() {
		return errClosed
	}
	var err error
	if l.lastIndex() > 0 {
		_, err = l.begin(1, 0)
	}
	l.agreed.Store(0)
	l.noted.Store(0)
	return errors.Join(err, l.drop(), l.stable.clear(keyBegun))
}
