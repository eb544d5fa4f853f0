// Package overload watches a process's memory, and says when there is so little
// left that new work has to be turned away, so that the work under way can be
// finished and the process is not killed.
//
//	limit (flag, or cgroup) ─▶ Go's soft limit, at 90 %
//	used ≥ 80 % ─▶ shedding ─▶ used < 70 % ─▶ not shedding
//
// # What is used
//
// Not what the process has of the system, most of which may be garbage: Go lets
// that grow up to its soft limit and collects it then. Used is what the last
// collection found to be alive, with stacks and whatever else the runtime keeps,
// and what the process has beside Go (the memory of WASM modules).
//
// That is known anew after each collection. Go collects at the latest when it
// comes to its soft limit, which lies above the high-water mark: so growth that is
// not garbage is noticed before the limit is reached. While work is shed nothing
// might be left that makes it collect; the monitor does it then, once a second.
package overload

import (
	"context"
	"log/slog"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"
)

// The marks, in percent of the limit.
const (
	softLimit = 90
	high      = 80
	low       = 70
)

const (
	interval     = 100 * time.Millisecond
	collectEvery = time.Second
)

// Monitor watches the memory of its process. Make it with [Start]; a nil one never
// sheds.
type Monitor struct {
	limit    int64
	logger   *slog.Logger
	shedding atomic.Bool
	used     atomic.Int64
	times    atomic.Uint64
	samples  []metrics.Sample
	stop     context.CancelFunc
	done     sync.WaitGroup
}

// Start watches, with a limit in bytes. It sets Go's soft limit, unless there is
// one already (GOMEMLIMIT).
func Start(limit int64, logger *slog.Logger) *Monitor {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(limit / 100 * softLimit)
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &Monitor{limit: limit, logger: logger, stop: stop, samples: newSamples()}
	m.look()
	m.done.Go(func() { m.watch(ctx) })
	return m
}

// Close ends the watch.
func (m *Monitor) Close() {
	if m != nil {
		m.stop()
		m.done.Wait()
	}
}

// Shedding: new work is to be turned away.
func (m *Monitor) Shedding() bool { return m != nil && m.shedding.Load() }

// Stats are what a monitor knows.
type Stats struct {
	Limit, Used int64
	Shedding    bool
	Times       uint64 // that it began to shed
}

// Stats returns what the monitor knows now.
func (m *Monitor) Stats() Stats {
	if m == nil {
		return Stats{}
	}
	return Stats{m.limit, m.used.Load(), m.shedding.Load(), m.times.Load()}
}

func (m *Monitor) watch(ctx context.Context) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	collected := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if m.shedding.Load() && now.Sub(collected) >= collectEvery {
				runtime.GC()
				collected = time.Now()
			}
			m.look()
		}
	}
}

// look measures and decides.
func (m *Monitor) look() {
	used := m.measure()
	m.used.Store(used)
	switch shedding := m.shedding.Load(); {
	case !shedding && used >= m.limit/100*high:
		m.shedding.Store(true)
		m.times.Add(1)
		m.logger.Warn("memory is short: new work is turned away", "used", used, "limit", m.limit)
	case shedding && used < m.limit/100*low:
		m.shedding.Store(false)
		m.logger.Info("there is enough memory again", "used", used, "limit", m.limit)
	}
}

// What is read of the runtime. Of heapObjects some are dead: live is what the last
// collection has marked.
const (
	total = iota
	released
	free
	unused
	heapObjects
	live
)

func newSamples() []metrics.Sample {
	names := [...]string{
		total: "/memory/classes/total:bytes", released: "/memory/classes/heap/released:bytes", free: "/memory/classes/heap/free:bytes",
		unused: "/memory/classes/heap/unused:bytes", heapObjects: "/memory/classes/heap/objects:bytes", live: "/gc/heap/live:bytes",
	}
	samples := make([]metrics.Sample, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	return samples
}

// measure is what is used: see the package page.
func (m *Monitor) measure() int64 {
	metrics.Read(m.samples)
	value := func(i int) int64 { return int64(m.samples[i].Value.Uint64()) }
	mapped := value(total) - value(released)
	runtimeOwn := mapped - value(heapObjects) - value(free) - value(unused)
	return value(live) + runtimeOwn + beside(mapped)
}
