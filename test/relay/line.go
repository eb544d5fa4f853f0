package relay

import (
	"container/heap"
	"context"
	"sync/atomic"
	"time"
)

// maxWaiting is how many packets wait in a line at most.
const maxWaiting = 4096

// A line carries the packets of one direction of one client.
type line struct {
	shaper     *shaper
	conditions func() Conditions
	deliver    func([]byte)
	stats      *counters
	in         chan []byte
}

func newLine(s *shaper, conditions func() Conditions, stats *counters, deliver func([]byte)) *line {
	return &line{shaper: s, conditions: conditions, deliver: deliver, stats: stats, in: make(chan []byte)}
}

// send hands a packet to the line; it waits only while the line delivers another.
func (l *line) send(ctx context.Context, packet []byte) {
	select {
	case l.in <- packet:
	case <-ctx.Done():
	}
}

// run carries packets until ctx ends; what waits then is lost.
func (l *line) run(ctx context.Context) {
	var waiting packets
	var count int
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if len(waiting) > 0 {
			timer.Reset(time.Until(waiting[0].due))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case data := <-l.in:
			for _, due := range l.admit(len(waiting)) {
				count++
				heap.Push(&waiting, packet{due: due, number: count, data: data})
			}
		case <-timer.C:
			for now := time.Now(); len(waiting) > 0 && !waiting[0].due.After(now); {
				l.deliver(heap.Pop(&waiting).(packet).data)
				l.stats.delivered.Add(1)
			}
		}
	}
}

// admit says when the copies of a packet are due, as far as there is room.
func (l *line) admit(waiting int) []time.Time {
	copies := l.shaper.fate(time.Now(), l.conditions())
	switch {
	case len(copies) == 0:
		l.stats.dropped.Add(1)
	case waiting+len(copies) > maxWaiting:
		l.stats.overflowed.Add(1)
		return nil
	case len(copies) > 1:
		l.stats.duplicated.Add(1)
	}
	return copies
}

// A packet waits until it is due. Of two that are due at once the one that
// came first goes first.
type packet struct {
	due    time.Time
	number int
	data   []byte
}

type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	if p[i].due.Equal(p[j].due) {
		return p[i].number < p[j].number
	}
	return p[i].due.Before(p[j].due)
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	last := (*p)[len(*p)-1]
	(*p)[len(*p)-1] = packet{} // lets go of the data
	*p = (*p)[:len(*p)-1]
	return last
}

// Stats count packets over all lines of a relay.
type Stats struct {
	Delivered  uint64 // copies included
	Dropped    uint64
	Duplicated uint64
	Overflowed uint64 // lost because a line was full
}

type counters struct{ delivered, dropped, duplicated, overflowed atomic.Uint64 }

func (c *counters) read() Stats {
	return Stats{c.delivered.Load(), c.dropped.Load(), c.duplicated.Load(), c.overflowed.Load()}
}
