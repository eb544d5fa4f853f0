package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirmesh/weir/bench/measure"
)

// What is promised of connections that wait.
const (
	idleConnections = 10_000
	mostIdle        = 12 << 10 // bytes for each
)

// idle opens connections that are asked for one thing each and then kept.
func (b *benchmark) idle(ctx context.Context, out io.Writer) error {
	contenders := b.named(weirCatchAll)
	if len(contenders) == 0 {
		return nil
	}
	c := contenders[0]
	if err := allowFiles(idleConnections + 1000); err != nil {
		return fmt.Errorf("open %d connections: %w", idleConnections, err)
	}
	before, err := c.process.Memory()
	if err != nil {
		return err
	}
	requests := [][]byte{getRequest(c.address, "")}
	for range idleConnections {
		nc, err := net.DialTimeout("tcp", c.address, 5*time.Second)
		if err != nil {
			return err
		}
		defer nc.Close()
		one := &conn{Conn: nc, r: newReader(nc), requests: requests}
		if err := one.ask(ctx); err != nil {
			return err
		}
	}
	after, err := c.process.Memory()
	if err != nil {
		return err
	}
	each := (after - before) / idleConnections
	fmt.Fprintf(out, "\n%s: %s, bytes for each of %d connections that wait: %d, at most %d\n", measure.Verdict(each <= mostIdle), c.name, idleConnections, each, mostIdle)
	return nil
}

// allowFiles raises how many files this process may have open.
func allowFiles(n uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= n {
		return nil
	}
	limit.Cur = n
	limit.Max = max(limit.Max, n)
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

// mostLatency is by how much the 99th percentile may exceed HAProxy's.
const mostLatency = 200 * time.Microsecond

// latency compares the wait for an answer at half of what the slower one can do.
// Requests are due at fixed times, and a wait begins when one was due: a proxy
// that is late makes the next ones late, too.
func (b *benchmark) latency(ctx context.Context, out io.Writer) error {
	contenders := b.named("HAProxy", weirCatchAll)
	if len(contenders) < 2 {
		return nil
	}
	rate := 0.0
	for _, c := range contenders {
		var s sample
		if err := b.load(ctx, c, time.Second, &s); err != nil {
			return err
		}
		if rate == 0 || s.throughput()/2 < rate {
			rate = s.throughput() / 2
		}
	}
	fmt.Fprintf(out, "\nThe wait for an answer at %.0f requests/s.\n", rate)
	more, err := b.waits(ctx, out, contenders[0], contenders[1], b.connections, rate)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %s against HAProxy at the 99th percentile, µs more: %d, at most %d\n", measure.Verdict(more <= mostLatency), weirCatchAll,
		more.Microseconds(), mostLatency.Microseconds())
	return nil
}

// waits loads two in turn at a rate of requests a second, shows how long answers are
// waited for, and says by how much the second one's 99th percentile is above the first's.
func (b *benchmark) waits(ctx context.Context, out io.Writer, one, other *contender, connections int, rate float64) (more time.Duration, err error) {
	both := []*contender{one, other}
	var shown [2]measure.Histogram
	for range b.Rounds * b.seconds {
		for i, c := range both {
			r, err := spawnLoad(ctx, c, connections, time.Second, "-rate", fmt.Sprintf("%.0f", rate))
			if err != nil {
				return 0, fmt.Errorf("load %s: %w", c.name, err)
			}
			shown[i].Add(&r.Latencies)
		}
	}
	for i, c := range both {
		fmt.Fprintf(out, "  %-16s p50 %5d µs  p99 %5d µs\n", c.name, shown[i].Quantile(0.5).Microseconds(), shown[i].Quantile(0.99).Microseconds())
	}
	return shown[1].Quantile(0.99) - shown[0].Quantile(0.99), nil
}
