// Package balancer chooses: a backend among the weighted ones of a rule
// ([Split]), and an endpoint among those that a service offers ([Picker]).
//
//	members (health, zone, age) ─Weigh─▶ weights ─New…─▶ Picker ─Pick─▶ an index
//
// It knows nothing of what it chooses from but numbers: a choice is an index
// into the list that the caller has, or -1 when there is nothing to choose. It
// does no I/O, a choice allocates nothing, and any number of goroutines choose
// at once.
//
// Weights are shares relative to each other; a weight of 0 is never chosen.
// When the list changes (an endpoint fell ill, a weight was shifted), make a
// new one: that is cheap, and begins at a random place, so that frequent
// changes do not favour the first of the list. What goes by a hash begins
// nowhere: equal members make an equal table in every proxy, and a member that
// leaves moves few but its own keys.
package balancer

import "math"

// None is the choice when every weight is 0, or there are none.
const None = -1

// Picker chooses an endpoint. It avoids those already tried for the same
// request as long as there are others. The key is a [Hash] of what the request
// is told apart by; pickers that do not go by one ignore it.
type Picker interface {
	Pick(key uint64, tried Tried) int
}

// Tried remembers the endpoints that a request has been sent to: the last
// four, more are not told apart. The zero value is none.
type Tried struct {
	n    uint32
	last [4]int32
}

// Add returns the set with an endpoint added.
func (t Tried) Add(i int) Tried {
	t.last[t.n%uint32(len(t.last))] = int32(i)
	t.n++
	return t
}

// Has reports whether the endpoint is in the set.
func (t Tried) Has(i int) bool {
	for k := range min(t.n, uint32(len(t.last))) {
		if t.last[k] == int32(i) {
			return true
		}
	}
	return false
}

// Even returns n equal weights.
func Even(n int) []uint32 {
	weights := make([]uint32, n)
	for i := range weights {
		weights[i] = 1
	}
	return weights
}

// shares are weights to draw from by a point: index i has the points from
// before[i] to before[i+1].
type shares struct {
	before []uint64
}

func newShares(weights []uint32) shares {
	before := make([]uint64, len(weights)+1)
	for i, w := range weights {
		before[i+1] = before[i] + uint64(w)
	}
	return shares{before}
}

func (s shares) total() uint64 { return s.before[len(s.before)-1] }

func (s shares) weight(i int) uint64 { return s.before[i+1] - s.before[i] }

// at returns the index that a point below the total belongs to.
func (s shares) at(point uint64) int {
	low, high := 0, len(s.before)-1
	for high-low > 1 {
		if middle := int(uint(low+high) / 2); s.before[middle] <= point {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}

// only returns the one index that has a weight; None when all are 0; more
// when several have one.
func only(weights []uint32) int {
	found := None
	for i, w := range weights {
		switch {
		case w == 0:
		case found == None:
			found = i
		default:
			return more
		}
	}
	return found
}

const more = math.MaxInt
