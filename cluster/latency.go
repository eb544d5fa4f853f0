package cluster

import (
	"slices"
	"sync"
	"time"
)

// latencies are those of the newest writes.
type latencies struct {
	mu    sync.Mutex
	times [512]time.Duration
	count uint64
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times[l.count%uint64(len(l.times))] = d
	l.count++
}

// Latency is how long the newest writes took.
type Latency struct {
	// Count is how many there were since the start.
	Count    uint64
	P50, P99 time.Duration
}

func (l *latencies) summary() Latency {
	l.mu.Lock()
	times := slices.Clone(l.times[:min(l.count, uint64(len(l.times)))])
	s := Latency{Count: l.count}
	l.mu.Unlock()
	if len(times) > 0 {
		slices.Sort(times)
		s.P50, s.P99 = times[len(times)/2], times[len(times)*99/100]
	}
	return s
}
