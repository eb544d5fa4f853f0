package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/weirmesh/weir/bench/measure"
)

// result is what all rounds showed of a proxy: the medians, and how far the
// CPU times lie apart.
type result struct {
	name                 string
	cpu, cpuLow, cpuHigh float64
	throughput           float64
	p50, p99             time.Duration
}

func summarise(name string, samples []sample) result {
	var cpu, throughput []float64
	var latencies measure.Histogram
	for i := range samples {
		cpu = append(cpu, samples[i].cpu)
		throughput = append(throughput, samples[i].throughput)
		latencies.Add(&samples[i].latencies)
	}
	return result{
		name: name, cpu: measure.Median(cpu), cpuLow: slices.Min(cpu), cpuHigh: slices.Max(cpu),
		throughput: measure.Median(throughput), p50: latencies.Quantile(0.5), p99: latencies.Quantile(0.99),
	}
}

func printTable(out io.Writer, results []result) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tCPU µs/request\tlow\thigh\t× nginx\t× Caddy\trequests/s\tp50 µs\tp99 µs\t")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%s\t%s\t%.0f\t%d\t%d\t\n", r.name, r.cpu, r.cpuLow, r.cpuHigh,
			ratio(r.cpu, results, "nginx"), ratio(r.cpu, results, "Caddy"), r.throughput,
			r.p50.Microseconds(), r.p99.Microseconds())
	}
	w.Flush()
	for _, t := range targets {
		if line := t.line(results); line != "" {
			fmt.Fprintln(out, line)
		}
	}
}

func ratio(cpu float64, results []result, to string) string {
	if of, ok := find(results, to); ok {
		return fmt.Sprintf("%.2f", cpu/of.cpu)
	}
	return "–"
}

func find(results []result, name string) (result, bool) {
	i := slices.IndexFunc(results, func(r result) bool { return r.name == name })
	if i < 0 {
		return result{}, false
	}
	return results[i], true
}

// target is a promise about two proxies' CPU time per request.
type target struct {
	of, against string
	factor      float64 // of ≤ factor × against + plus
	plus        float64 // µs
}

var targets = []target{
	{of: weirCatchAll, against: "nginx", factor: 1.5},
	{of: weirCatchAll, against: "Caddy", factor: 0.25},
	{of: weirTransform, against: weirCatchAll, factor: 1, plus: 4},
	{of: weirManyHosts, against: weirFewHosts, factor: 1.1},
}

// line says how the target was met, "" when one of the two was not measured.
func (t target) line(results []result) string {
	of, ok := find(results, t.of)
	against, also := find(results, t.against)
	if !ok || !also {
		return ""
	}
	limit := t.factor*against.cpu + t.plus
	verdict := "met"
	if of.cpu > limit {
		verdict = "MISSED"
	}
	return fmt.Sprintf("%s: %s %.1f µs, at most %.1f µs (%s)", verdict, t.of, of.cpu, limit, t.terms())
}

func (t target) terms() string {
	if t.plus > 0 {
		return fmt.Sprintf("%s + %.0f µs", t.against, t.plus)
	}
	return fmt.Sprintf("%.2f × %s", t.factor, t.against)
}
