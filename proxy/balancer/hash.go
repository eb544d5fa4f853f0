package balancer

import (
	"cmp"
	"math"
	"slices"
	"strconv"
)

// Hash is what hashing pickers go by: the same in every proxy. It is not meant
// to withstand those who look for collisions.
func Hash[T string | []byte](key T) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return mix(h)
}

// mix spreads a number's bits over all of the result (splitmix64).
func mix(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}

// Ring is a ring hash (ketama): each endpoint stands at many points of a circle,
// in proportion to its weight, and a key goes to the next point.
type Ring struct {
	weights []uint32
	points  []point
}

type point struct {
	hash  uint64
	index int32
}

// RingSize bounds how many points a ring has: more of them are fairer and take
// more memory.
type RingSize struct{ Min, Max int }

// NewRing makes a Ring of endpoints, each with a name that is the same in every
// proxy. It keeps the weights.
func NewRing(names []string, weights []uint32, size RingSize) *Ring {
	r := &Ring{weights: weights}
	total, least := 0.0, math.Inf(1)
	for _, w := range weights {
		total += float64(w)
		if w > 0 {
			least = min(least, float64(w))
		}
	}
	if total == 0 {
		return r
	}
	// So many that the smallest share is a whole number of points, and that
	// there are Min of them, if that is not above Max.
	scale := min(math.Ceil(least/total*float64(size.Min))/(least/total), float64(size.Max))
	for i, w := range weights {
		r.put(names[i], i, float64(w)/total*scale)
	}
	slices.SortFunc(r.points, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.index, b.index))
	})
	return r
}

// put puts an endpoint on the circle, once at least if it has a weight.
func (r *Ring) put(name string, index int, share float64) {
	if share == 0 {
		return
	}
	for k := range max(1, int(share+0.5)) {
		r.points = append(r.points, point{Hash(name + "_" + strconv.Itoa(k)), int32(index)})
	}
}

// Pick implements [Picker].
func (r *Ring) Pick(key uint64, tried Tried) int {
	return find(r, key, wanted{tried: tried})
}

func (r *Ring) size() int { return len(r.points) }

func (r *Ring) place(key uint64) int {
	low, high := 0, len(r.points) // the first point at or after the key
	for low < high {
		if middle := int(uint(low+high) / 2); r.points[middle].hash < key {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

func (r *Ring) at(place int) int { return int(r.points[place%len(r.points)].index) }

func (r *Ring) weighed() []uint32 { return r.weights }

// Maglev is the consistent hash of the paper of that name (Eisenbud et al.,
// NSDI 2016, section 3.4), with weights: a table in which each endpoint has its
// share of places, and which a change of the endpoints hardly disturbs.
type Maglev struct {
	weights []uint32
	table   []uint16
}

// maglevSize is a prime, and the paper's size for services of up to some
// hundreds of endpoints.
const maglevSize = 65537

// NewMaglev makes a Maglev of endpoints, each with a name that is the same in
// every proxy. It keeps the weights.
func NewMaglev(names []string, weights []uint32) *Maglev {
	m := &Maglev{weights: weights}
	heaviest := slices.Max(append([]uint32{0}, weights...))
	if heaviest == 0 || len(weights) > math.MaxUint16 {
		return m
	}
	// The order of names, not of the list, decides who takes a place first.
	turns := make([]turn, 0, len(weights))
	for i, w := range weights {
		if w > 0 {
			h := Hash(names[i])
			turns = append(turns, turn{index: uint16(i), name: names[i], at: h % maglevSize,
				skip: mix(h^golden)%(maglevSize-1) + 1, weight: float64(w) / float64(heaviest)})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return cmp.Compare(a.name, b.name) })
	m.fill(turns)
	return m
}

// turn is one endpoint that takes places of the table: at, then every skip-th.
type turn struct {
	index        uint16
	name         string
	at, skip     uint64
	weight, owed float64
}

// fill lets the endpoints take turns, the heaviest each time and the others as
// often as their weight says, until the table is full.
func (m *Maglev) fill(turns []turn) {
	m.table = make([]uint16, maglevSize)
	taken := make([]bool, maglevSize)
	for filled := 0; ; {
		for k := range turns {
			t := &turns[k]
			if t.owed += t.weight; t.owed < 1 {
				continue
			}
			t.owed--
			for taken[t.at] {
				t.at = (t.at + t.skip) % maglevSize
			}
			taken[t.at], m.table[t.at] = true, t.index
			if filled++; filled == maglevSize {
				return
			}
		}
	}
}

// Pick implements [Picker].
func (m *Maglev) Pick(key uint64, tried Tried) int {
	return find(m, key, wanted{tried: tried})
}

func (m *Maglev) size() int { return len(m.table) }

func (m *Maglev) place(key uint64) int { return int(key % maglevSize) }

func (m *Maglev) at(place int) int { return int(m.table[place%maglevSize]) }

func (m *Maglev) weighed() []uint32 { return m.weights }
