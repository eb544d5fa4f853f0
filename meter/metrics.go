package meter

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	descPending = prometheus.NewDesc("weir_usage_pending_segments", "Segments of usage that the servers have not yet taken.", nil, nil)
	descOldest  = prometheus.NewDesc("weir_usage_oldest_seconds", "How long the oldest of them has waited.", nil, nil)
	descSent    = prometheus.NewDesc("weir_usage_reported_segments_total", "Segments of usage that the servers have taken.", nil, nil)
	descOver    = prometheus.NewDesc("weir_usage_overflow_total", "Answers that were counted without their operation, for want of room.", nil, nil)
	descHeld    = prometheus.NewDesc("weir_usage_unjournaled", "Answers that are counted in memory alone, for want of room.", nil, nil)
	descTorn    = prometheus.NewDesc("weir_usage_torn_total", "Counters that were skipped because they could not be read.", nil, nil)
	descDamaged = prometheus.NewDesc("weir_usage_damaged_segments_total", "Segments that were set aside: damaged, or refused by the servers.", nil, nil)
)

var _ prometheus.Collector = (*Journal)(nil)

// Describe implements prometheus.Collector.
func (j *Journal) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descPending, descOldest, descSent, descOver, descHeld, descTorn, descDamaged} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (j *Journal) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	count := func(d *prometheus.Desc, v uint64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	p := &j.pending
	p.mu.Lock()
	waits, oldest := len(p.segments), time.Duration(0)
	for _, w := range p.segments {
		oldest = max(oldest, time.Since(w.since))
	}
	p.mu.Unlock()
	j.mu.Lock()
	held := j.unjournaled()
	j.mu.Unlock()
	gauge(descPending, float64(waits))
	gauge(descOldest, oldest.Seconds())
	gauge(descHeld, float64(held))
	count(descSent, p.sent.Load())
	count(descOver, j.overflow.Load())
	count(descTorn, p.torn.Load())
	count(descDamaged, p.damaged.Load())
}
