package wasm

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirmesh/weir/policy/wasm/abi"
)

// guestMetrics is a prometheus.Collector of what guests measure.
//
// Their names are their own, and no guest may spoil what others show, or the page as a
// whole: so a family's name bears its kind, for two plugins may use a name for different
// things; and what differs in a policy, but would come out as the same, is shown once.
type guestMetrics struct{ meters *meters }

// GuestMetrics collects what guests measure. It describes nothing before there is some.
func (h *Host) GuestMetrics() prometheus.Collector { return guestMetrics{&h.meters} }

// Describe implements prometheus.Collector.
func (guestMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (g guestMetrics) Collect(ch chan<- prometheus.Metric) {
	g.meters.each(func(key meterKey, m *meter) {
		if e := m.exported; e != nil {
			ch <- m.collect(prometheus.NewDesc(e.family, "Defined by a plugin.", append([]string{"policy", "plugin"}, e.names...), nil),
				append([]string{key.tenant + "/" + key.policy, key.plugin}, e.values...))
		}
	})
}

// histogramBits are the buckets of histograms, by how many bits its largest value has: each
// twice as wide as the one before up to a million, then 16 times. They are the same for
// all, or they could not be added up.
var histogramBits = func() (all []int) {
	for i := range 21 {
		all = append(all, i)
	}
	return append(all, 24, 28, 32, 36, 40)
}()

func (m *meter) collect(desc *prometheus.Desc, labels []string) prometheus.Metric {
	switch m.kind {
	case abi.Counter:
		return prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(m.value.Load()), labels...)
	case abi.Gauge: // one that was lowered below 0 is negative
		return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(int64(m.value.Load())), labels...)
	}
	count, buckets := m.spread()
	return prometheus.MustNewConstHistogram(desc, count, float64(m.value.Load()), buckets, labels...)
}

// spread is how many values a histogram has, and how many are at most so large.
func (m *meter) spread() (count uint64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(histogramBits))
	for i := range m.buckets {
		count += m.buckets[i].Load()
		if slices.Contains(histogramBits, i) {
			buckets[float64(uint64(1)<<i-1)] = count
		}
	}
	return count, buckets
}

// exported is how Prometheus knows a metric, beside the policy and the plugin.
type exported struct {
	family        string
	names, values []string // of the guest's labels, sorted by name
}

// text tells one from another.
func (e *exported) text() string {
	return e.family + "\x00" + strings.Join(e.names, "\x00") + "\x00" + strings.Join(e.values, "\x00")
}

// export makes of a guest's name, which is UTF-8, what Prometheus accepts. What looks
// like labels but is malformed is part of the name.
func export(kind abi.Metric, name string) *exported {
	e := new(exported)
	base, labels, found := strings.Cut(name, "{")
	if !found || !e.parse(labels) {
		base, e.names, e.values = name, nil, nil
	}
	base = plainName(base)
	switch kind {
	case abi.Counter:
		e.family = "weir_plugin_counter_" + strings.TrimSuffix(base, "_total") + "_total"
	case abi.Gauge:
		e.family = "weir_plugin_gauge_" + base
	default:
		// Names with these ends are those of a histogram's series.
		for _, end := range []string{"_bucket", "_count", "_sum", "_created"} {
			if strings.HasSuffix(base, end) {
				base += "_"
			}
		}
		e.family = "weir_plugin_histogram_" + base
	}
	return e
}

// plainName replaces what a name of Prometheus's does not have.
func plainName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, s)
}

// parse reads labels up to the brace that ends them: k="v",k="v"}.
func (e *exported) parse(s string) bool {
	for {
		name, rest, found := strings.Cut(s, "=\"")
		value, rest, ended := unquote(rest)
		name = labelName(strings.TrimSpace(name))
		if !found || !ended || name == "" || len(e.names) == maxMetricLabels {
			return false
		}
		i, again := slices.BinarySearch(e.names, name)
		if again {
			return false
		}
		e.names, e.values = slices.Insert(e.names, i, name), slices.Insert(e.values, i, value)
		if rest == "}" || rest == ",}" {
			return true
		}
		if s, found = strings.CutPrefix(rest, ","); !found {
			return false
		}
	}
}

// labelName is the name of a label as it is shown, "" if it is none. Those that have a
// meaning already become others, as when Prometheus itself meets such.
func labelName(s string) string {
	if s == "" || s != plainName(s) || s[0] >= '0' && s[0] <= '9' || strings.HasPrefix(s, "__") {
		return ""
	}
	switch s {
	case "policy", "plugin", "le", "quantile":
		return "exported_" + s
	}
	return s
}

// unquote reads a value up to the quotation mark that ends it.
func unquote(s string) (value, rest string, ended bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"':
			return b.String(), s[i+1:], true
		case c != '\\':
			b.WriteByte(c)
			continue
		}
		if i++; i == len(s) {
			break
		}
		switch s[i] {
		case 'n':
			b.WriteByte('\n')
		case '"', '\\':
			b.WriteByte(s[i])
		default:
			return "", "", false
		}
	}
	return "", "", false
}
