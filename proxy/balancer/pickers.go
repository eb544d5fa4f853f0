package balancer

import (
	"math/bits"
	"math/rand/v2"
)

// RoundRobin takes the endpoints in turn, each as often as its weight says.
type RoundRobin struct {
	split   *Split
	weights []uint32
}

// NewRoundRobin makes a RoundRobin of the weights, which it keeps.
func NewRoundRobin(weights []uint32) *RoundRobin {
	return &RoundRobin{split: NewSplit(weights), weights: weights}
}

// Pick implements [Picker].
func (r *RoundRobin) Pick(_ uint64, tried Tried) int {
	i := r.split.Next()
	if tried.n == 0 || i == None || !tried.Has(i) {
		return i
	}
	// From its neighbour on, so that the load of one that fails is not all put
	// upon another.
	return untried(r.weights, i, tried)
}

// untried returns the first after i that has a weight and was not tried, i
// when there is none.
func untried(weights []uint32, i int, tried Tried) int {
	for step := 1; step < len(weights); step++ {
		if next := (i + step) % len(weights); weights[next] > 0 && !tried.Has(next) {
			return next
		}
	}
	return i
}

// Loads tells how many requests an endpoint is at work on.
type Loads interface {
	InFlight(endpoint int) int64
}

// LeastRequest draws two endpoints by weight and takes the one with less to do
// for its weight. Two suffice to keep away from the slow and the stuck, and,
// unlike the least of all, do not send everything new to one and the same.
type LeastRequest struct {
	weights []uint32
	shares  shares
	only    int
	loads   Loads
}

// NewLeastRequest makes a LeastRequest of the weights, which it keeps.
func NewLeastRequest(weights []uint32, loads Loads) *LeastRequest {
	return &LeastRequest{weights: weights, shares: newShares(weights), only: only(weights), loads: loads}
}

// Pick implements [Picker].
func (l *LeastRequest) Pick(_ uint64, tried Tried) int {
	if l.only != more {
		return l.only
	}
	first, second := l.draw()
	if tried.n > 0 {
		if tried.Has(first) {
			first = second
		}
		if tried.Has(first) {
			return untried(l.weights, first, tried)
		}
		if tried.Has(second) {
			return first
		}
	}
	// On a tie, so also at rest, the first, which was drawn by weight.
	if l.loads.InFlight(second)*int64(l.weights[first]) < l.loads.InFlight(first)*int64(l.weights[second]) {
		return second
	}
	return first
}

// draw returns two different endpoints, each drawn by weight.
func (l *LeastRequest) draw() (first, second int) {
	total := l.shares.total()
	first = l.shares.at(below(total))
	// The points of the first are left out of the second draw.
	point := below(total - l.shares.weight(first))
	if point >= l.shares.before[first] {
		point += l.shares.weight(first)
	}
	return first, l.shares.at(point)
}

// below returns a random number smaller than n.
func below(n uint64) uint64 {
	point, _ := bits.Mul64(rand.Uint64(), n)
	return point
}

// Random draws by weight.
type Random struct {
	weights []uint32
	shares  shares
	only    int
}

// NewRandom makes a Random of the weights, which it keeps.
func NewRandom(weights []uint32) *Random {
	return &Random{weights: weights, shares: newShares(weights), only: only(weights)}
}

// Pick implements [Picker].
func (r *Random) Pick(_ uint64, tried Tried) int {
	if r.only != more {
		return r.only
	}
	i := r.shares.at(below(r.shares.total()))
	if tried.n == 0 || !tried.Has(i) {
		return i
	}
	return untried(r.weights, i, tried)
}
