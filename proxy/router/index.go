package router

import (
	"hash/maphash"
	"iter"
	"slices"
)

// edit is the making of one table. What bears the running edit as its owner
// was made by it and may still be changed in place; anything else is shared
// with older tables and is copied before the first change. A finished edit is
// never used again, which freezes all that it owns.
type edit struct{ _ byte }

// index is a hash table from strings that is copied in small pieces: its keys
// are spread over shards, and a change copies one. Read it freely; set and
// delete want an index whose holder is owned by the edit.
//
// It is no Go map because with many hosts a look-up is little else than waiting
// for memory: here it touches a shard, a slot and the key's text, half of what
// a map of maps does.
type index[V any] struct {
	shards []shard[V]
	n      int
	owner  *edit
}

// shard is open-addressed: a key stands in the first free slot from the one
// that its hash names. At least a quarter of the slots is free.
type shard[V any] struct {
	slots []slot[V]
	n     int
	owner *edit
}

type slot[V any] struct {
	hash  uint64 // 0: free
	key   string
	value V
}

const (
	// A shard holds about shardGrown keys when its index is given more shards,
	// and a fourth of that afterwards.
	shardGrown = 96
	fewSlots   = 4
)

var seed = maphash.MakeSeed()

func hashOf(k []byte) uint64 { return maphash.Bytes(seed, k) | 1<<63 }

// The low half of a hash names the slot, the high half the shard.
func shardAt(h uint64, shards int) int { return int(h>>32) & (shards - 1) }

func (ix *index[V]) get(k []byte) (v V, ok bool) {
	if ix.n == 0 {
		return v, false
	}
	h := hashOf(k)
	s := &ix.shards[shardAt(h, len(ix.shards))]
	if s.n == 0 {
		return v, false
	}
	for at := int(uint32(h)); ; at++ {
		found := &s.slots[at&(len(s.slots)-1)]
		if found.hash == h && found.key == string(k) {
			return found.value, true
		}
		if found.hash == 0 {
			return v, false
		}
	}
}

func (ix *index[V]) getString(k string) (V, bool) { return ix.get([]byte(k)) }

func (ix *index[V]) set(e *edit, k string, v V) {
	if len(ix.shards) == 0 {
		*ix = index[V]{shards: make([]shard[V], 1), owner: e}
	}
	if ix.n >= shardGrown*len(ix.shards) {
		ix.grow(e)
	}
	h := hashOf([]byte(k))
	s := ix.own(e, h)
	before := s.n
	s.set(slot[V]{h, k, v})
	ix.n += s.n - before
}

func (ix *index[V]) delete(e *edit, k string) {
	if _, found := ix.getString(k); !found {
		return
	}
	h := hashOf([]byte(k))
	s := ix.own(e, h)
	// A hole would hide what stands behind it: the others are put in again.
	slots := s.slots
	s.slots, s.n = make([]slot[V], len(slots)), 0
	for _, kept := range slots {
		if kept.hash != 0 && kept.key != k {
			s.set(kept)
		}
	}
	ix.n--
	if ix.n == 0 {
		*ix = index[V]{}
	}
}

// own returns the shard of a hash, safe to change.
func (ix *index[V]) own(e *edit, h uint64) *shard[V] {
	if ix.owner != e {
		ix.shards, ix.owner = slices.Clone(ix.shards), e
	}
	s := &ix.shards[shardAt(h, len(ix.shards))]
	if s.owner != e {
		s.slots, s.owner = slices.Clone(s.slots), e
	}
	return s
}

func (s *shard[V]) set(v slot[V]) {
	if 4*(s.n+1) > 3*len(s.slots) {
		old := s.slots
		s.slots, s.n = make([]slot[V], max(fewSlots, 2*len(old))), 0
		for _, moved := range old {
			if moved.hash != 0 {
				s.set(moved)
			}
		}
	}
	for at := int(uint32(v.hash)); ; at++ {
		place := &s.slots[at&(len(s.slots)-1)]
		if place.hash == 0 {
			s.n++
		}
		if place.hash == 0 || place.key == v.key {
			*place = v
			return
		}
	}
}

func (ix *index[V]) grow(e *edit) {
	larger := index[V]{shards: make([]shard[V], 4*len(ix.shards)), n: ix.n, owner: e}
	for i := range ix.shards {
		for _, moved := range ix.shards[i].slots {
			if moved.hash != 0 {
				larger.own(e, moved.hash).set(moved)
			}
		}
	}
	*ix = larger
}

func (ix *index[V]) all() iter.Seq[V] {
	return func(yield func(V) bool) {
		for i := range ix.shards {
			for _, s := range ix.shards[i].slots {
				if s.hash != 0 && !yield(s.value) {
					return
				}
			}
		}
	}
}

// lengths is the set of the lengths that an index's keys have, so that only
// those pieces of a long path or host are looked up that can be a key. A
// length stays in the set when its last key goes: that costs a look-up, never
// a wrong answer.
type lengths struct {
	short [4]uint64 // 0 to 255
	long  int       // the longest of all
}

func (l *lengths) add(n int) {
	if n < 256 {
		l.short[n>>6] |= 1 << (n & 63)
	}
	l.long = max(l.long, n)
}

func (l *lengths) has(n int) bool {
	return n <= l.long && (n >= 256 || l.short[n>>6]&(1<<(n&63)) != 0)
}
