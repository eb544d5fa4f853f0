package main

import (
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/bench/measure"
)

// The log in process, loaded as the command does.
func TestALoadCountsWrites(t *testing.T) {
	results := table{}
	s := settings{length: 50 * time.Millisecond, loads: []int{1, 20}}
	if err := s.load(t.Context(), system{"Weir, log in process", startLog}, place{t.TempDir() + "/log", 1}, results); err != nil {
		t.Fatal(err)
	}
	for _, clients := range s.loads {
		got := results[row{1, clients, "Weir, log in process"}]
		if len(got) != 1 || got[0].throughput <= 0 || got[0].latencies.Count() < int64(clients) {
			t.Errorf("%d clients: %+v", clients, got)
		}
	}
}

func TestTheTableComparesMediansWithEtcd(t *testing.T) {
	results := table{}
	for _, writes := range []float64{900, 100, 200} {
		results.add(row{3, 16, "Weir, admin API"}, sampleOf(writes))
	}
	results.add(row{3, 16, "etcd"}, sampleOf(400))
	results.add(row{1, 16, "Weir, log in process"}, sample{throughput: 70, flushes: -1, latencies: sampleOf(1).latencies})
	var out strings.Builder
	results.print(&out)
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"members clients writes/s × etcd p50 p99 flushes/s CPU/write",
		"1 16 Weir, log in process 70 – 2.03ms 2.03ms – 0 + 0 µs",
		"3 16 Weir, admin API 200 0.50 2.03ms 2.03ms 50 20 + 10 µs",
		"3 16 etcd 400 1.00 2.03ms 2.03ms 50 20 + 10 µs",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func sampleOf(writes float64) sample {
	var latencies measure.Histogram
	latencies.Record(2 * time.Millisecond)
	return sample{throughput: writes, flushes: 50, latencies: latencies,
		members: 20 * time.Microsecond, clients: 10 * time.Microsecond}
}

func TestNumberedValuesHaveOneLength(t *testing.T) {
	a, b := numbered(1), numbered(1<<62)
	if len(a) != len(value) || len(b) != len(value) || a == b {
		t.Errorf("%q, %q", a, b)
	}
}
