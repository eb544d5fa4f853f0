package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirmesh/weir/proxy/compress"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/listener"
	"github.com/weirmesh/weir/proxy/upstream"
)

var (
	descIdle      = prometheus.NewDesc("weir_upstream_connections_idle", "Connections kept for the next request.", []string{"endpoint"}, nil)
	descActive    = prometheus.NewDesc("weir_upstream_requests_in_flight", "Requests under way.", []string{"endpoint"}, nil)
	descDials     = prometheus.NewDesc("weir_upstream_connections_total", "Connections opened.", []string{"endpoint"}, nil)
	descFailures  = prometheus.NewDesc("weir_upstream_failures_total", "Tries that brought no answer.", []string{"endpoint"}, nil)
	descOpen      = prometheus.NewDesc("weir_downstream_connections", "Client connections open.", []string{"listener"}, nil)
	descUnsecured = prometheus.NewDesc("weir_downstream_handshake_failures_total", "TLS handshakes that failed.", []string{"listener"}, nil)
	descEncoders  = prometheus.NewDesc("weir_compression_encoders", "Answers that are being compressed.", nil, nil)
	descRequests  = prometheus.NewDesc("weir_downstream_requests_total", "Requests of clients, by version of HTTP.", []string{"listener", "protocol"}, nil)
	descRefused   = prometheus.NewDesc("weir_downstream_connections_refused_total",
		"Client connections closed at once, by why: overload, total (too many), client (too many of one), proxy_protocol (no valid header).",
		[]string{"listener", "reason"}, nil)
	descAccepted = prometheus.NewDesc("weir_downstream_connections_total", "Client connections accepted.", []string{"listener"}, nil)
)

// poolCollector reads what pools and listeners count when it is asked, so that
// counting costs the request path nothing more.
type poolCollector struct {
	pools *upstream.Registry
	proxy *Proxy
}

// Describe implements prometheus.Collector.
func (c *poolCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descIdle, descActive, descDials, descFailures, descOpen, descAccepted, descUnsecured, descRefused, descRequests, descEncoders} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *poolCollector) Collect(ch chan<- prometheus.Metric) {
	byAddress := map[string]upstream.Stats{}
	for _, s := range c.pools.Stats() {
		sum := byAddress[s.Address]
		sum.Idle += s.Idle
		sum.InFlight += s.InFlight
		sum.Dials += s.Dials
		sum.Failures += s.Failures
		byAddress[s.Address] = sum
	}
	for address, s := range byAddress {
		ch <- prometheus.MustNewConstMetric(descIdle, prometheus.GaugeValue, float64(s.Idle), address)
		ch <- prometheus.MustNewConstMetric(descActive, prometheus.GaugeValue, float64(s.InFlight), address)
		ch <- prometheus.MustNewConstMetric(descDials, prometheus.CounterValue, float64(s.Dials), address)
		ch <- prometheus.MustNewConstMetric(descFailures, prometheus.CounterValue, float64(s.Failures), address)
	}
	ch <- prometheus.MustNewConstMetric(descEncoders, prometheus.GaugeValue, float64(compress.AtWork()))
	c.proxy.shown.Lock()
	defer c.proxy.shown.Unlock()
	for k, b := range c.proxy.bound {
		collectConnections(ch, k, b.listener)
		if b.quic != nil {
			collectConnections(ch, k.overUDP(), b.quic)
		}
		for protocol := range b.handler.requests {
			if n := b.handler.requests[protocol].Load(); n > 0 {
				ch <- prometheus.MustNewConstMetric(descRequests, prometheus.CounterValue, float64(n), k.String(), exchange.Protocol(protocol).String())
			}
		}
	}
}

func collectConnections(ch chan<- prometheus.Metric, k bindKey, of interface {
	Connections() (open int, accepted uint64)
	Unsecured() uint64
	Refused() map[listener.Refusal]uint64
}) {
	open, accepted := of.Connections()
	ch <- prometheus.MustNewConstMetric(descOpen, prometheus.GaugeValue, float64(open), k.String())
	ch <- prometheus.MustNewConstMetric(descAccepted, prometheus.CounterValue, float64(accepted), k.String())
	ch <- prometheus.MustNewConstMetric(descUnsecured, prometheus.CounterValue, float64(of.Unsecured()), k.String())
	for why, n := range of.Refused() {
		ch <- prometheus.MustNewConstMetric(descRefused, prometheus.CounterValue, float64(n), k.String(), why.String())
	}
}
