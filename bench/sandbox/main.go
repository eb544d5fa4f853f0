// Command sandbox measures how well a policy is kept to itself, on a server and an edge
// of its own:
//
//   - swaps: the module of a policy is exchanged again and again while requests
//     pass it. None may fail, and the edge's memory afterwards is to be what it was.
//   - neighbours: the p99 of a tenant's requests, alone, while another tenant asks as
//     often whose plugin behaves, and while each request of it loops for ever,
//     allocates without end, or traps.
//
// The rounds of what is compared take turns, so that both meet the same machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/weirmesh/weir/bench/measure"
)

type settings struct {
	measure.Settings
	module      string
	config      string
	swaps       int
	rate        float64
	connections int
	profiles    string
}

func main() { measure.Main("bench/sandbox", run) }

func run(ctx context.Context, args []string) error {
	var s settings
	flags := flag.NewFlagSet("sandbox", flag.ContinueOnError)
	s.Define(flags, 5, "parts (swaps, neighbours)")
	flags.StringVar(&s.module, "module", filepath.Join("examples", "plugins", "wasm", "standard.wasm"), "the module that is exchanged; what takes time is compiling it")
	flags.StringVar(&s.config, "config", "{response: {set: {x-stamped: \"yes\"}}}", "the configuration of its policy")
	flags.IntVar(&s.swaps, "swaps", 1_000, "how often the module is exchanged")
	flags.Float64Var(&s.rate, "rate", 1_000, "requests a second of the tenant that is measured")
	flags.IntVar(&s.connections, "c", 8, "keep-alive connections of each")
	flags.StringVar(&s.profiles, "profiles", "", "beginning of the names of two files for the edge's heap, before and after the swaps; empty: none")
	if done, err := s.Parse(flags, args); done || err != nil {
		return err
	}
	if s.swaps < 1 || s.rate <= 0 || s.connections < 1 {
		return errors.New("-swaps, -rate and -c must be more than 0")
	}
	dir, err := os.MkdirTemp("", "weir-sandbox-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := startWeir(ctx, dir, s)
	if err != nil {
		return err
	}
	defer w.stop()
	for _, part := range []struct {
		name string
		run  func(context.Context, *weir, settings) error
	}{{"swaps", swaps}, {"neighbours", neighbours}} {
		if !s.Wanted(part.name) {
			continue
		}
		if err := part.run(ctx, w, s); err != nil {
			return fmt.Errorf("%s: %w: %s", part.name, err, w.lastWords())
		}
	}
	return nil
}

// swapMemory is by how much the memory may have grown at the end, in the words of
// a ratio.
const swapMemory = 1.10

// warmUp is after how many swaps all that is made once is made: it takes so many for the
// pools of what exchanges and configurations need to have their size.
const warmUp = 100

// swaps lets a policy go to and fro between two modules under load.
func swaps(ctx context.Context, w *weir, s settings) error {
	digests, err := w.twoModules(ctx)
	if err != nil {
		return err
	}
	var l load
	l.start(ctx, w.address("a"), s.connections, s.rate)
	turn := func(n int) error {
		for i := range n {
			if err := w.point(ctx, "transform", digests[i%2]); err != nil {
				return err
			}
		}
		return nil
	}
	if err := turn(warmUp); err != nil {
		return err
	}
	before, err := w.memory(ctx)
	if err != nil {
		return err
	}
	if err := w.saveHeap(ctx, s.profile("before")); err != nil {
		return err
	}
	began := time.Now()
	if err := turn(s.swaps); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := w.memory(ctx)
	if err != nil {
		return err
	}
	if err := w.saveHeap(ctx, s.profile("after")); err != nil {
		return err
	}
	if err := l.stop(); err != nil {
		return err
	}
	grown := float64(after.edge) / float64(before.edge)
	fmt.Printf("\n%d swaps in %s, each in force before the next; %d requests meanwhile, p99.9 %s.\n", s.swaps, took.Round(time.Second), l.waits.Count(), l.waits.Quantile(0.999))
	fmt.Printf("%s: requests that failed: %d, none may%s\n", measure.Verdict(l.failed == 0), l.failed, l.why())
	fmt.Printf("%s: the edge's resident memory after over before: %.2f (%.1f and %.1f MiB), at most %.2f\n", measure.Verdict(grown <= swapMemory), grown, mib(after.edge), mib(before.edge), swapMemory)
	fmt.Printf("The server, which remembers changes up to a bound: %.1f and %.1f MiB.\n", mib(after.server), mib(before.server))
	return nil
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// profile is where a profile of the heap goes, "" for nowhere.
func (s *settings) profile(when string) string {
	if s.profiles == "" {
		return ""
	}
	return s.profiles + when + ".pprof"
}

// neighbourP99 is what a neighbour may make of a tenant's p99.
const neighbourP99 = 1.20

func neighbours(ctx context.Context, w *weir, s settings) error {
	bad, err := buildBad(ctx, w.dir)
	if err != nil {
		return err
	}
	for _, tenant := range []string{"b", "c"} {
		if err := w.push(ctx, tenant, "bad", bad); err != nil {
			return err
		}
	}
	if err := w.declareBad(ctx, "c", "behaves"); err != nil {
		return err
	}
	for _, does := range []string{"loops", "allocates", "traps"} {
		if err := w.declareBad(ctx, "b", does); err != nil {
			return err
		}
		c := compared{does: does}
		for range s.Rounds {
			if err := c.round(ctx, w, s); err != nil {
				return err
			}
		}
		c.print()
	}
	return nil
}

// compared is a tenant's waits alone, beside a tenant whose plugin behaves, and
// beside one whose plugin does what it should not.
type compared struct {
	does                   string
	alone, beside, suffers measure.Histogram
	asked                  int64
}

func (c *compared) round(ctx context.Context, w *weir, s settings) error {
	if err := part(ctx, w, s, &c.alone); err != nil {
		return err
	}
	if _, err := withNeighbour(ctx, w, "c", s, &c.beside); err != nil {
		return err
	}
	n, err := withNeighbour(ctx, w, "b", s, &c.suffers)
	c.asked += n
	return err
}

// print judges by the waits alone, and shows beside them what any tenant does to
// another: that one asks at all takes its share of the machine.
func (c *compared) print() {
	alone, beside, suffers := c.alone.Quantile(0.99), c.beside.Quantile(0.99), c.suffers.Quantile(0.99)
	ratio := float64(suffers) / float64(alone)
	fmt.Printf("%s: p99 beside a tenant whose plugin %s, over alone: %.2f (%s and %s; beside one whose plugin behaves %s, %.2f; p50 %s, %s and %s; %d requests of the neighbour), at most %.2f\n",
		measure.Verdict(ratio <= neighbourP99), c.does, ratio, suffers, alone, beside, float64(beside)/float64(alone),
		c.suffers.Quantile(0.5), c.alone.Quantile(0.5), c.beside.Quantile(0.5), c.asked, neighbourP99)
}

const partTime = 3 * time.Second

// part measures the tenant for a while.
func part(ctx context.Context, w *weir, s settings, into *measure.Histogram) error {
	var l load
	l.start(ctx, w.address("a"), s.connections, s.rate)
	select {
	case <-time.After(partTime):
	case <-ctx.Done():
	}
	if err := l.stop(); err != nil {
		return err
	}
	if l.failed > 0 {
		return fmt.Errorf("%d requests of the tenant failed%s", l.failed, l.why())
	}
	into.Add(&l.waits)
	return ctx.Err()
}

// withNeighbour does so while another tenant asks as often, and returns how many
// answers that got.
func withNeighbour(ctx context.Context, w *weir, tenant string, s settings, into *measure.Histogram) (int64, error) {
	other := load{any: true}
	other.start(ctx, w.address(tenant), s.connections, s.rate)
	err := part(ctx, w, s, into)
	err = errors.Join(err, other.stop())
	return other.waits.Count(), err
}
