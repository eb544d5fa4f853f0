package api

import "github.com/prometheus/client_golang/prometheus"

// What became of a key.
const (
	resultAccepted = iota
	resultMissing
	resultSeveral
	resultUnknown
	resultExpired
	resultNoSubscription
	results
)

var resultNames = [results]string{"accepted", "missing", "several", "unknown", "expired", "no_subscription"}

// keyCounts are those of one Api, found once: requests only add to them.
type keyCounts [results]prometheus.Counter

// keySeries is what is counted of an Api while policies of it are in use.
type keySeries struct {
	counts keyCounts
	uses   int
}

func newKeysCounter() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "weir_api_key_checks_total", Help: "Requests that had to bear a key, and what became of them.",
	}, []string{"api", "result"})
}

// keysOf are the counts of an Api, until they are released as often as they were asked
// for.
func (m *meters) keysOf(api string) (*keyCounts, func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.keyed[api]
	if s == nil {
		s = new(keySeries)
		for i, name := range resultNames {
			s.counts[i] = m.keys.WithLabelValues(api, name)
		}
		m.keyed[api] = s
	}
	s.uses++
	return &s.counts, func() { m.releaseKeys(api, s) }
}

func (m *meters) releaseKeys(api string, s *keySeries) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.uses--; s.uses > 0 {
		return
	}
	delete(m.keyed, api)
	m.keys.DeletePartialMatch(prometheus.Labels{"api": api})
}
