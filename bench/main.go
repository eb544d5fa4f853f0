// Command bench measures what a proxied request costs: Weir's, and that of
// nginx, HAProxy, Caddy and Traefik where they are installed.
//
//	load (64 keep-alive connections) ─▶ the proxy under test ─▶ upstream (0.5 KB)
//
// Further rows are of TLS, HTTP/2, HTTP/3 and gRPC, with the loads of Go's, quic-go's
// and grpc-go's clients.
//
// Load and upstream are processes of their own, so that what is counted is the
// proxy's work alone: the user and system time of its processes over the
// requests that were served. Every proxy runs two workers, without an access
// log, with connections kept alive on both sides, and otherwise as it comes.
//
// All proxies are started first; then each is loaded in turn, half a second at a
// time, so that whatever else the machine does hits all of them alike. Some turns
// make a round. The table shows the median of the rounds; two proxies are compared
// round by round, and shown is the median of what the rounds said of them.
//
// At the end come the wait for an answer beside HAProxy's, long answers beside
// nginx's, and what connections that wait cost.
//
// A request costs a hundred times more than a look-up in a warm cache, so
// compare numbers of one run, never of two machines.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weirmesh/weir/bench/measure"
)

// settings are the flags.
type settings struct {
	measure.Settings
	seconds, connections int
	profiles             string
}

func main() { measure.Main("bench", run) }

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "upstream":
			return runUpstream(ctx, args[1:])
		case "load":
			return runLoad(ctx, args[1:])
		}
	}
	var s settings
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	s.Define(flags, 5, "proxies")
	flags.IntVar(&s.seconds, "seconds", 3, "how long, each time")
	flags.IntVar(&s.connections, "c", 64, "keep-alive connections")
	flags.StringVar(&s.profiles, "pprof", "", "a directory: load each Weir once more and leave its CPU profile there")
	if done, err := s.Parse(flags, args); done || err != nil {
		return err
	}
	if s.seconds < 1 || s.connections < 1 {
		return errors.New("-seconds and -c must be at least 1")
	}
	return compare(ctx, s)
}

func compare(ctx context.Context, s settings) error {
	dir, err := os.MkdirTemp("", "weir-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// Starting takes seconds, so a run that takes minutes more has hung.
	limit := time.Duration(s.Rounds*s.seconds*20)*time.Second + 5*time.Minute
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	b := &benchmark{settings: s, dir: dir}
	defer b.stop()
	if err := b.startUpstream(ctx); err != nil {
		return err
	}
	b.startAll(ctx)
	if len(b.running) == 0 && !s.Wanted(weirMesh) {
		return errors.New("there is no proxy to measure: build Weir, or install others by make bench-peers")
	}
	for round := range s.Rounds {
		if err := b.round(ctx, round); err != nil {
			return err
		}
	}
	if len(b.running) > 0 {
		printTable(os.Stdout, b.results())
	}
	for _, more := range []func(context.Context, io.Writer) error{b.latency, b.bodies, b.idle, b.mesh} {
		if err := more(ctx, os.Stdout); err != nil {
			return err
		}
	}
	if s.profiles != "" {
		return b.profile(ctx)
	}
	return nil
}

// benchmark is one run: the proxies that could be started and what was
// measured of each.
type benchmark struct {
	settings
	dir       string
	upstream  *measure.Process
	upstreamA string // by HTTP/1.1
	upstreamG string // by gRPC
	running   []*contender
}

// contender is a proxy at work.
type contender struct {
	name    string
	process *measure.Process
	address string
	hosts   int    // how many the load spreads over; 0: by address alone
	host    string // without them the one that it asks for; empty: the address
	over    over
	admin   string // Weir's own port with the debug pages
	samples []sample
}

func (b *benchmark) startUpstream(ctx context.Context) error {
	port, err := measure.FreePort()
	if err != nil {
		return err
	}
	b.upstreamA = fmt.Sprintf("127.0.0.1:%d", port)
	if port, err = measure.FreePort(); err != nil {
		return err
	}
	b.upstreamG = fmt.Sprintf("127.0.0.1:%d", port)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b.upstream, err = measure.Start(filepath.Join(b.dir, "upstream"), nil, self, "upstream", b.upstreamA, b.upstreamG)
	if err != nil {
		return err
	}
	if err := b.upstream.Until(ctx, func() error { return plain.try(ctx, b.upstreamA, "") }); err != nil {
		return err
	}
	return b.upstream.Until(ctx, func() error { return overGRPC.try(ctx, b.upstreamG, "") })
}

// named are those of them that run.
func (b *benchmark) named(names ...string) (found []*contender) {
	for _, name := range names {
		for _, c := range b.running {
			if c.name == name {
				found = append(found, c)
			}
		}
	}
	return found
}

func (b *benchmark) upstreamOf(o over) string {
	if o == overGRPC {
		return b.upstreamG
	}
	return b.upstreamA
}

// startAll starts what is there, and says what is not.
func (b *benchmark) startAll(ctx context.Context) {
	for _, p := range proxies {
		if !b.Wanted(p.name) {
			continue
		}
		c, err := b.start(ctx, p)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: without %s: %v\n", p.name, err)
			continue
		}
		b.running = append(b.running, c)
	}
}

