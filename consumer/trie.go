package consumer

import "math/bits"

// trie is an immutable map: a hash array mapped trie. With and without return another
// one, which shares all with it but the path to what differs, so that readers need no
// lock and a change of one entry among many costs a few small copies.
type trie[K comparable, V any] struct {
	root *branch[K, V]
	size int
}

// branch has a slot for each bit that is set.
type branch[K comparable, V any] struct {
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

func (t trie[K, V]) with(hash uint64, key K, value V) trie[K, V] {
	size := t.size
	if _, there := t.get(hash, key); !there {
		size++
	}
	return trie[K, V]{t.root.with(0, &leaf[K, V]{hash: hash, key: key, value: value}), size}
}

func (b *branch[K, V]) with(shift uint, l *leaf[K, V]) *branch[K, V] {
	if b == nil {
		b = new(branch[K, V])
	}
	i, bit := b.at(l.hash, shift)
	if b.bits&bit == 0 {
		slots := make([]slot[K, V], 0, len(b.slots)+1)
		slots = append(append(append(slots, b.slots[:i]...), slot[K, V]{leaf: l}), b.slots[i:]...)
		return &branch[K, V]{b.bits | bit, slots}
	}
	was := b.slots[i]
	switch {
	case was.below != nil:
		return b.set(i, slot[K, V]{below: was.below.with(shift+levelBits, l)})
	case was.leaf.hash == l.hash:
		l.next = was.leaf.without(l.key)
		return b.set(i, slot[K, V]{leaf: l})
	}
	// Two hashes that differ part at some level.
	under := &branch[K, V]{slots: []slot[K, V]{{leaf: was.leaf}}}
	_, under.bits = under.at(was.leaf.hash, shift+levelBits)
	return b.set(i, slot[K, V]{below: under.with(shift+levelBits, l)})
}

// set returns a copy in which a slot is another.
func (b *branch[K, V]) set(i int, s slot[K, V]) *branch[K, V] {
	slots := append([]slot[K, V](nil), b.slots...)
	slots[i] = s
	return &branch[K, V]{b.bits, slots}
}

func (t trie[K, V]) without(hash uint64, key K) trie[K, V] {
	if _, there := t.get(hash, key); !there {
		return t
	}
	return trie[K, V]{t.root.without(0, hash, key), t.size - 1}
}

// without is nil when nothing is left. The entry is there.
func (b *branch[K, V]) without(shift uint, hash uint64, key K) *branch[K, V] {
	i, bit := b.at(hash, shift)
	var left slot[K, V]
	if was := b.slots[i]; was.below != nil {
		left.below = was.below.without(shift+levelBits, hash, key)
		if left.below != nil && len(left.below.slots) == 1 && left.below.slots[0].leaf != nil {
			left = left.below.slots[0] // it needs no level of its own any more
		}
	} else {
		left.leaf = was.leaf.without(key)
	}
	switch {
	case left != slot[K, V]{}:
		return b.set(i, left)
	case len(b.slots) == 1:
		return nil
	}
	slots := make([]slot[K, V], 0, len(b.slots)-1)
	slots = append(append(slots, b.slots[:i]...), b.slots[i+1:]...)
	return &branch[K, V]{b.bits &^ bit, slots}
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
