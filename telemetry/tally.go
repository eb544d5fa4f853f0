package telemetry

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Counter counts something that happens to few requests.
type Counter struct {
	count atomic.Uint64
	refs  int // under tally.mu
}

// Inc counts one.
func (c *Counter) Inc() { c.count.Add(1) }

// tally is all counters of one metric, by up to three label values. It is a
// prometheus.Collector. Like family, it forgets what no one holds any more.
type tally struct {
	desc   *prometheus.Desc
	labels int

	mu       sync.Mutex
	counters map[[3]string]*Counter
}

func newTally(name, help string, labels ...string) *tally {
	return &tally{desc: prometheus.NewDesc(name, help, labels, nil), labels: len(labels), counters: map[[3]string]*Counter{}}
}

// acquire returns the counter of some label values, and what gives it up.
func (t *tally) acquire(values ...string) (*Counter, func()) {
	var key [3]string
	copy(key[:], values)
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.counters[key]
	if c == nil {
		c = new(Counter)
		t.counters[key] = c
	}
	c.refs++
	return c, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if c.refs--; c.refs == 0 {
			delete(t.counters, key)
		}
	}
}

// Describe implements prometheus.Collector.
func (t *tally) Describe(ch chan<- *prometheus.Desc) { ch <- t.desc }

// Collect implements prometheus.Collector.
func (t *tally) Collect(ch chan<- prometheus.Metric) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, c := range t.counters {
		ch <- prometheus.MustNewConstMetric(t.desc, prometheus.CounterValue, float64(c.count.Load()), key[:t.labels]...)
	}
}
