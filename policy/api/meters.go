package api

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// logRate is how many violations are logged in a second: a client that does all wrong
// must not fill disks.
const logRate = 20

// meters are what the host counts.
type meters struct {
	violations, keys *prometheus.CounterVec

	mu     sync.Mutex
	keyed  map[string]*keySeries // by their Apis
	second int64
	logged int // in that second
}

func newMeters() *meters {
	return &meters{
		keys: newKeysCounter(), keyed: map[string]*keySeries{},
		violations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_contract_violations_total", Help: "Requests and responses that were not as their API's contract says.",
		}, []string{"api", "of", "mode"}),
	}
}

func (m *meters) violated(api, of, mode string) { m.violations.WithLabelValues(api, of, mode).Inc() }

// mayLog reports whether this second has room for one more line.
func (m *meters) mayLog() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now().Unix(); now != m.second {
		m.second, m.logged = now, 0
	}
	m.logged++
	return m.logged <= logRate
}

// Describe implements prometheus.Collector.
func (h *Host) Describe(to chan<- *prometheus.Desc) {
	h.meters.violations.Describe(to)
	h.meters.keys.Describe(to)
}

// Collect implements prometheus.Collector.
func (h *Host) Collect(to chan<- prometheus.Metric) {
	h.meters.violations.Collect(to)
	h.meters.keys.Collect(to)
}
