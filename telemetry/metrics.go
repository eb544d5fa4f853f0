// Package telemetry is what a process tells about itself: metrics in Prometheus
// form, and a proxy's access log. What a server measures, it is asked for when
// somebody looks ([NewServerHandler]).
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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics is everything a proxy measures. Make it with [NewMetrics].
type Metrics struct {
	registry    *prometheus.Registry
	routes      *family
	services    *family
	faults      *tally
	mirrored    *tally
	rejected    *prometheus.CounterVec
	policies    *prometheus.CounterVec
	connections *connectionFamily

	// Revision is the configuration in force, Refused counts those that were
	// refused.
	Revision prometheus.Gauge
	Refused  prometheus.Counter
	LogLost  prometheus.Counter
}

// NewMetrics returns the metrics of one proxy of the given version.
func NewMetrics(version string) *Metrics {
	r := newRegistry(version)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		r.MustRegister(v)
		return v
	}
	m := &Metrics{
		registry: r,
		routes: newFamily("weir_requests_total", "Requests answered, by route and status.",
			"weir_request_duration_seconds", "From a request's first byte to its answer's last.", "route"),
		services: newFamily("weir_upstream_requests_total", "Requests sent to services, by protocol and status (0: no answer).",
			"weir_upstream_request_duration_seconds", "From sending a request to the head of the answer.", "service", "protocol"),
		faults:      newTally("weir_faults_injected_total", "Faults injected, by route and kind.", "route", "fault"),
		mirrored:    newTally("weir_mirrored_requests_total", "Requests that were to be mirrored, by what became of the copy.", "route", "service", "outcome"),
		rejected:    counter("weir_rejected_requests_total", "Messages that were no valid request, by status.", "code"),
		policies:    counter("weir_policy_failures_total", "Policies that failed, by policy.", "policy"),
		connections: newConnectionFamily(),
		Revision:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_config_revision", Help: "The configuration in force."}),
		Refused:     prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_config_refused_total", Help: "Configurations that were refused."}),
		LogLost:     prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_access_log_lost_total", Help: "Access log lines dropped because the log could not follow."}),
	}
	r.MustRegister(m.routes, m.services, m.faults, m.mirrored, m.connections, m.Revision, m.Refused, m.LogLost)
	return m
}

// newRegistry holds what every process measures.
func newRegistry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": version}})
	info.Set(1)
	r.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Register adds what another package measures.
func (m *Metrics) Register(c prometheus.Collector) error { return m.registry.Register(c) }

// Handler serves /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Route returns the series of a route. Equal names share one; each Route is
// undone by one ForgetRoute.
func (m *Metrics) Route(name string) *Series { return m.routes.acquire([2]string{name}) }

// ForgetRoute gives up one Route; the last one drops the series.
func (m *Metrics) ForgetRoute(name string) { m.routes.release([2]string{name}) }

// Service returns the series of a service over one protocol: "h1", "h2" or
// "h3". Each Service is undone by one ForgetService.
func (m *Metrics) Service(name, protocol string) *Series {
	return m.services.acquire([2]string{name, protocol})
}

// ForgetService gives up one Service; the last one drops the series.
func (m *Metrics) ForgetService(name, protocol string) {
	m.services.release([2]string{name, protocol})
}

// Rejected counts a message that was no request.
func (m *Metrics) Rejected(status int) { m.rejected.WithLabelValues(strconv.Itoa(status)).Inc() }

// PolicyFailed counts a failure of a policy.
func (m *Metrics) PolicyFailed(policy string) { m.policies.WithLabelValues(policy).Inc() }

// Fault returns the counter of one kind of fault on a route, and what gives it
// up.
func (m *Metrics) Fault(route, kind string) (*Counter, func()) { return m.faults.counter(route, kind) }

// Mirrored returns the counter of one outcome of a route's copies to a service,
// and what gives it up.
func (m *Metrics) Mirrored(route, service, outcome string) (*Counter, func()) {
	return m.mirrored.counter(route, service, outcome)
}
