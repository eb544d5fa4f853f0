package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/weirmesh/weir/bench/measure"
)

// report is what a load process prints at its end.
type report struct {
	Requests  int64
	Errors    int64
	LastError string
	Elapsed   time.Duration
	Latencies measure.Histogram
}

// runLoad is the load process: a closed loop on each connection.
func runLoad(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	address := flags.String("address", "", "")
	connections := flags.Int("connections", 1, "")
	length := flags.Duration("for", time.Second, "")
	hosts := flags.Int("hosts", 0, "")
	host := flags.String("host", "", "")
	speak := flags.String("over", "", "")
	rate := flags.Float64("rate", 0, "") // of all connections together; 0: as fast as they can
	if err := flags.Parse(args); err != nil {
		return err
	}
	requests := requestsFor(*address, *host, *hosts)
	begin := time.Now()
	ctx, cancel := context.WithDeadline(ctx, begin.Add(*length))
	defer cancel()
	reports := make([]report, *connections)
	var all sync.WaitGroup
	var c client
	for i := range reports {
		if i%over(*speak).share() == 0 {
			var err error
			if c, err = over(*speak).dial(*address, requests, i*len(requests) / *connections); err != nil {
				return err
			}
			defer c.Close()
		}
		mine := c
		all.Go(func() {
			pace := newPace(begin, *rate/float64(*connections), float64(i)/float64(*connections))
			if err := reports[i].loop(ctx, mine, pace); err != nil {
				reports[i].Errors++
				reports[i].LastError = err.Error()
			}
		})
	}
	all.Wait()
	var sum report
	for i := range reports {
		sum.add(&reports[i])
	}
	sum.Elapsed = time.Since(begin)
	return json.NewEncoder(os.Stdout).Encode(&sum)
}

// requestsFor is one request, or one for each host in an order that no cache
// foresees.
func requestsFor(address, host string, hosts int) [][]byte {
	if hosts == 0 {
		return [][]byte{getRequest(address, host)}
	}
	requests := make([][]byte, hosts)
	for at, host := range rand.New(rand.NewPCG(7, 7)).Perm(hosts) {
		requests[at] = getRequest(address, hostName(host))
	}
	return requests
}

// pace says when requests are due.
type pace struct {
	begin time.Time
	every time.Duration // 0: as soon as there is an answer to the last one
}

func newPace(begin time.Time, rate, shift float64) pace {
	if rate == 0 {
		return pace{}
	}
	every := time.Duration(float64(time.Second) / rate)
	return pace{begin.Add(time.Duration(shift * float64(every))), every}
}

// next waits until the n-th request is due, and returns when that was.
func (p pace) next(ctx context.Context, n int64, last time.Time) time.Time {
	if p.every == 0 {
		return last
	}
	due := p.begin.Add(time.Duration(n) * p.every)
	if wait := time.Until(due); wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	return due
}

// loop asks for one thing after the other until the time is up. The first that
// fails ends it; one that the end of the time has cut is none.
func (r *report) loop(ctx context.Context, c client, p pace) error {
	last := time.Now()
	for ctx.Err() == nil {
		due := p.next(ctx, r.Requests, last)
		if err := c.ask(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		last = time.Now()
		r.Latencies.Record(last.Sub(due))
		r.Requests++
	}
	return nil
}

func (r *report) add(o *report) {
	r.Requests += o.Requests
	r.Errors += o.Errors
	if o.LastError != "" {
		r.LastError = o.LastError
	}
	r.Latencies.Add(&o.Latencies)
}

// sample is what one round showed of a proxy.
type sample struct {
	used time.Duration // the proxy's processes' time
	report
}

// cpu is the work of a request, in µs.
func (s *sample) cpu() float64 { return float64(s.used.Nanoseconds()) / 1e3 / float64(s.Requests) }

// throughput is requests per second.
func (s *sample) throughput() float64 { return float64(s.Requests) / s.Elapsed.Seconds() }

// load runs a load process against a proxy and counts the proxy's work.
func (b *benchmark) load(ctx context.Context, c *contender, length time.Duration, into *sample) error {
	before, err := c.process.CPU()
	if err != nil {
		return fmt.Errorf("measure %s: %w: %s", c.name, err, c.process.LastWords())
	}
	r, err := spawnLoad(ctx, c, b.connections, length)
	if err != nil {
		return fmt.Errorf("load %s: %w", c.name, err)
	}
	after, err := c.process.CPU()
	if err != nil {
		return fmt.Errorf("measure %s: %w: %s", c.name, err, c.process.LastWords())
	}
	into.used += after - before
	into.Elapsed += r.Elapsed
	into.add(r)
	return nil
}

func spawnLoad(ctx context.Context, c *contender, connections int, length time.Duration, more ...string) (*report, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"load", "-address", c.address, "-connections", strconv.Itoa(connections),
		"-for", length.String(), "-hosts", strconv.Itoa(c.hosts), "-host", c.host,
		"-over", string(c.over)}, more...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out, diagnostics bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, diagnostics.Bytes())
	}
	r := new(report)
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		return nil, err
	}
	switch {
	case r.Errors > 0:
		return nil, fmt.Errorf("%d of %d connections failed: %s", r.Errors, connections, r.LastError)
	case r.Requests == 0:
		return nil, errors.New("no request was answered")
	}
	return r, nil
}
