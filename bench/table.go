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
	rounds               []float64 // the CPU time of each round, in their order
	throughput           float64
	p50, p99             time.Duration
}

func summarise(name string, samples []sample) result {
	var cpu, throughput []float64
	var latencies measure.Histogram
	for i := range samples {
		cpu = append(cpu, samples[i].cpu())
		throughput = append(throughput, samples[i].throughput())
		latencies.Add(&samples[i].Latencies)
	}
	return result{
		name: name, cpu: measure.Median(cpu), cpuLow: slices.Min(cpu), cpuHigh: slices.Max(cpu), rounds: cpu,
		throughput: measure.Median(throughput), p50: latencies.Quantile(0.5), p99: latencies.Quantile(0.99),
	}
}

func printTable(out io.Writer, results []result) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tCPU µs/request\tlow\thigh\t× nginx\t× Caddy\trequests/s\tp50 µs\tp99 µs\t")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%s\t%s\t%.0f\t%d\t%d\t\n", r.name, r.cpu, r.cpuLow, r.cpuHigh,
			ratio(r, results, "nginx"), ratio(r, results, "Caddy"), r.throughput,
			r.p50.Microseconds(), r.p99.Microseconds())
	}
	w.Flush()
	printTargets(out, results)
}

func printTargets(out io.Writer, results []result) {
	var lines []string
	for _, t := range targets {
		if line := t.line(results); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return
	}
	fmt.Fprintln(out, "\nBoth sides of a pair were loaded in each round, one after the other. What the rounds showed, each by itself: median (lowest to highest).")
	for _, line := range lines {
		fmt.Fprintln(out, line)
	}
}

// ratio is the median over the rounds, each compared with itself.
func ratio(of result, results []result, to string) string {
	if against, ok := find(results, to); ok {
		return fmt.Sprintf("%.2f", measure.Median(pairs(of, against, func(of, against float64) float64 { return of / against })))
	}
	return "–"
}

// pairs compares two proxies round by round.
func pairs(of, against result, compare func(of, against float64) float64) []float64 {
	all := make([]float64, min(len(of.rounds), len(against.rounds)))
	for i := range all {
		all[i] = compare(of.rounds[i], against.rounds[i])
	}
	return all
}

func find(results []result, name string) (result, bool) {
	i := slices.IndexFunc(results, func(r result) bool { return r.name == name })
	if i < 0 {
		return result{}, false
	}
	return results[i], true
}

// target is a promise about two proxies' CPU time per request: how many times
// the other's it is at most, or how much more.
//
// It is judged by the median over the rounds of what each round showed. A round
// loads the two of a pair one right after the other, so that a machine which is
// busy with something else is so for both.
type target struct {
	of, against string
	factor      float64 // of ≤ factor × against
	plus        float64 // or, when factor is 0, of ≤ against + plus, in µs
}

var targets = []target{
	{of: weirCatchAll, against: "nginx", factor: 1.25},
	{of: weirCatchAll, against: "Caddy", factor: 0.25},
	{of: weirTransform, against: weirCatchAll, plus: 3},
	{of: weirChain, against: weirCatchAll, plus: 12},
	{of: weirKeyed, against: weirCatchAll, factor: 1.5},
	{of: weirManyHosts, against: weirFewHosts, factor: 1.1},
	{of: weirTLS, against: "nginx TLS", factor: 1.6},
	{of: weirHTTP2, against: "nginx HTTP/2", factor: 2},
	{of: weirHTTP2, against: "Caddy HTTP/2", factor: 0.5},
	{of: weirHTTP3, against: "Caddy HTTP/3", factor: 1 / 1.5},
	{of: weirGRPC, against: "Caddy gRPC", factor: 0.5},
}

// line says how the target was met, "" when one of the two was not measured.
func (t target) line(results []result) string {
	of, ok := find(results, t.of)
	against, also := find(results, t.against)
	if !ok || !also {
		return ""
	}
	compare, limit, words := t.terms()
	rounds := pairs(of, against, compare)
	shown := measure.Median(rounds)
	return fmt.Sprintf("%s: %s against %s %.2f (%.2f to %.2f), at most %.2f",
		measure.Verdict(shown <= limit), t.of, words, shown, slices.Min(rounds), slices.Max(rounds), limit)
}

func (t target) terms() (compare func(of, against float64) float64, limit float64, words string) {
	if t.factor == 0 {
		return func(of, against float64) float64 { return of - against }, t.plus, t.against + ", µs more:"
	}
	return func(of, against float64) float64 { return of / against }, t.factor, t.against + ", times:"
}
