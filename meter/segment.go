package meter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A segment's file is a row of slots of equal size. The first is the head, each other
// one a series:
//
//	head   magic 8 | epoch 16 | sequence 8 | slots 4 | CRC-32C of these
//	slot   counter 8 | CRC-32C of what follows | 5 lengths of 2 | class 1 | 0 | hour 8 | 5 texts
//
// Numbers are little-endian. An unused slot is zero.
const (
	slotSize = 512
	magic    = "WEIRUSE1"

	headSum  = 36
	slotSum  = 8
	slotFrom = 12 // what the sum is of
	slotText = 32
	maxText  = 4*maxName + maxOperation // so a slot has room, and a message for a full segment

	// sealedBit in a counter says that it does not change any more.
	sealedBit = 1 << 63

	// slotsPerSegment and how many of them are for series without their operation.
	slotsPerSegment = 512
	slotsOverflow   = 64
)

// epoch names one opening of a journal.
type epoch [16]byte

// name is what tells a segment from all others.
type name struct {
	epoch    epoch
	sequence uint64
}

// segment is a file that is counted in.
type segment struct {
	name
	path  string
	data  []byte // mapped; unmapped once nobody can come to the segment any more
	index *index
	used  int // slots, under the journal's lock
	slots int
}

// createSegment makes a file with all its blocks, so that counting cannot run into a
// full disk, and maps it.
func createSegment(path string, n name, slots int) (_ *segment, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	defer f.Close() // the mapping stays
	size := slotSize * (slots + 1)
	if err = reserve(f, int64(size)); err == nil {
		var data []byte
		if data, err = unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
			writeHead(data, n, slots)
			s := &segment{name: n, path: path, data: data, index: newIndex(slots), slots: slots}
			runtime.AddCleanup(s, func(data []byte) { _ = unix.Munmap(data) }, data)
			return s, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("create segment %s: %w", path, err), os.Remove(path))
}

func writeHead(data []byte, n name, slots int) {
	copy(data, magic)
	copy(data[8:], n.epoch[:])
	binary.LittleEndian.PutUint64(data[24:], n.sequence)
	binary.LittleEndian.PutUint32(data[32:], uint32(slots))
	binary.LittleEndian.PutUint32(data[headSum:], crc32.Checksum(data[:headSum], castagnoli))
}

// count adds one to a series that is there. sealed: it came too late.
func (s *segment) count(key *series, hash uint64) (found, sealed bool) {
	c := s.index.find(key, hash)
	if c == nil {
		return false, false
	}
	counted := increment(c.count)
	runtime.KeepAlive(s) // and with it the mapping
	return true, !counted
}

// increment reports false where the counter is sealed.
func increment(c *atomic.Uint64) bool {
	for {
		n := c.Load()
		if n&sealedBit != 0 {
			return false
		}
		if c.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// add makes room for a series and counts n; false: there is none. The caller has the
// journal's lock, and the segment is the active one.
func (s *segment) add(key *series, hash uint64, n uint64) bool {
	if c := s.index.find(key, hash); c != nil {
		c.count.Add(n)
		return true
	}
	room := s.slots
	if key.operation != Overflow {
		room -= slotsOverflow
	}
	if s.used >= room {
		return false
	}
	s.used++
	slot := s.data[slotSize*s.used:][:slotSize]
	stored := key.stored()
	putSeries(slot, &stored)
	c := (*atomic.Uint64)(unsafe.Pointer(&slot[0]))
	c.Store(n) // behind the key: a counter that is not zero has one
	s.index.insert(&counter{series: *key, hash: hash, count: c})
	return true
}

// putSeries writes the key of a slot.
func putSeries(slot []byte, key *series) {
	at := slotText
	for i, text := range key.texts() {
		binary.LittleEndian.PutUint16(slot[slotFrom+2*i:], uint16(len(text)))
		at += copy(slot[at:], text)
	}
	slot[slotFrom+10] = key.class
	binary.LittleEndian.PutUint64(slot[24:], uint64(key.hour))
	binary.LittleEndian.PutUint32(slot[slotSum:], crc32.Checksum(slot[slotFrom:at], castagnoli))
}

func (s *series) texts() [5]string {
	return [5]string{s.tenant, s.app, s.subscription, s.api, s.operation}
}

// seal lets nobody count any more, and syncs what was counted. The segment is no longer
// the active one.
func (s *segment) seal() error {
	for i := 1; i <= s.used; i++ {
		(*atomic.Uint64)(unsafe.Pointer(&s.data[slotSize*i])).Or(sealedBit)
	}
	if err := unix.Msync(s.data, unix.MS_SYNC); err != nil {
		return fmt.Errorf("sync segment %s: %w", s.path, err)
	}
	runtime.KeepAlive(s)
	return nil
}
