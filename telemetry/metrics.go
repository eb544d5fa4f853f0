// Package telemetry is what a proxy tells about itself: metrics in Prometheus
// form and the access log.
//
// # Cost
//
// A metric's child is found once, when a route is compiled, never by labels on
// the request path: counting a request is a handful of atomic additions. The
// access log is encoded into a buffer that a goroutine writes out; a disk that
// cannot follow costs lines, which are counted, never requests.
package telemetry

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics is everything a process measures. Make it with [NewMetrics].
type Metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	upstream  *prometheus.CounterVec
	attempts  *prometheus.HistogramVec
	rejected  *prometheus.CounterVec
	policies  *prometheus.CounterVec

	// Revision is the configuration in force, Refused counts those that were
	// refused.
	Revision prometheus.Gauge
	Refused  prometheus.Counter
	LogLost  prometheus.Counter
}

// durationBuckets span a local answer and a slow one, in seconds.
var durationBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// NewMetrics returns the metrics of one process of the given version.
func NewMetrics(version string) *Metrics {
	r := prometheus.NewRegistry()
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		r.MustRegister(v)
		return v
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: durationBuckets}, labels)
		r.MustRegister(v)
		return v
	}
	m := &Metrics{
		registry:  r,
		requests:  counter("weir_requests_total", "Requests answered, by route and status.", "route", "code"),
		durations: histogram("weir_request_duration_seconds", "From a request's first byte to its answer's last.", "route"),
		upstream:  counter("weir_upstream_requests_total", "Requests sent to services, by protocol and status (0: no answer).", "service", "protocol", "code"),
		attempts:  histogram("weir_upstream_request_duration_seconds", "From sending a request to the head of the answer.", "service"),
		rejected:  counter("weir_rejected_requests_total", "Messages that were no valid request, by status.", "code"),
		policies:  counter("weir_policy_failures_total", "Policies that failed, by policy.", "policy"),
		Revision:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_config_revision", Help: "The configuration in force."}),
		Refused:   prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_config_refused_total", Help: "Configurations that were refused."}),
		LogLost:   prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_access_log_lost_total", Help: "Access log lines dropped because the log could not follow."}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": version}})
	info.Set(1)
	r.MustRegister(m.Revision, m.Refused, m.LogLost, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Register adds what another package measures.
func (m *Metrics) Register(c prometheus.Collector) error { return m.registry.Register(c) }

// Handler serves /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Route is the metrics of one route, resolved.
type Route struct {
	codes    codes
	duration prometheus.Observer
}

// Route returns the metrics of a route; equal names share them.
func (m *Metrics) Route(name string) *Route {
	return &Route{
		codes:    codes{make: func(code string) prometheus.Counter { return m.requests.WithLabelValues(name, code) }},
		duration: m.durations.WithLabelValues(name),
	}
}

// ForgetRoute drops the series of a route that is no more.
func (m *Metrics) ForgetRoute(name string) {
	m.requests.DeletePartialMatch(prometheus.Labels{"route": name})
	m.durations.DeleteLabelValues(name)
}

// Answered counts a request and how long it took.
func (r *Route) Answered(status int, took time.Duration) {
	r.codes.get(status).Inc()
	r.duration.Observe(took.Seconds())
}

// Service is the metrics of one service over one protocol, resolved.
type Service struct {
	codes    codes
	duration prometheus.Observer
}

// Service returns the metrics of a service; protocol is "h1", "h2" or "h3".
func (m *Metrics) Service(name, protocol string) *Service {
	return &Service{
		codes:    codes{make: func(code string) prometheus.Counter { return m.upstream.WithLabelValues(name, protocol, code) }},
		duration: m.attempts.WithLabelValues(name),
	}
}

// ForgetService drops the series of a service that is no more.
func (m *Metrics) ForgetService(name string) {
	m.upstream.DeletePartialMatch(prometheus.Labels{"service": name})
	m.attempts.DeleteLabelValues(name)
}

// Attempted counts one try: status 0 means that no answer came.
func (s *Service) Attempted(status int, took time.Duration) {
	s.codes.get(status).Inc()
	s.duration.Observe(took.Seconds())
}

// Rejected counts a message that was no request.
func (m *Metrics) Rejected(status int) { m.rejected.WithLabelValues(strconv.Itoa(status)).Inc() }

// PolicyFailed counts a failure of a policy.
func (m *Metrics) PolicyFailed(policy string) { m.policies.WithLabelValues(policy).Inc() }

// codes finds the counter of a status. A route answers with few of them, so a
// short list that is only ever extended beats a map.
type codes struct {
	make func(code string) prometheus.Counter
	list atomic.Pointer[[]coded]
}

type coded struct {
	status  int
	counter prometheus.Counter
}

func (c *codes) get(status int) prometheus.Counter {
	for {
		list := c.list.Load()
		if list != nil {
			for i := range *list {
				if (*list)[i].status == status {
					return (*list)[i].counter
				}
			}
		}
		var longer []coded
		if list != nil {
			longer = append(longer, *list...)
		}
		longer = append(longer, coded{status, c.make(strconv.Itoa(status))})
		c.list.CompareAndSwap(list, &longer)
	}
}
