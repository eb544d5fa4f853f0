package wasm

import (
	"math/bits"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/weirmesh/weir/policy/wasm/abi"
)

// meters holds the metrics that guests define. They belong to a plugin of a
// tenant and live as long as it has a policy: its VMs share them, and a version
// that replaces another goes on counting.
type meters struct {
	mu      sync.Mutex
	plugins map[pluginKey]*pluginMeters
}

type pluginKey struct{ tenant, plugin string }

// pluginMeters is one plugin's metrics. A metric's id is its place in the list,
// counted from 1: a guest cannot name another plugin's.
type pluginMeters struct {
	policies int // under meters.mu

	mu   sync.RWMutex
	list []*meter
	ids  map[string]uint32
}

type meter struct {
	name string
	kind abi.Metric
	// value is the counter's or gauge's value, the histogram's sum.
	value atomic.Uint64
	count atomic.Uint64
	// buckets[i] counts values of i bits: 0, 1, 2…3, 4…7, ….
	buckets []atomic.Uint64
}

func (m *meters) enter(tenant, plugin string) *pluginMeters {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.plugins == nil {
		m.plugins = map[pluginKey]*pluginMeters{}
	}
	key := pluginKey{tenant, plugin}
	p := m.plugins[key]
	if p == nil {
		p = &pluginMeters{ids: map[string]uint32{}}
		m.plugins[key] = p
	}
	p.policies++
	return p
}

func (m *meters) leave(tenant, plugin string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := pluginKey{tenant, plugin}
	if p := m.plugins[key]; p != nil {
		if p.policies--; p.policies == 0 {
			delete(m.plugins, key)
		}
	}
}

// define returns the id of a metric, 0 when it cannot be had: another kind of
// that name exists, or there are too many.
func (p *pluginMeters) define(kind abi.Metric, name string) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id, ok := p.ids[name]; ok {
		if p.list[id-1].kind != kind {
			return 0
		}
		return id
	}
	if len(p.list) >= maxMetrics {
		return 0
	}
	m := &meter{name: name, kind: kind}
	if kind == abi.Histogram {
		m.buckets = make([]atomic.Uint64, 65)
	}
	p.list = append(p.list, m)
	id := uint32(len(p.list))
	p.ids[name] = id
	return id
}

func (p *pluginMeters) meter(id uint32) *meter {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if id == 0 || int64(id) > int64(len(p.list)) {
		return nil
	}
	return p.list[id-1]
}

// Metric is a metric of a plugin, as it stands.
type Metric struct {
	Tenant, Plugin string
	// Name is as the plugin gave it; it may have labels: name{k="v"}.
	Name string
	// Kind is "counter", "gauge" or "histogram".
	Kind string
	// Value is the counter's or the gauge's. For a histogram it is the sum.
	Value uint64
	// Count and Buckets are a histogram's. Buckets[i] counts the values below
	// 1<<i, as far as there are any; all values are below the last.
	Count   uint64
	Buckets []uint64
}

// Metrics lists what the plugins have measured, by tenant, plugin and name.
func (h *Host) Metrics() []Metric {
	h.meters.mu.Lock()
	plugins := make(map[pluginKey]*pluginMeters, len(h.meters.plugins))
	for key, p := range h.meters.plugins {
		plugins[key] = p
	}
	h.meters.mu.Unlock()
	var out []Metric
	for key, p := range plugins {
		p.mu.RLock()
		for _, m := range p.list {
			metric := m.read()
			metric.Tenant, metric.Plugin = key.tenant, key.plugin
			out = append(out, metric)
		}
		p.mu.RUnlock()
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := &out[i], &out[j]
		if a.Tenant != b.Tenant {
			return a.Tenant < b.Tenant
		}
		if a.Plugin != b.Plugin {
			return a.Plugin < b.Plugin
		}
		return a.Name < b.Name
	})
	return out
}

func (m *meter) read() Metric {
	out := Metric{Name: m.name, Kind: m.kind.String(), Value: m.value.Load()}
	if m.kind != abi.Histogram {
		return out
	}
	below := uint64(0)
	out.Count = m.count.Load()
	for i := range m.buckets {
		below += m.buckets[i].Load()
		out.Buckets = append(out.Buckets, below)
		if below >= out.Count {
			break
		}
	}
	return out
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
		m.count.Add(1)
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
