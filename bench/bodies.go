package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/weirmesh/weir/bench/measure"
)

// The bodies that are pulled through proxies, by so many clients at once.
var bodySizes = []struct {
	size    int64
	clients int
}{{1 << 20, 8}, {1 << 30, 2}}

// What is promised of bodies.
const (
	leastThroughput = 0.8     // of nginx's
	mostMemory      = 1 << 20 // for each stream
)

// pulled is what pulling bodies showed of a proxy.
type pulled struct {
	rates  []float64 // bytes/s, by round
	memory int64     // by which it grew at most, for each stream
}

// bodies compares how fast long answers come through, and what they cost in
// memory. Each round loads one after the other.
func (b *benchmark) bodies(ctx context.Context, out io.Writer) error {
	contenders := b.named("nginx", weirCatchAll)
	if len(contenders) == 0 {
		return nil
	}
	fmt.Fprintln(out, "\nLong answers: what comes through, and by how much the proxy's memory grows for each that is under way.")
	for _, s := range bodySizes {
		shown := make([]pulled, len(contenders))
		for range b.Rounds {
			for i, c := range contenders {
				if err := shown[i].pull(ctx, c, s.size, s.clients, time.Duration(b.seconds)*time.Second); err != nil {
					return fmt.Errorf("pull %d bytes through %s: %w", s.size, c.name, err)
				}
			}
		}
		for i, c := range contenders {
			fmt.Fprintf(out, "  %-16s %8s × %d   %7.0f MB/s  %6.0f KB\n", c.name, size(s.size), s.clients,
				measure.Median(shown[i].rates)/1e6, float64(shown[i].memory)/1024)
		}
		if len(contenders) == 2 {
			ratio := measure.Median(shown[1].rates) / measure.Median(shown[0].rates)
			fmt.Fprintf(out, "%s: %s against nginx by %s, times: %.2f, at least %.2f\n", measure.Verdict(ratio >= leastThroughput), weirCatchAll, size(s.size), ratio, leastThroughput)
		}
		if c := len(contenders) - 1; contenders[c].name == weirCatchAll {
			fmt.Fprintf(out, "%s: %s, KB more for each stream of %s: %.0f, at most %d\n", measure.Verdict(shown[c].memory < mostMemory), weirCatchAll,
				size(s.size), float64(shown[c].memory)/1024, mostMemory>>10)
		}
	}
	return nil
}

func size(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%d GiB", n>>30)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// pull has clients read bodies until the time is up, the last ones to their end.
func (p *pulled) pull(ctx context.Context, c *contender, size int64, clients int, length time.Duration) error {
	before, err := c.process.Memory()
	if err != nil {
		return err
	}
	sampling, stop := context.WithCancel(ctx)
	defer stop()
	most := make(chan int64, 1)
	go func() { most <- watchMemory(sampling, c.process) }()
	var all sync.WaitGroup
	counts, errs := make([]int64, clients), make([]error, clients)
	begin := time.Now()
	for i := range clients {
		all.Go(func() { counts[i], errs[i] = pullUntil(c.address, size, begin.Add(length)) })
	}
	all.Wait()
	elapsed := time.Since(begin)
	stop()
	peak := <-most
	var total int64
	for i := range clients {
		if errs[i] != nil {
			return errs[i]
		}
		total += counts[i]
	}
	p.rates = append(p.rates, float64(total)/elapsed.Seconds())
	p.memory = max(p.memory, (peak-before)/int64(clients))
	return nil
}

// watchMemory is the most that a process has until ctx ends.
func watchMemory(ctx context.Context, p *measure.Process) (most int64) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if now, err := p.Memory(); err == nil {
			most = max(most, now)
		}
		select {
		case <-ctx.Done():
			return most
		case <-tick.C:
		}
	}
}

func pullUntil(address string, size int64, end time.Time) (total int64, err error) {
	c, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(end.Add(maxRun)); err != nil {
		return 0, err
	}
	request := fmt.Appendf(nil, "GET %s%d HTTP/1.1\r\nHost: %s\r\n\r\n", bytesPath, size, address)
	buffer := make([]byte, 256<<10)
	for time.Now().Before(end) {
		if _, err := c.Write(request); err != nil {
			return total, err
		}
		n, err := readAnswer(c, buffer, size)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}
