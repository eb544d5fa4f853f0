package measure

import (
	"math/bits"
	"slices"
	"time"
)

// A Histogram counts latencies in buckets that are 3 % wide: 32 to each doubling.
type Histogram struct {
	Counts []int64
}

const (
	subBits = 5
	buckets = (64 - subBits) << subBits
)

// Record counts one.
func (h *Histogram) Record(d time.Duration) {
	if h.Counts == nil {
		h.Counts = make([]int64, buckets)
	}
	h.Counts[bucketOf(d)]++
}

// Add counts all that another has counted.
func (h *Histogram) Add(o *Histogram) {
	if h.Counts == nil {
		h.Counts = make([]int64, buckets)
	}
	for i, n := range o.Counts {
		h.Counts[i] += n
	}
}

// Count is how many were counted.
func (h *Histogram) Count() (n int64) {
	for _, in := range h.Counts {
		n += in
	}
	return n
}

// Quantile is the upper end of the bucket that the q-th part of all falls in.
func (h *Histogram) Quantile(q float64) time.Duration {
	total, seen := h.Count(), int64(0)
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

// Median is the one in the middle, or between the two that are.
func Median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}
