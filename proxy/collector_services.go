package proxy

import "github.com/prometheus/client_golang/prometheus"

var (
	ofEndpoint = []string{"service", "endpoint"}
	ofService  = []string{"service"}

	descHealth = prometheus.NewDesc("weir_upstream_endpoint_health",
		"1: the endpoint may be used; 0: it is unhealthy or ejected.", ofEndpoint, nil)
	descEjected   = prometheus.NewDesc("weir_upstream_endpoint_ejected", "1: the endpoint is ejected.", ofEndpoint, nil)
	descEjections = prometheus.NewDesc("weir_upstream_ejections_total",
		"Ejections of endpoints, by whether the maximum allowed them.", append(ofEndpoint, "result"), nil)
	descChecks  = prometheus.NewDesc("weir_upstream_health_checks_total", "Health checks, by result.", append(ofEndpoint, "result"), nil)
	descPending = prometheus.NewDesc("weir_upstream_requests_pending", "Requests that wait for a connection.", ofService, nil)
	descRetries = prometheus.NewDesc("weir_upstream_retries_total", "Requests that were sent again.", ofService, nil)
	descHedges  = prometheus.NewDesc("weir_upstream_hedges_total",
		"Requests that were sent to another endpoint, too, by which of the two was answered first.", append(ofService, "result"), nil)
	descOver = prometheus.NewDesc("weir_upstream_overflow_total",
		"What was not done because of a limit: requests, pending (requests), retries.", append(ofService, "limit"), nil)
)

// serviceCollector reads what is known of services when it is asked.
type serviceCollector struct{ *upstreams }

// Describe implements prometheus.Collector.
func (c *serviceCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descHealth, descEjected, descEjections, descChecks, descPending, descRetries, descHedges, descOver} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *serviceCollector) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, n float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, n, labels...)
	}
	for _, s := range c.health.States() {
		send(descHealth, prometheus.GaugeValue, one(s.Healthy), s.Service, s.Address)
		send(descEjected, prometheus.GaugeValue, one(s.Ejected), s.Service, s.Address)
		send(descEjections, prometheus.CounterValue, float64(s.Ejections), s.Service, s.Address, "ejected")
		send(descEjections, prometheus.CounterValue, float64(s.Refused), s.Service, s.Address, "too_many")
		send(descChecks, prometheus.CounterValue, float64(s.Passed), s.Service, s.Address, "passed")
		send(descChecks, prometheus.CounterValue, float64(s.Failed), s.Service, s.Address, "failed")
	}
	for _, s := range c.services.Counts() {
		send(descPending, prometheus.GaugeValue, float64(s.Pending), s.Service)
		send(descRetries, prometheus.CounterValue, float64(s.Retried), s.Service)
		send(descHedges, prometheus.CounterValue, float64(s.HedgesWon), s.Service, "won")
		send(descHedges, prometheus.CounterValue, float64(s.Hedged-s.HedgesWon), s.Service, "lost")
		send(descOver, prometheus.CounterValue, float64(s.RefusedRequests), s.Service, "requests")
		send(descOver, prometheus.CounterValue, float64(s.RefusedPending), s.Service, "pending")
		send(descOver, prometheus.CounterValue, float64(s.RefusedRetries), s.Service, "retries")
	}
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
