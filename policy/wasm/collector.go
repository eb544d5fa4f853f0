package wasm

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	policyLabels                       = []string{"policy", "plugin"}
	descExchanges                      = prometheus.NewDesc("weir_policy_exchanges_total", "Exchanges that the policy was asked about.", policyLabels, nil)
	descTraps                          = prometheus.NewDesc("weir_policy_traps_total", "Callbacks of the plugin that failed.", policyLabels, nil)
	descOutOfFuel                      = prometheus.NewDesc("weir_policy_out_of_fuel_total", "Those of them that had burned what they may.", policyLabels, nil)
	descFuel                           = prometheus.NewDesc("weir_policy_fuel_total", "Fuel that all callbacks burned.", policyLabels, nil)
	descDearest                        = prometheus.NewDesc("weir_policy_fuel_max", "The most that one exchange has burned.", policyLabels, nil)
	descVMs                            = prometheus.NewDesc("weir_policy_vms", "Instances of the module.", policyLabels, nil)
	descMemory                         = prometheus.NewDesc("weir_policy_memory_bytes", "Linear memory of all of them.", policyLabels, nil)
	descCalls                          = prometheus.NewDesc("weir_policy_calls", "Calls to services that are under way.", policyLabels, nil)
	descOpen                           = prometheus.NewDesc("weir_policy_circuit_open", "1: the policy is not asked for a while, since it does little but fail.", policyLabels, nil)
	descLines                          = prometheus.NewDesc("weir_policy_log_lines_dropped_total", "Lines of the plugin that were not logged: there were too many.", policyLabels, nil)
	allDescs                           = []*prometheus.Desc{descExchanges, descTraps, descOutOfFuel, descFuel, descDearest, descVMs, descMemory, descCalls, descOpen, descLines}
	_             prometheus.Collector = (*Host)(nil)
)

// Describe implements prometheus.Collector.
func (h *Host) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range allDescs {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Policies that are two for a while, an old
// version and the one that replaces it, are one there.
func (h *Host) Collect(ch chan<- prometheus.Metric) {
	type key struct{ policy, plugin string }
	all := map[key]Status{}
	for _, s := range h.Status() {
		k := key{s.Tenant + "/" + s.Name, s.Plugin}
		all[k] = all[k].with(s)
	}
	for k, s := range all {
		open := 0.0
		if !s.OpenUntil.IsZero() {
			open = 1
		}
		counter := func(d *prometheus.Desc, n uint64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), k.policy, k.plugin)
		}
		gauge := func(d *prometheus.Desc, n float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, k.policy, k.plugin)
		}
		counter(descExchanges, s.Exchanges)
		counter(descTraps, s.Traps)
		counter(descOutOfFuel, s.OutOfFuel)
		counter(descFuel, s.Fuel)
		counter(descLines, s.LinesDropped)
		gauge(descDearest, float64(s.DearestExchange))
		gauge(descVMs, float64(s.VMs))
		gauge(descMemory, float64(s.MemoryBytes))
		gauge(descCalls, float64(s.Calls))
		gauge(descOpen, open)
	}
}

// with adds another version's counts.
func (s Status) with(other Status) Status {
	s.Exchanges += other.Exchanges
	s.Traps += other.Traps
	s.OutOfFuel += other.OutOfFuel
	s.Fuel += other.Fuel
	s.LinesDropped += other.LinesDropped
	s.DearestExchange = max(s.DearestExchange, other.DearestExchange)
	s.VMs += other.VMs
	s.MemoryBytes += other.MemoryBytes
	s.Calls += other.Calls
	if other.OpenUntil.After(s.OpenUntil) {
		s.OpenUntil = other.OpenUntil
	}
	return s
}

// Problem says which policies are not asked, since they do little but fail, and how
// they fail; "": all are.
func (h *Host) Problem() string {
	var all []string
	for _, s := range h.Status() {
		if !s.OpenUntil.IsZero() {
			all = append(all, "policy "+s.Tenant+"/"+s.Name+" of plugin "+s.Plugin+" does little but fail, and is asked only now and then: "+s.LastError)
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "; ")
}
