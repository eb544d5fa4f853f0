package balancer

import (
	"cmp"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync/atomic"
)

// Split chooses by weight, evenly: 90 to 10 is one in every ten, not ten of a
// hundred in a row, and not by luck.
//
// Weights of a small sum, once divided by what they have in common, are laid
// out as a sequence that is gone round; then each round is exact. Others would
// need too long a sequence and are drawn by the golden ratio's multiples,
// which spread over the shares more evenly than chance ever would.
type Split struct {
	only     int      // what is always chosen, or more
	sequence []uint16 // empty: draw
	shares   shares
	// The counter is written by every choice: it has a cache line of its own,
	// lest the fields above be fetched anew each time.
	_       [64]byte
	counter atomic.Uint64
	_       [56]byte
}

// maxSequence bounds the sum of weights, and by it the indices, of a sequence.
const maxSequence = 1024

// golden is 2^64 divided by the golden ratio.
const golden = 0x9e3779b97f4a7c15

// NewSplit makes a Split of the weights.
func NewSplit(weights []uint32) *Split {
	s := &Split{only: only(weights)}
	if s.only != more {
		return s
	}
	s.counter.Store(rand.Uint64())
	if s.sequence = newSequence(weights); s.sequence == nil {
		s.shares = newShares(weights)
	}
	return s
}

// Next chooses, [None] when all weights are 0.
func (s *Split) Next() int {
	if s.only != more {
		return s.only
	}
	n := s.counter.Add(1)
	if s.sequence != nil {
		return int(s.sequence[n%uint64(len(s.sequence))])
	}
	point, _ := bits.Mul64(n*golden, s.shares.total())
	return s.shares.at(point)
}

// newSequence lays the indices out, each as often as its weight says and at
// equal distances; nil when that takes too many.
func newSequence(weights []uint32) []uint16 {
	var divisor uint32
	for _, w := range weights {
		divisor = gcd(divisor, w)
	}
	var total uint64
	for _, w := range weights {
		total += uint64(w / divisor)
	}
	if total > maxSequence || len(weights) > maxSequence {
		return nil
	}
	// The k-th of w turns is at (2k+1)/2w of the round.
	type turn struct {
		index      int
		k2, weight uint64
	}
	turns := make([]turn, 0, total)
	for i, w := range weights {
		for k := range uint64(w / divisor) {
			turns = append(turns, turn{i, 2*k + 1, uint64(w / divisor)})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return cmp.Compare(a.k2*b.weight, b.k2*a.weight) })
	sequence := make([]uint16, len(turns))
	for i, t := range turns {
		sequence[i] = uint16(t.index)
	}
	return sequence
}

func gcd(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
