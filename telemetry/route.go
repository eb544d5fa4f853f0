package telemetry

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// durationBuckets span a local answer and a slow one, in seconds.
var durationBuckets = [...]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// bucketEnds are durationBuckets as durations.
var bucketEnds = func() (ends [len(durationBuckets)]time.Duration) {
	for i, s := range durationBuckets {
		ends[i] = time.Duration(s * float64(time.Second))
	}
	return ends
}()

// Series counts answers by status and by how long they took: all of it in one
// piece of memory, of which an answer touches two cache lines. With ten
// thousand routes it is misses, not additions, that cost.
type Series struct {
	took    atomic.Int64 // the sum, in nanoseconds
	few     [3]coded     // the first statuses seen
	buckets [len(durationBuckets) + 1]atomic.Uint64

	mu   sync.Mutex
	more map[int]uint64 // the other statuses
}

type coded struct {
	status atomic.Int64
	count  atomic.Uint64
}

// Answered counts one answer. Status 0 means that none came.
func (s *Series) Answered(status int, took time.Duration) {
	s.took.Add(int64(took))
	i := 0
	for i < len(bucketEnds) && took > bucketEnds[i] {
		i++
	}
	s.buckets[i].Add(1)
	want := int64(status) + 1 // 0 is a place not taken yet
	for i := range s.few {
		c := &s.few[i]
		if c.status.Load() == want || c.status.Load() == 0 && c.status.CompareAndSwap(0, want) || c.status.Load() == want {
			c.count.Add(1)
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.more == nil {
		s.more = map[int]uint64{}
	}
	s.more[status]++
}

// byStatus returns the counts of every status seen.
func (s *Series) byStatus() map[int]uint64 {
	counts := map[int]uint64{}
	for i := range s.few {
		if status := s.few[i].status.Load(); status != 0 {
			counts[int(status)-1] = s.few[i].count.Load()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for status, n := range s.more {
		counts[status] += n
	}
	return counts
}

// family is all series of one metric, by their labels. It is a
// prometheus.Collector.
type family struct {
	counts, durations *prometheus.Desc

	shared[[2]string, Series] // by the label values, of which the second may be empty
}

// newFamily describes a counter with the given labels and "code", and a
// histogram with the given labels.
func newFamily(counter, counterHelp, histogram, histogramHelp string, labels ...string) *family {
	return &family{
		counts:    prometheus.NewDesc(counter, counterHelp, append(labels[:len(labels):len(labels)], "code"), nil),
		durations: prometheus.NewDesc(histogram, histogramHelp, labels, nil),
	}
}

// Describe implements prometheus.Collector.
func (f *family) Describe(ch chan<- *prometheus.Desc) {
	ch <- f.counts
	ch <- f.durations
}

// Collect implements prometheus.Collector.
func (f *family) Collect(ch chan<- prometheus.Metric) {
	f.each(func(values [2]string, s *Series) {
		labels := values[:]
		if values[1] == "" {
			labels = values[:1]
		}
		for status, n := range s.byStatus() {
			ch <- prometheus.MustNewConstMetric(f.counts, prometheus.CounterValue, float64(n),
				append(labels[:len(labels):len(labels)], strconv.Itoa(status))...)
		}
		total := uint64(0)
		buckets := make(map[float64]uint64, len(durationBuckets))
		for i := range s.buckets {
			total += s.buckets[i].Load()
			if i < len(durationBuckets) {
				buckets[durationBuckets[i]] = total
			}
		}
		ch <- prometheus.MustNewConstHistogram(f.durations, total, float64(s.took.Load())/1e9, buckets, labels...)
	})
}
