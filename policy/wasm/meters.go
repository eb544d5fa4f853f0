package wasm

import (
	"maps"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
)

// meters holds the metrics that guests define. They belong to a policy of a tenant
// and live as long as there is one: its VMs share them, and a version or a
// configuration that replaces another goes on counting.
type meters struct {
	mu       sync.Mutex
	policies map[meterKey]*policyMeters
	series   map[string]int // by tenant: what Prometheus is told of all its policies
}

type meterKey struct{ tenant, policy, plugin string }

func meterKeyOf(spec policy.Spec) meterKey { return meterKey{spec.Tenant, spec.Name, spec.Plugin} }

// policyMeters is one policy's metrics. A metric's id is its place in the list,
// counted from 1: a guest cannot name another policy's.
type policyMeters struct {
	all    *meters
	key    meterKey
	uses   int // under meters.mu, as is series
	series int

	mu    sync.RWMutex
	list  []*meter
	ids   map[string]uint32
	shown map[string]bool // by the text of exported
}

type meter struct {
	name string
	kind abi.Metric
	// exported is what Prometheus is told, nil where another metric of the policy comes out
	// as the same.
	exported *exported
	// value is the counter's or gauge's value, the histogram's sum.
	value atomic.Uint64
	// buckets[i] counts values of i bits: 0, 1, 2…3, 4…7, ….
	buckets []atomic.Uint64
}

func (m *meters) enter(key meterKey) *policyMeters {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.policies == nil {
		m.policies, m.series = map[meterKey]*policyMeters{}, map[string]int{}
	}
	p := m.policies[key]
	if p == nil {
		p = &policyMeters{all: m, key: key, ids: map[string]uint32{}, shown: map[string]bool{}}
		m.policies[key] = p
	}
	p.uses++
	return p
}

func (m *meters) leave(key meterKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.policies[key]
	if p == nil {
		return
	}
	if p.uses--; p.uses > 0 {
		return
	}
	delete(m.policies, key)
	if m.series[key.tenant] -= p.series; m.series[key.tenant] == 0 {
		delete(m.series, key.tenant)
	}
}

// charge accounts for so many series of a policy, if its tenant may have them.
func (m *meters) charge(p *policyMeters, n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.series[p.key.tenant]+n > maxTenantSeries {
		return false
	}
	m.series[p.key.tenant] += n
	p.series += n
	return true
}

// each shows the policies' metrics, in no order.
func (m *meters) each(show func(key meterKey, m *meter)) {
	m.mu.Lock()
	policies := slices.Collect(maps.Values(m.policies))
	m.mu.Unlock()
	for _, p := range policies {
		p.mu.RLock()
		list := p.list // what is in it stays there
		p.mu.RUnlock()
		for _, m := range list {
			show(p.key, m)
		}
	}
}

// define returns the id of a metric, 0 when it cannot be had: another kind of
// that name exists, or there are too many.
func (p *policyMeters) define(kind abi.Metric, name string) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id, ok := p.ids[name]; ok {
		if p.list[id-1].kind != kind {
			return 0
		}
		return id
	}
	m := &meter{name: name, kind: kind}
	series := 1
	if kind == abi.Histogram {
		m.buckets = make([]atomic.Uint64, 65)
		series = len(histogramBits) + 3
	}
	if len(p.list) >= maxMetrics || !p.all.charge(p, series) {
		return 0
	}
	if e := export(kind, name); !p.shown[e.text()] {
		p.shown[e.text()] = true
		m.exported = e
	}
	p.list = append(p.list, m)
	id := uint32(len(p.list))
	p.ids[name] = id
	return id
}

func (p *policyMeters) meter(id uint32) *meter {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if id == 0 || int64(id) > int64(len(p.list)) {
		return nil
	}
	return p.list[id-1]
}

func proxyDefineMetric(v *vm, s stack) abi.Status {
	name, inside := v.read(s.u32(1), s.u32(2))
	if !inside || !v.writable(s.u32(3)) {
		return abi.InvalidMemoryAccess
	}
	kind := abi.Metric(s.u32(0))
	if kind > abi.Histogram || len(name) == 0 || len(name) > maxMetricName || !utf8.Valid(name) {
		return abi.BadArgument
	}
	id := v.policy.meters.define(kind, strings.Clone(text(name)))
	if id == 0 {
		v.policy.log.line(v, abi.Error, "cannot define metric "+string(name)+": too many, or another kind")
		return abi.BadArgument
	}
	return v.putU32(s.u32(3), id)
}

// proxyIncrementMetric: a counter only grows.
func proxyIncrementMetric(v *vm, s stack) abi.Status {
	m := v.policy.meters.meter(s.u32(0))
	by := int64(s[1])
	switch {
	case m == nil:
		return abi.NotFound
	case m.kind == abi.Histogram, m.kind == abi.Counter && by < 0:
		return abi.BadArgument
	}
	m.value.Add(uint64(by))
	return abi.OK
}

func proxyRecordMetric(v *vm, s stack) abi.Status {
	m := v.policy.meters.meter(s.u32(0))
	if m == nil {
		return abi.NotFound
	}
	switch m.kind {
	case abi.Counter:
		return abi.BadArgument
	case abi.Gauge:
		m.value.Store(s[1])
	case abi.Histogram:
		m.value.Add(s[1])
		m.buckets[bits.Len64(s[1])].Add(1)
	}
	return abi.OK
}

func proxyGetMetric(v *vm, s stack) abi.Status {
	m := v.policy.meters.meter(s.u32(0))
	if m == nil {
		return abi.NotFound
	}
	if m.kind == abi.Histogram {
		return abi.BadArgument
	}
	if !v.mem.WriteUint64Le(s.u32(1), m.value.Load()) {
		return abi.InvalidMemoryAccess
	}
	return abi.OK
}
