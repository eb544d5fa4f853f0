package proxy

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

var (
	canaryLabels    = []string{"plugin", "role", "version"}
	descCanaryAll   = prometheus.NewDesc("weir_plugin_trial_exchanges_total", "Exchanges that a version of a plugin took part in, while there is a canary.", canaryLabels, nil)
	descCanaryFails = prometheus.NewDesc("weir_plugin_trial_failures_total", "Those of them that the plugin failed.", canaryLabels, nil)
	descCanary5xx   = prometheus.NewDesc("weir_plugin_trial_server_errors_total", "Those of them that were answered with 5xx otherwise.", canaryLabels, nil)
	descCanaryFuel  = prometheus.NewDesc("weir_plugin_trial_fuel_total", "Fuel that they burned.", canaryLabels, nil)
	descCanaryEnded = prometheus.NewDesc("weir_plugin_trial_aborted", "1: this proxy has given the canary up.", []string{"plugin", "version"}, nil)
)

// canaryCollector shows the trials that go on, two versions each; what is over is
// shown no more, so that versions do not add up.
type canaryCollector struct{ proxy *Proxy }

// Describe implements prometheus.Collector.
func (c *canaryCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descCanaryAll, descCanaryFails, descCanary5xx, descCanaryFuel, descCanaryEnded} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *canaryCollector) Collect(ch chan<- prometheus.Metric) {
	c.proxy.shown.Lock()
	defer c.proxy.shown.Unlock()
	for key, t := range c.proxy.versions.trials {
		plugin := key.plugin.Tenant + "/" + key.plugin.Name
		of, stable := t.Counts()
		collectVersion(ch, of, plugin, "canary", shortDigest(t.digest))
		collectVersion(ch, stable, plugin, "stable", shortDigest(t.stable))
		aborted := 0.0
		if t.Aborted() != "" {
			aborted = 1
		}
		ch <- prometheus.MustNewConstMetric(descCanaryEnded, prometheus.GaugeValue, aborted, plugin, shortDigest(t.digest))
	}
}

func collectVersion(ch chan<- prometheus.Metric, n *weirv1.PluginCounts, labels ...string) {
	for desc, value := range map[*prometheus.Desc]uint64{descCanaryAll: n.GetExchanges(), descCanaryFails: n.GetFailures(),
		descCanary5xx: n.GetServerErrors(), descCanaryFuel: n.GetFuel()} {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), labels...)
	}
}

// shortDigest is enough to tell versions apart by.
func shortDigest(digest string) string {
	digits := strings.TrimPrefix(digest, "sha256:")
	return digits[:min(12, len(digits))]
}
