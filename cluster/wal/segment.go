package wal

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/weirmesh/weir/internal/durable"
)

// header is how a segment begins. It is written before the file gets its name,
// so a file that has one has a whole header, or was damaged.
type header struct {
	nonce [8]byte
	seq   uint64
	// void: entries from this index on in earlier segments are void.
	void uint64
	// prevSeq is the segment before, of which prevEnd bytes count; 0: none.
	prevSeq uint64
	prevEnd int64
	// made is the size that the file was made with, which the newest segment keeps;
	// 0: nobody knows, for an earlier version made it.
	made int64
}

const (
	magic      = "weirlog1"
	headerSize = 64
)

func (h header) encode() []byte {
	b := append(make([]byte, 0, headerSize), magic...)
	b = append(b, h.nonce[:]...)
	for _, n := range []uint64{h.seq, h.void, h.prevSeq, uint64(h.prevEnd)} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.made))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func parseHeader(b []byte) (h header, err error) {
	const sum, more = len(magic) + 8 + 4*8, len(magic) + 8 + 4*8 + 4
	if len(b) < headerSize || !bytes.HasPrefix(b, []byte(magic)) {
		return h, errors.New("it is no segment of a log, or damaged")
	}
	if crc32.Checksum(b[:sum], castagnoli) != binary.LittleEndian.Uint32(b[sum:]) {
		return h, errors.New("its header is damaged")
	}
	if rest := b[more:headerSize]; !bytes.Equal(rest, make([]byte, len(rest))) { // else it is of an earlier version
		if crc32.Checksum(b[:more+8], castagnoli) != binary.LittleEndian.Uint32(b[more+8:]) {
			return h, errors.New("its header is damaged")
		}
		h.made = int64(binary.LittleEndian.Uint64(rest))
	}
	copy(h.nonce[:], b[len(magic):])
	numbers := b[len(magic)+8:]
	h.seq = binary.LittleEndian.Uint64(numbers)
	h.void = binary.LittleEndian.Uint64(numbers[8:])
	h.prevSeq = binary.LittleEndian.Uint64(numbers[16:])
	h.prevEnd = int64(binary.LittleEndian.Uint64(numbers[24:]))
	return h, nil
}

// segment is a file of the log, and where in it the entries are.
type segment struct {
	header
	path string
	f    *os.File
	// end is where the records end, room the size of the file.
	end, room int64
	// first and last are the entries that are neither void nor deleted; there
	// are none where last < first. offsets[i] is where entry base+i begins.
	first, last, base uint64
	offsets           []uint32
	// agreed is the highest index that a record says is agreed on.
	agreed uint64
	// writable: it was begun by this process, and may be appended to.
	writable bool
}

func segmentPath(dir string, seq uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x.seg", seq))
}

// createSegment makes a segment, at its full size: what is appended to it then
// only needs its data synced, and a full disk is noticed before anything is
// written.
func createSegment(dir string, h header, room int64, options Options) (*segment, error) {
	if _, err := rand.Read(h.nonce[:]); err != nil {
		return nil, err
	}
	h.made = room
	s := &segment{header: h, path: segmentPath(dir, h.seq), end: headerSize, room: room, writable: true}
	f, err := durable.Create(s.path)
	if err != nil {
		return nil, err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, room)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = f.Truncate(room)
	}
	if err == nil {
		_, err = f.WriteAt(h.encode(), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make %s: %w", s.path, err), f.Discard())
	}
	commit := f.CommitOpen
	if options.NoSync {
		commit = f.CommitUnsynced
	}
	if options.commit != nil {
		commit = func() error { return options.commit(f) }
	}
	if err := commit(); err != nil {
		return nil, err
	}
	s.f = f.File
	return s, nil
}

// live is how many entries count.
func (s *segment) live() uint64 {
	if s.last < s.first || len(s.offsets) == 0 {
		return 0
	}
	return s.last - s.first + 1
}

// add takes note of an entry that begins at an offset.
func (s *segment) add(index uint64, offset int64) {
	if len(s.offsets) == 0 {
		s.base, s.first = index, index
	}
	s.offsets = append(s.offsets, uint32(offset))
	s.last = index
}

// voidFrom makes the entries from an index on void.
func (s *segment) voidFrom(index uint64) {
	if len(s.offsets) > 0 && s.last >= index {
		s.last = index - 1
	}
}

// size is how many bytes an entry takes, with the notes behind it.
func (s *segment) size(index uint64) int64 {
	from, to := s.span(index)
	return to - from
}

func (s *segment) span(index uint64) (from, to int64) {
	i := index - s.base
	to = s.end
	if i+1 < uint64(len(s.offsets)) {
		to = int64(s.offsets[i+1])
	}
	return int64(s.offsets[i]), to
}

func (s *segment) read(index uint64, out *raft.Log) error {
	from, to := s.span(index)
	b := make([]byte, to-from)
	if _, err := s.f.ReadAt(b, from); err != nil {
		return fmt.Errorf("read entry %d from %s: %w", index, s.path, err)
	}
	r, err := parseRecord(b, s.nonce[:])
	if err != nil || r.kind != kindEntry || r.index != index {
		return fmt.Errorf("read entry %d from %s: the file is damaged", index, s.path)
	}
	r.entry(out)
	return nil
}

// blank voids what stands behind the end. The file keeps its size, and gives back
// the room: one that is shorter than it was made has lost something.
func (s *segment) blank() error {
	const how = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	err := unix.Fallocate(int(s.f.Fd()), how, s.end, s.made-s.end)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = errors.Join(s.f.Truncate(s.end), s.f.Truncate(s.made))
	}
	return err
}

// trim gives back the room that will not be written to any more.
func (s *segment) trim() {
	s.writable = false
	if s.f.Truncate(s.end) == nil {
		s.room = s.end
	}
}

func (s *segment) close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}
