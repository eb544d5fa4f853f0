package telemetry

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Connections counts the connections of a route that carry no HTTP.
type Connections struct {
	// Active are open, In and Out the bytes that clients have sent and got.
	Active, In, Out atomic.Int64

	mu      sync.Mutex
	results map[string]uint64
}

// Ended counts a connection by what became of it, in one word.
func (c *Connections) Ended(result string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.results == nil {
		c.results = map[string]uint64{}
	}
	c.results[result]++
}

// Connections returns the series of a route. Each Connections is undone by one
// ForgetConnections.
func (m *Metrics) Connections(route string) *Connections { return m.connections.acquire(route) }

// ForgetConnections gives up one Connections; the last one drops the series.
func (m *Metrics) ForgetConnections(route string) { m.connections.release(route) }

// connectionFamily is all Connections, by route. It is a prometheus.Collector.
type connectionFamily struct {
	total, active, bytes *prometheus.Desc

	shared[string, Connections]
}

func newConnectionFamily() *connectionFamily {
	return &connectionFamily{
		total: prometheus.NewDesc("weir_connections_total", "Connections of TCP and TLS listeners that have ended, by route and result.",
			[]string{"route", "result"}, nil),
		active: prometheus.NewDesc("weir_connections_active", "Connections of TCP and TLS listeners that are open.", []string{"route"}, nil),
		bytes: prometheus.NewDesc("weir_connection_bytes_total", "Bytes that clients of TCP and TLS listeners have sent (in) and got (out).",
			[]string{"route", "direction"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (f *connectionFamily) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{f.total, f.active, f.bytes} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (f *connectionFamily) Collect(ch chan<- prometheus.Metric) {
	f.each(func(route string, c *Connections) {
		ch <- prometheus.MustNewConstMetric(f.active, prometheus.GaugeValue, float64(c.Active.Load()), route)
		ch <- prometheus.MustNewConstMetric(f.bytes, prometheus.CounterValue, float64(c.In.Load()), route, "in")
		ch <- prometheus.MustNewConstMetric(f.bytes, prometheus.CounterValue, float64(c.Out.Load()), route, "out")
		c.mu.Lock()
		for result, n := range c.results {
			ch <- prometheus.MustNewConstMetric(f.total, prometheus.CounterValue, float64(n), route, result)
		}
		c.mu.Unlock()
	})
}
