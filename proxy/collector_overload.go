package proxy

import "github.com/prometheus/client_golang/prometheus"

var (
	descMemoryLimit = prometheus.NewDesc("weir_memory_limit_bytes", "What the process may have; 0: no limit is known.", nil, nil)
	descMemoryUsed  = prometheus.NewDesc("weir_memory_used_bytes", "What is alive of it, as it was last measured.", nil, nil)
	descShedding    = prometheus.NewDesc("weir_overload_shedding", "1: memory is short, and new work is turned away.", nil, nil)
	descOverloads   = prometheus.NewDesc("weir_overload_total", "How often that began.", nil, nil)
	descShed        = prometheus.NewDesc("weir_overload_shed_requests_total", "Requests turned away because of it.", nil, nil)
)

// overloadCollector reads what is known of memory when it is asked.
type overloadCollector struct{ proxy *Proxy }

// Describe implements prometheus.Collector.
func (c *overloadCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descMemoryLimit, descMemoryUsed, descShedding, descOverloads, descShed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *overloadCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.proxy.cfg.Overload.Stats()
	ch <- prometheus.MustNewConstMetric(descMemoryLimit, prometheus.GaugeValue, float64(s.Limit))
	ch <- prometheus.MustNewConstMetric(descMemoryUsed, prometheus.GaugeValue, float64(s.Used))
	ch <- prometheus.MustNewConstMetric(descShedding, prometheus.GaugeValue, one(s.Shedding))
	ch <- prometheus.MustNewConstMetric(descOverloads, prometheus.CounterValue, float64(s.Times))
	ch <- prometheus.MustNewConstMetric(descShed, prometheus.CounterValue, float64(c.proxy.shed.Load()))
}
