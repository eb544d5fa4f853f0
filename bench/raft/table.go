package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/weirmesh/weir/bench/measure"
)

// reference is what others are compared with.
const reference = "etcd"

type row struct {
	members, clients int
	system           string
}

// A table holds the samples of all rounds.
type table map[row][]sample

func (t table) add(r row, s sample) { t[r] = append(t[r], s) }

func (t table) throughput(r row) float64 {
	var all []float64
	for _, s := range t[r] {
		all = append(all, s.throughput)
	}
	if all == nil {
		return 0
	}
	return measure.Median(all)
}

// rows are in the order of print: the systems side by side.
func (t table) rows() []row {
	place := func(r row) int {
		return slices.IndexFunc(systems, func(s system) bool { return s.name == r.system })
	}
	return slices.SortedFunc(maps.Keys(t), func(a, b row) int {
		return cmp.Or(cmp.Compare(a.members, b.members), cmp.Compare(a.clients, b.clients), cmp.Compare(place(a), place(b)))
	})
}

func (t table) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "members\tclients\t\twrites/s\t× %s\tp50\tp99\tflushes/s\tCPU/write\t\n", reference)
	for _, r := range t.rows() {
		var latencies measure.Histogram
		var flushes, members, clients []float64
		for i := range t[r] {
			latencies.Add(&t[r][i].latencies)
			flushes = append(flushes, t[r][i].flushes)
			members = append(members, float64(t[r][i].members.Microseconds()))
			clients = append(clients, float64(t[r][i].clients.Microseconds()))
		}
		ratio, flushed := "–", "–"
		if of := t.throughput(row{r.members, r.clients, reference}); of > 0 {
			ratio = fmt.Sprintf("%.2f", t.throughput(r)/of)
		}
		if n := measure.Median(flushes); n >= 0 {
			flushed = fmt.Sprintf("%.0f", n)
		}
		fmt.Fprintf(w, "%d\t%d\t%s\t%.0f\t%s\t%v\t%v\t%s\t%.0f + %.0f µs\t\n", r.members, r.clients, r.system, t.throughput(r), ratio,
			rounded(latencies.Quantile(0.5)), rounded(latencies.Quantile(0.99)), flushed,
			measure.Median(members), measure.Median(clients))
	}
	w.Flush()
}

func rounded(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
