package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// lockDir keeps other processes out of the directory.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("another process uses it")
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// readSegments reads all segments of a directory, the oldest first, and removes
// what a crash left of one that was being made.
func readSegments(dir string, noSync bool) (segments []*segment, err error) {
	defer func() {
		if err != nil {
			for _, s := range segments {
				s.close()
			}
		}
	}()
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range names {
		name := entry.Name()
		switch {
		case strings.HasPrefix(name, ".") && strings.Contains(name, ".seg."):
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return segments, err
			}
		case strings.HasSuffix(name, ".seg"):
			s, err := openSegment(filepath.Join(dir, name))
			if err != nil {
				return segments, err
			}
			segments = append(segments, s)
		}
	}
	slices.SortFunc(segments, func(a, b *segment) int { return strings.Compare(a.path, b.path) })
	return segments, load(dir, segments, noSync)
}

func openSegment(path string) (*segment, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s := &segment{path: path, f: f}
	b := make([]byte, headerSize)
	_, err = f.ReadAt(b, 0)
	if err == nil {
		s.header, err = parseHeader(b)
	}
	if err == nil && path != segmentPath(filepath.Dir(path), s.seq) {
		err = fmt.Errorf("it was named %016x.seg when it was made", s.seq)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), f.Close())
	}
	return s, nil
}

// load reads the records of all segments.
func load(dir string, segments []*segment, noSync bool) error {
	for i, s := range segments {
		if i > 0 && s.prevSeq != segments[i-1].seq {
			return fmt.Errorf("read %s: %s is missing", dir, filepath.Base(segmentPath(dir, s.prevSeq)))
		}
		for _, earlier := range segments[:i] {
			earlier.voidFrom(s.void)
			if earlier.live() == 0 {
				earlier.agreed = 0 // it speaks of another history
			}
		}
		counts := int64(-1)
		if i+1 < len(segments) {
			counts = segments[i+1].prevEnd
		}
		if err := s.load(counts); err != nil {
			return fmt.Errorf("read %s: %w", s.path, err)
		}
	}
	if len(segments) == 0 || noSync {
		return nil
	}
	// What was read may never have been synced: it was not acknowledged, but from
	// now on it counts.
	last := segments[len(segments)-1]
	if err := unix.Fdatasync(int(last.f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", last.path, err)
	}
	return nil
}

// load reads the records of one segment: as many bytes as the next one says
// count, or, in the newest (counts < 0), up to where a crash has cut it off.
func (s *segment) load(counts int64) error {
	info, err := s.f.Stat()
	if err != nil {
		return err
	}
	if s.room = info.Size(); counts > s.room {
		return fmt.Errorf("the file is damaged: it has %d bytes, of which %d were written", s.room, counts)
	}
	if counts < 0 && s.room < s.made {
		return fmt.Errorf("the file is damaged: it has %d bytes, and was made with %d", s.room, s.made)
	}
	data := make([]byte, s.room)
	if _, err := s.f.ReadAt(data, 0); err != nil {
		return err
	}
	whole := counts >= 0
	if !whole {
		counts = s.room
	}
	for s.end = headerSize; s.end < counts; {
		r, err := parseRecord(data[s.end:counts], s.nonce[:])
		if err == nil && r.kind == kindEntry && len(s.offsets) > 0 && r.index != s.last+1 {
			return fmt.Errorf("the file is damaged at %d: entry %d stands behind entry %d", s.end, r.index, s.last)
		}
		if err != nil {
			if whole {
				return fmt.Errorf("the file is damaged at %d", s.end)
			}
			return s.checkEnd(data)
		}
		if r.kind == kindEntry && len(s.offsets) == 0 && s.void > 1 && r.index != s.void {
			return fmt.Errorf("the file is damaged at %d: it begins with entry %d instead of %d", s.end, r.index, s.void)
		}
		if r.kind == kindEntry {
			s.add(r.index, s.end)
		}
		s.agreed = max(s.agreed, r.agreed)
		s.end += r.size
	}
	return nil
}

// checkEnd looks whether what follows the last whole record shows that more was
// there and safe.
func (s *segment) checkEnd(data []byte) error {
	missing := s.void
	if len(s.offsets) > 0 {
		missing = s.last + 1
	}
	for at := s.end; at+recordHead+recordBase <= int64(len(data)); at += alignment {
		if binary.LittleEndian.Uint32(data[at:]) == 0 {
			continue
		}
		r, err := parseRecord(data[at:], s.nonce[:])
		if err == nil && (r.kind == kindClosed || r.safe >= missing) {
			return fmt.Errorf("the file is damaged at %d: entry %d cannot be read, but was safe", s.end, missing)
		}
	}
	return nil
}
