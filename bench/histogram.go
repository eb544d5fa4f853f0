package main

import (
	"math/bits"
	"time"
)

// histogram counts latencies in buckets that are 3 % wide: 32 to each doubling.
type histogram struct {
	Counts []int64
}

const (
	subBits = 5
	buckets = (64 - subBits) << subBits
)

func (h *histogram) record(d time.Duration) {
	if h.Counts == nil {
		h.Counts = make([]int64, buckets)
	}
	h.Counts[bucketOf(d)]++
}

func (h *histogram) add(o *histogram) {
	if h.Counts == nil {
		h.Counts = make([]int64, buckets)
	}
	for i, n := range o.Counts {
		h.Counts[i] += n
	}
}

// quantile is the upper end of the bucket that the q-th part of all falls in.
func (h *histogram) quantile(q float64) time.Duration {
	var total, seen int64
	for _, n := range h.Counts {
		total += n
	}
	for i, n := range h.Counts {
		seen += n
		if n > 0 && float64(seen) >= q*float64(total) {
			return upperEnd(i)
		}
	}
	return 0
}

// bucketOf numbers the buckets: values below 2^subBits have one each, above
// that the leading bit and the subBits after it decide.
func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

func upperEnd(bucket int) time.Duration {
	shift := max(bucket>>subBits-1, 0)
	mantissa := uint64(bucket - shift<<subBits)
	return time.Duration((mantissa+1)<<shift - 1)
}
