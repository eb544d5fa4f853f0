package waf

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// action is what became of an exchange that was looked at.
type action uint8

const (
	passed   action = iota // no rule matched
	detected               // some did, and it passed
	blocked
	oversize // its body is longer than the limit
	actions  // how many there are
)

func (a action) String() string {
	return [...]string{"passed", "detected", "blocked", "too_large"}[a]
}

// maxRules bounds the rules that are counted for one policy by their numbers; all
// others are counted together, as number 0.
const maxRules = 200

// meter counts for one policy, over all its configurations.
type meter struct {
	policy string
	by     [actions]atomic.Uint64
	busy   atomic.Int64 // nanoseconds
	// waiting are exchanges, late those of them that have waited too long.
	waiting atomic.Int64
	late    atomic.Uint64
	refs    int // under meters.mu

	mu   sync.Mutex
	hits map[int]uint64
}

func (m *meter) hit(rule int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.hits[rule]; !known && len(m.hits) >= maxRules {
		rule = 0
	}
	m.hits[rule]++
}

// meters are those of the policies that there are.
type meters struct {
	mu sync.Mutex
	of map[string]*meter
}

func (s *meters) acquire(policy string) *meter {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.of[policy]
	if m == nil {
		if s.of == nil {
			s.of = map[string]*meter{}
		}
		m = &meter{policy: policy, hits: map[int]uint64{}}
		s.of[policy] = m
	}
	m.refs++
	return m
}

func (s *meters) release(m *meter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.refs--; m.refs == 0 {
		delete(s.of, m.policy)
	}
}

var (
	descTransactions = prometheus.NewDesc("weir_waf_transactions_total",
		"Exchanges that the firewall looked at, by what became of them: passed, detected (rules matched), blocked, too_large.", []string{"policy", "action"}, nil)
	descHits = prometheus.NewDesc("weir_waf_rule_hits_total",
		"Matches of rules, by their numbers; other: of those beyond the first 200 of a policy.", []string{"policy", "rule"}, nil)
	descBusy    = prometheus.NewDesc("weir_waf_seconds_total", "Time that the firewall has taken to look at exchanges, their waiting apart.", []string{"policy"}, nil)
	descWaiting = prometheus.NewDesc("weir_waf_waiting", "Exchanges that wait for their turn to be looked at.", []string{"policy"}, nil)
	descLate    = prometheus.NewDesc("weir_waf_timeouts_total",
		"Exchanges that have waited for their turn until their deadline: they fail, as the policy's failureMode says.", []string{"policy"}, nil)
	descRulesets = prometheus.NewDesc("weir_waf_rulesets", "Rulesets in memory: policies with the same settings share one.", nil, nil)
)

// Describe implements prometheus.Collector.
func (h *Host) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descTransactions, descHits, descRulesets, descBusy, descWaiting, descLate} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (h *Host) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(descRulesets, prometheus.GaugeValue, float64(h.Rulesets()))
	h.meters.mu.Lock()
	defer h.meters.mu.Unlock()
	for _, m := range h.meters.of {
		m.collect(ch)
	}
}

func (m *meter) collect(ch chan<- prometheus.Metric) {
	for a := range actions {
		ch <- prometheus.MustNewConstMetric(descTransactions, prometheus.CounterValue, float64(m.by[a].Load()), m.policy, a.String())
	}
	ch <- prometheus.MustNewConstMetric(descBusy, prometheus.CounterValue, time.Duration(m.busy.Load()).Seconds(), m.policy)
	ch <- prometheus.MustNewConstMetric(descWaiting, prometheus.GaugeValue, float64(m.waiting.Load()), m.policy)
	ch <- prometheus.MustNewConstMetric(descLate, prometheus.CounterValue, float64(m.late.Load()), m.policy)
	m.mu.Lock()
	defer m.mu.Unlock()
	for rule, n := range m.hits {
		name := strconv.Itoa(rule)
		if rule == 0 {
			name = "other"
		}
		ch <- prometheus.MustNewConstMetric(descHits, prometheus.CounterValue, float64(n), m.policy, name)
	}
}