func (b *benchmark) start(ctx context.Context, p proxy) (*contender, error) {
	port, err := measure.FreePort()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, fileName(p.name))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	c := &contender{name: p.name, hosts: p.hosts, over: p.over, address: fmt.Sprintf("127.0.0.1:%d", port)}
	if err := p.start(ctx, c, place{dir: dir, port: port, upstream: b.upstreamOf(p.over)}); err != nil {
		c.process.Stop()
		return nil, err
	}
	host := ""
	if c.hosts > 0 {
		host = hostName(c.hosts - 1)
	}
	if err := c.process.Until(ctx, func() error { return c.over.try(ctx, c.address, host) }); err != nil {
		c.process.Stop()
		return nil, err
	}
	return c, nil
}

// slice is how long a proxy is loaded before it is another's turn: short, so that
// what is compared has met the same machine.
const slice = time.Second / 2

// round loads every proxy for the seconds asked for, in slices: forth in one turn
// and back in the next, so that those who are compared stay neighbours, and neither
// is always the second.
func (b *benchmark) round(ctx context.Context, round int) error {
	if round == 0 {
		for _, c := range b.running { // to warm it up
			if err := b.load(ctx, c, time.Second, new(sample)); err != nil {
				return err
			}
		}
	}
	samples := make([]sample, len(b.running))
	for turn := range int(time.Duration(b.seconds) * time.Second / slice) {
		for i := range b.running {
			if turn%2 == 1 {
				i = len(b.running) - 1 - i
			}
			if err := b.load(ctx, b.running[i], slice, &samples[i]); err != nil {
				return err
			}
		}
	}
	for i, c := range b.running {
		s := samples[i]
		c.samples = append(c.samples, s)
		fmt.Fprintf(os.Stderr, "round %d/%d  %-24s %7.2f µs  %8.0f /s\n", round+1, b.Rounds, c.name, s.cpu(), s.throughput())
	}
	return nil
}

func (b *benchmark) stop() {
	for _, c := range b.running {
		c.process.Stop()
	}
	b.upstream.Stop()
}

// results lists the measured proxies; nginx and Caddy are what others are
// compared with.
func (b *benchmark) results() []result {
	var all []result
	for _, c := range b.running {
		all = append(all, summarise(c.name, c.samples))
	}
	return all
}

// profile loads each Weir once more while it profiles itself.
func (b *benchmark) profile(ctx context.Context) error {
	if err := os.MkdirAll(b.profiles, 0o755); err != nil {
		return err
	}
	for _, c := range b.running {
		if c.admin == "" {
			continue
		}
		saved := make(chan error, 1)
		file := filepath.Join(b.profiles, fileName(c.name)+".prof")
		go func() { saved <- saveProfile(ctx, c.admin, b.seconds, file) }()
		err := b.load(ctx, c, time.Duration(b.seconds+1)*time.Second, new(sample))
		if err := cmp.Or(err, <-saved); err != nil {
			return fmt.Errorf("profile %s: %w", c.name, err)
		}
		fmt.Println("profile:", file)
	}
	return nil
}

// fileName is a proxy's name where a file is called by it.
func fileName(name string) string { return strings.NewReplacer(" ", "-", "/", "").Replace(name) }
