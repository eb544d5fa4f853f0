package telemetry

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Counter counts something that happens to few requests.
type Counter struct{ count atomic.Uint64 }

// Inc counts one.
func (c *Counter) Inc() { c.count.Add(1) }

// tally is all counters of one metric, by up to three label values. It is a
// prometheus.Collector.
type tally struct {
	desc   *prometheus.Desc
	labels int

	shared[[3]string, Counter]
}

func newTally(name, help string, labels ...string) *tally {
	return &tally{desc: prometheus.NewDesc(name, help, labels, nil), labels: len(labels)}
}

// counter returns the one of some label values, and what gives it up.
func (t *tally) counter(values ...string) (*Counter, func()) {
	var key [3]string
	copy(key[:], values)
	return t.acquire(key), func() { t.release(key) }
}

// Describe implements prometheus.Collector.
func (t *tally) Describe(ch chan<- *prometheus.Desc) { ch <- t.desc }

// Collect implements prometheus.Collector.
func (t *tally) Collect(ch chan<- prometheus.Metric) {
	t.each(func(key [3]string, c *Counter) {
		ch <- prometheus.MustNewConstMetric(t.desc, prometheus.CounterValue, float64(c.count.Load()), key[:t.labels]...)
	})
}
