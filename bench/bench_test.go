package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/bench/measure"
	"github.com/weirmesh/weir/internal/freeport"
)

// The load and the upstream, without a proxy between them.
func TestLoadCountsWhatTheUpstreamAnswers(t *testing.T) {
	address, calls := freeport.Address(t), freeport.Address(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- runUpstream(ctx, []string{address, calls}) }()
	for o, address := range map[over]string{plain: address, overGRPC: calls} {
		for limit := time.Now().Add(2 * time.Minute); o.try(ctx, address, "") != nil; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("the upstream does not answer: %v", o.try(ctx, address, ""))
			}
		}
		c, err := o.dial(address, requestsFor(address, "", 3), 1)
		if err != nil {
			t.Fatal(err)
		}
		// Ten requests, then the time is up.
		var r report
		if err := r.loop(&countdown{Context: ctx, left: 10}, c, pace{}); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if r.Requests != 10 || r.Latencies.Quantile(0.5) <= 0 {
			t.Errorf("got %d requests, median %v", r.Requests, r.Latencies.Quantile(0.5))
		}
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
	for _, r := range requestsFor("a:1", "", 100) {
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
	at := func(name string, cpu ...float64) result {
		var samples []sample
		for i, c := range cpu {
			s := sample{used: time.Duration(c * 1e6)}
			s.Requests, s.Elapsed = 1000, time.Second/time.Duration(i+1)
			samples = append(samples, s)
		}
		samples[0].Latencies.Record(100 * time.Microsecond)
		return summarise(name, samples)
	}
	var out bytes.Buffer
	// The machine was busy in the first two rounds: the medians alone, 20 and 15,
	// would say that the transform costs 5 µs, not 3.
	printTable(&out, []result{at("nginx", 10, 12, 8), at("Caddy", 80, 80, 80), at(weirCatchAll, 15, 18, 14), at(weirTransform, 20, 21, 16.5)})
	printed := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"nginx 10.0 8.0 12.0 1.00 0.12 2000 100 100",
		"Weir catch-all 15.0 14.0 18.0 1.50 0.19 2000 100 100",
		"Weir transform 20.0 16.5 21.0 2.00",
		"median (lowest to highest)",
		"MISSED: Weir catch-all against nginx, times: 1.50 (1.50 to 1.75), at most 1.25",
		"met: Weir catch-all against Caddy, times: 0.19 (0.17 to 0.23), at most 0.25",
		"met: Weir transform against Weir catch-all, µs more: 3.00 (2.50 to 5.00), at most 3.00",
	} {
		if !strings.Contains(printed, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "hosts") {
		t.Errorf("a target is judged that was not measured:\n%s", out.String())
	}
	out.Reset()
	printTable(&out, []result{at(weirFewHosts, 10, 10, 10), at(weirManyHosts, 12, 10, 12)})
	if want := "MISSED: Weir 10000 hosts against Weir 10 hosts, times: 1.20 (1.00 to 1.20), at most 1.10"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, out.String())
	}
}

func TestARoundLoadsThoseThatAreComparedInTurn(t *testing.T) {
	place := map[string]int{}
	for i, p := range proxies {
		place[p.name] = i
	}
	for _, target := range targets {
		if target.against == "Caddy" || target.of == weirChain || target.of == weirKeyed { // far apart: a neighbour of the neighbour will do
			continue
		}
		if d := place[target.of] - place[target.against]; d != 1 && d != -1 {
			t.Errorf("%s and %s are not loaded one after the other", target.of, target.against)
		}
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
		if s := (measure.Settings{Only: c.only}); s.Wanted(c.name) != c.want {
			t.Errorf("-only %q: %s is wanted: %v", c.only, c.name, !c.want)
		}
	}
}
