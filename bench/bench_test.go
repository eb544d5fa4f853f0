package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/bench/measure"
)

// The load and the upstream, without a proxy between them.
func TestLoadCountsWhatTheUpstreamAnswers(t *testing.T) {
	port, err := measure.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- runUpstream(ctx, []string{address}) }()
	for tryGet(address, "") != nil {
		time.Sleep(time.Millisecond)
	}
	// Ten requests, then the time is up.
	var r report
	requests := requestsFor(address, 3)
	counted := &countdown{Context: ctx, left: 10}
	if err := r.loop(counted, address, requests, 1); err != nil {
		t.Fatal(err)
	}
	if r.Requests != 10 || r.Latencies.Quantile(0.5) <= 0 {
		t.Errorf("got %d requests, median %v", r.Requests, r.Latencies.Quantile(0.5))
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// countdown is a context that is over once it was asked so often.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

func TestHostsAreAllAskedForOnce(t *testing.T) {
	seen := map[string]int{}
	for _, r := range requestsFor("a:1", 100) {
		_, rest, _ := strings.Cut(string(r), "Host: ")
		host, _, _ := strings.Cut(rest, "\r\n")
		seen[host]++
	}
	for i := range 100 {
		if seen[hostName(i)] != 1 {
			t.Errorf("%s is asked for %d times", hostName(i), seen[hostName(i)])
		}
	}
}

func TestTable(t *testing.T) {
	at := func(name string, cpu float64) result {
		s := sample{cpu: cpu, throughput: 1000}
		s.latencies.Record(100 * time.Microsecond)
		return summarise(name, []sample{s, {cpu: cpu + 1, throughput: 3000}, {cpu: cpu - 1, throughput: 2000}})
	}
	var out bytes.Buffer
	printTable(&out, []result{at("nginx", 10), at("Caddy", 80), at(weirCatchAll, 15), at(weirTransform, 19.5)})
	printed := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"nginx 10.0 9.0 11.0 1.00 0.12 2000 100 100",
		"Weir catch-all 15.0 14.0 16.0 1.50 0.19 2000 100 100",
		"met: Weir catch-all 15.0 µs, at most 15.0 µs (1.50 × nginx)",
		"met: Weir catch-all 15.0 µs, at most 20.0 µs (0.25 × Caddy)",
		"MISSED: Weir transform 19.5 µs, at most 19.0 µs (Weir catch-all + 4 µs)",
	} {
		if !strings.Contains(printed, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "hosts") {
		t.Errorf("a target is judged that was not measured:\n%s", out.String())
	}
}

func TestOnly(t *testing.T) {
	for _, c := range []struct {
		only, name string
		want       bool
	}{
		{"", "nginx", true}, {"ngi,caddy", "nginx", true}, {"ngi, CADDY", "Caddy", true},
		{"ngi,caddy", "HAProxy", false}, {"weir", weirManyHosts, true}, {"weir catch", weirManyHosts, false},
	} {
		b := &benchmark{settings: settings{only: c.only}}
		if b.wanted(c.name) != c.want {
			t.Errorf("-only %q: %s is wanted: %v", c.only, c.name, !c.want)
		}
	}
}
