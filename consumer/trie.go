package consumer

import (
	"math/bits"
	"slices"
)

// trie is an immutable map: a hash array mapped trie. With and without return another
// one, which shares all with it but the path to what differs, so that readers need no
// lock and a change of one entry among many costs a few small copies.
//
// Many changes in a row copy less: what an owner has copied once it changes in place,
// until the owner is given up, which it must be before anybody else reads the trie.
type trie[K comparable, V any] struct {
	root *branch[K, V]
	size int
}

// owner is who may change branches that it has made.
type owner struct{ _ byte } // pointers to it differ

// branch has a slot for each bit that is set.
type branch[K comparable, V any] struct {
	owner *owner
	bits  uint32
	slots []slot[K, V]
}

// slot is one of the two.
type slot[K comparable, V any] struct {
	below *branch[K, V]
	leaf  *leaf[K, V]
}

// leaf is an entry; next: others of the same hash.
type leaf[K comparable, V any] struct {
	hash  uint64
	key   K
	value V
	next  *leaf[K, V]
}

// levelBits of the hash choose the slot at each level, the lowest first.
const levelBits = 5

// at is the place of a hash in a branch, and its bit.
func (b *branch[K, V]) at(hash uint64, shift uint) (index int, bit uint32) {
	bit = 1 << (hash >> shift & (1<<levelBits - 1))
	return bits.OnesCount32(b.bits & (bit - 1)), bit
}

func (t trie[K, V]) get(hash uint64, key K) (none V, there bool) {
	for b, shift := t.root, uint(0); b != nil; shift += levelBits {
		i, bit := b.at(hash, shift)
		if b.bits&bit == 0 {
			return none, false
		}
		for l := b.slots[i].leaf; l != nil; l = l.next {
			if l.hash == hash && l.key == key {
				return l.value, true
			}
		}
		b = b.slots[i].below
	}
	return none, false
}

func (t trie[K, V]) with(o *owner, hash uint64, key K, value V) trie[K, V] {
	size := t.size
	if _, there := t.get(hash, key); !there {
		size++
	}
	return trie[K, V]{t.root.with(o, 0, &leaf[K, V]{hash: hash, key: key, value: value}), size}
}

// of is the branch itself if it is the owner's, else a copy that is.
func (b *branch[K, V]) of(o *owner) *branch[K, V] {
	switch {
	case b == nil:
		return &branch[K, V]{owner: o}
	case b.owner == o:
		return b
	}
	return &branch[K, V]{o, b.bits, append(make([]slot[K, V], 0, len(b.slots)+1), b.slots...)}
}

func (b *branch[K, V]) with(o *owner, shift uint, l *leaf[K, V]) *branch[K, V] {
	b = b.of(o)
	i, bit := b.at(l.hash, shift)
	if b.bits&bit == 0 {
		b.bits, b.slots = b.bits|bit, slices.Insert(b.slots, i, slot[K, V]{leaf: l})
		return b
	}
	switch was := b.slots[i]; {
	case was.below != nil:
		b.slots[i].below = was.below.with(o, shift+levelBits, l)
	case was.leaf.hash == l.hash:
		l.next = was.leaf.without(l.key)
		b.slots[i].leaf = l
	default: // two hashes that differ part at some level
		under := &branch[K, V]{owner: o, slots: []slot[K, V]{{leaf: was.leaf}}}
		_, under.bits = under.at(was.leaf.hash, shift+levelBits)
		b.slots[i] = slot[K, V]{below: under.with(o, shift+levelBits, l)}
	}
	return b
}

func (t trie[K, V]) without(o *owner, hash uint64, key K) trie[K, V] {
	if _, there := t.get(hash, key); !there {
		return t
	}
	return trie[K, V]{t.root.without(o, 0, hash, key), t.size - 1}
}

// without is nil when nothing is left. The entry is there.
func (b *branch[K, V]) without(o *owner, shift uint, hash uint64, key K) *branch[K, V] {
	b = b.of(o)
	i, bit := b.at(hash, shift)
	var left slot[K, V]
	if was := b.slots[i]; was.below != nil {
		left.below = was.below.without(o, shift+levelBits, hash, key)
		if left.below != nil && len(left.below.slots) == 1 && left.below.slots[0].leaf != nil {
			left = left.below.slots[0] // it needs no level of its own any more
		}
	} else {
		left.leaf = was.leaf.without(key)
	}
	switch {
	case left != slot[K, V]{}:
		b.slots[i] = left
		return b
	case len(b.slots) == 1:
		return nil
	}
	b.bits, b.slots = b.bits&^bit, slices.Delete(b.slots, i, i+1)
	return b
}

// without is the leaves of a list but for one.
func (l *leaf[K, V]) without(key K) *leaf[K, V] {
	switch {
	case l == nil:
		return nil
	case l.key == key:
		return l.next
	}
	return &leaf[K, V]{l.hash, l.key, l.value, l.next.without(key)}
}
