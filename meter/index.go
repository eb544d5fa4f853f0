package meter

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"
)

// counter is a series of a segment, and where it is counted.
type counter struct {
	series
	hash  uint64
	count *atomic.Uint64 // in the mapped file
}

// index finds the counters of a segment without a lock: a table that is twice as big as
// it ever needs to be, and in which nothing moves or goes.
type index struct {
	table []atomic.Pointer[counter]
	mask  uint64
}

func newIndex(slots int) *index {
	size := uint64(1) << bits.Len(uint(2*slots))
	return &index{table: make([]atomic.Pointer[counter], size), mask: size - 1}
}

// find returns nil where the series is not there yet.
func (i *index) find(key *series, hash uint64) *counter {
	for at := hash & i.mask; ; at = (at + 1) & i.mask {
		c := i.table[at].Load()
		if c == nil || c.hash == hash && c.series == *key {
			return c
		}
	}
}

// insert is called by one goroutine at a time.
func (i *index) insert(c *counter) {
	at := c.hash & i.mask
	for i.table[at].Load() != nil {
		at = (at + 1) & i.mask
	}
	i.table[at].Store(c)
}

var seed = maphash.MakeSeed()

// hash mixes those parts of a series by which one differs from another.
func (s *series) hashed() uint64 {
	const prime = 0x9e3779b97f4a7c15
	h := maphash.String(seed, s.subscription)
	h = (h ^ maphash.String(seed, s.operation)) * prime
	h = (bits.RotateLeft64(h, 29) ^ maphash.String(seed, s.api)) * prime
	h = (bits.RotateLeft64(h, 29) ^ uint64(s.hour)<<3 ^ uint64(s.class)) * prime
	return h ^ h>>32
}
