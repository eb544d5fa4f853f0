package quota

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// meters are what the client counts.
type meters struct {
	exceeded, unavailable, left, waits atomic.Uint64
	calls, failures                    atomic.Uint64
	overshoot                          atomic.Uint64
}

func (m *meters) count(o Outcome) {
	switch o {
	case Exceeded:
		m.exceeded.Add(1)
	case Unavailable:
		m.unavailable.Add(1)
	case Left:
		m.left.Add(1)
	}
}

func (m *meters) overshot(n uint64) {
	for was := m.overshoot.Load(); n > was; was = m.overshoot.Load() {
		if m.overshoot.CompareAndSwap(was, n) {
			return
		}
	}
}

var (
	refusedDesc   = prometheus.NewDesc("weir_quota_refused_total", "Requests that a limit did not admit, by why.", []string{"reason"}, nil)
	waitsDesc     = prometheus.NewDesc("weir_quota_waits_total", "Requests that have waited for tokens to be leased.", nil, nil)
	callsDesc     = prometheus.NewDesc("weir_quota_lease_calls_total", "Calls to the servers for leases, by what became of them.", []string{"result"}, nil)
	overshootDesc = prometheus.NewDesc("weir_quota_overshoot_max", "The most requests that have passed beyond a limit that is not exact.", nil, nil)
	silentDesc    = prometheus.NewDesc("weir_quota_unavailable", "1 while no server leases tokens, else 0.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *Client) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{refusedDesc, waitsDesc, callsDesc, overshootDesc, silentDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Client) Collect(to chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n *atomic.Uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()), labels...)
	}
	m := &c.meters
	count(refusedDesc, &m.exceeded, "exceeded")
	count(refusedDesc, &m.unavailable, "unavailable")
	count(refusedDesc, &m.left, "left")
	count(waitsDesc, &m.waits)
	count(callsDesc, &m.calls, "done")
	count(callsDesc, &m.failures, "failed")
	to <- prometheus.MustNewConstMetric(overshootDesc, prometheus.GaugeValue, float64(m.overshoot.Load()))
	silent := 0.0
	if c.silent() {
		silent = 1
	}
	to <- prometheus.MustNewConstMetric(silentDesc, prometheus.GaugeValue, silent)
}
