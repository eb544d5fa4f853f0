package router

import (
	"hash/maphash"
	"iter"
	"maps"
	"slices"
)

// edit is the making of one table. What bears the running edit as its owner
// was made by it and may still be changed in place; anything else is shared
// with older tables and is copied before the first change. A finished edit is
// never used again, which freezes all that it owns.
type edit struct{ _ byte }

// index is a map from strings that is copied in small pieces: its keys are
// spread over shards, and a change copies one. Read it freely; set and delete
// want an index whose holder is owned by the edit.
type index[V any] struct {
	shards []shard[V]
	n      int
	owner  *edit
}

type shard[V any] struct {
	m     map[string]V
	owner *edit
}

// A shard holds about shardGrown keys when its index is given more shards, and
// a fourth of that afterwards.
const shardGrown = 128

var seed = maphash.MakeSeed()

func (ix *index[V]) get(k []byte) (v V, ok bool) {
	switch len(ix.shards) {
	case 0:
		return v, false
	case 1:
		v, ok = ix.shards[0].m[string(k)]
	default:
		v, ok = ix.shards[maphash.Bytes(seed, k)&uint64(len(ix.shards)-1)].m[string(k)]
	}
	return v, ok
}

func (ix *index[V]) getString(k string) (v V, ok bool) {
	if len(ix.shards) == 0 {
		return v, false
	}
	v, ok = ix.shards[ix.place(k)].m[k]
	return v, ok
}

func (ix *index[V]) place(k string) int {
	if len(ix.shards) == 1 {
		return 0
	}
	return int(maphash.String(seed, k) & uint64(len(ix.shards)-1))
}

func (ix *index[V]) set(e *edit, k string, v V) {
	if len(ix.shards) == 0 {
		*ix = index[V]{shards: []shard[V]{{m: map[string]V{}, owner: e}}, owner: e}
	}
	m := ix.own(e, k)
	before := len(m)
	m[k] = v
	ix.n += len(m) - before
	if ix.n > shardGrown*len(ix.shards) {
		ix.grow(e)
	}
}

func (ix *index[V]) delete(e *edit, k string) {
	if _, found := ix.getString(k); !found {
		return
	}
	delete(ix.own(e, k), k)
	ix.n--
	if ix.n == 0 {
		*ix = index[V]{}
	}
}

// own returns the map that k belongs in, safe to change.
func (ix *index[V]) own(e *edit, k string) map[string]V {
	if ix.owner != e {
		ix.shards, ix.owner = slices.Clone(ix.shards), e
	}
	s := &ix.shards[ix.place(k)]
	if s.owner != e {
		*s = shard[V]{m: maps.Clone(s.m), owner: e}
	}
	return s.m
}

func (ix *index[V]) grow(e *edit) {
	larger := index[V]{shards: make([]shard[V], 4*len(ix.shards)), n: ix.n, owner: e}
	for i := range larger.shards {
		larger.shards[i] = shard[V]{m: make(map[string]V, shardGrown/4), owner: e}
	}
	for _, s := range ix.shards {
		for k, v := range s.m {
			larger.shards[larger.place(k)].m[k] = v
		}
	}
	*ix = larger
}

func (ix *index[V]) all() iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, s := range ix.shards {
			for _, v := range s.m {
				if !yield(v) {
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
