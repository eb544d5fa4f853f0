//go:build linux

package cluster

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"sync"
	"time"

	"github.com/weirmesh/weir/test/linear"
)

const (
	clients = 6
	// keysAtOnce are written to at a time, each by so many calls of all clients.
	// So the calls of a key overlap, and no key has too many for the check.
	keysAtOnce  = 2
	callsPerKey = 60
	// enough writes show that a cluster goes on; many take several times as long
	// as it takes to notice that a member is gone.
	enough, many = 25, 150
	// shunned is for how many calls a client goes elsewhere after a failed one.
	shunned = 40
)

// connection is what differs from one failed connection to the next.
var connection = regexp.MustCompile(`[0-9.]+:\d+->[0-9.]+:\d+`)

// A load is clients that use a cluster while a scenario goes its way.
type load struct {
	c       *cluster
	number  int // of the loads of this cluster, for keys of its own
	history *linear.History
	end     context.CancelFunc
	clients sync.WaitGroup

	mu      sync.Mutex
	calls   int
	acked   int
	changed chan struct{}     // closed at each acknowledged write
	keys    map[string]bool   // all that were written to
	created map[string]string // acknowledged, and written by nobody else
	strange []error           // errors that are not promised
	failed  map[string]int    // what calls failed with, and how often
}

// load starts the clients. They call until require, or the end of the test.
func (c *cluster) load() *load {
	ctx, cancel := context.WithCancel(c.t.Context())
	c.loads++
	l := &load{
		c: c, number: c.loads, history: linear.NewHistory(), end: cancel, changed: make(chan struct{}),
		keys: map[string]bool{}, created: map[string]string{}, failed: map[string]int{},
	}
	for i := range clients {
		l.clients.Go(func() { l.client(ctx, i, c.random(uint64(i)+100)) })
	}
	c.t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.end()
	l.clients.Wait()
}

// goesOn waits until the cluster has acknowledged enough more writes.
func (l *load) goesOn() { l.acknowledged(enough) }

// goesOnLong has the cluster stay as it is now for a while.
func (l *load) goesOnLong() { l.acknowledged(many) }

// acknowledged waits for so many more writes to be acknowledged.
func (l *load) acknowledged(n int) {
	l.c.t.Helper()
	ctx, cancel := context.WithTimeout(l.c.t.Context(), patience)
	defer cancel()
	l.mu.Lock()
	target := l.acked + n
	l.mu.Unlock()
	for {
		l.mu.Lock()
		acked, changed := l.acked, l.changed
		l.mu.Unlock()
		if acked >= target {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			l.c.t.Fatalf("await %d writes: %d are missing; failed calls so far: %v", n, target-acked, l.failures())
		}
	}
}

func (l *load) failures() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.failed)
}

// client calls at members drawn at random, and rests in between: a busy machine
// would give the processes no time. A member that failed it sees it again, but
// not at once: where a call fails after a long wait, others would get none.
func (l *load) client(ctx context.Context, number int, random *rand.Rand) {
	shuns := map[*member]int{} // until which call
	for i := 0; ctx.Err() == nil; i++ {
		at := pick(l.c.all(), random, func(m *member) bool { return i >= shuns[m] })
		if err := l.call(ctx, number, i, at, random); err != nil && outcomeOf(err) != linear.Mismatch {
			shuns[at] = i + shunned
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// pick draws one of those that will do, or of all when none does.
func pick(members []*member, random *rand.Rand, does func(*member) bool) *member {
	at := random.IntN(len(members))
	for i := range members {
		if m := members[(at+i)%len(members)]; does(m) {
			return m
		}
	}
	return members[at]
}

func (l *load) call(ctx context.Context, client, number int, at *member, random *rand.Rand) error {
	key, value := l.nextKey(), fmt.Sprintf("%d.%d.%d", l.number, client, number)
	switch random.IntN(5) {
	case 0:
		return l.create(ctx, client, at, fmt.Sprintf("c%d-%d-%d", l.number, client, number), value)
	case 1:
		_, err := l.read(ctx, client, at, key)
		return err
	case 2, 3:
		return l.compareAndSet(ctx, client, at, key, value)
	}
	return l.put(ctx, client, at, key, value)
}

func (l *load) nextKey() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := fmt.Sprintf("k%d-%d-%d", l.number, l.calls/(keysAtOnce*callsPerKey), l.calls%keysAtOnce)
	l.calls++
	l.keys[key] = true
	return key
}

func (l *load) put(ctx context.Context, client int, m *member, key, value string) error {
	call := l.history.Put(client, key, value)
	err := m.write(ctx, key, value, 0)
	call.End(l.outcome(ctx, m, err))
	return err
}

// create is a put of a key that is never written to again.
func (l *load) create(ctx context.Context, client int, m *member, key, value string) error {
	l.mu.Lock()
	l.keys[key] = true
	l.mu.Unlock()
	err := l.put(ctx, client, m, key, value)
	if err == nil {
		l.mu.Lock()
		l.created[key] = value
		l.mu.Unlock()
	}
	return err
}

func (l *load) read(ctx context.Context, client int, m *member, key string) (entry, error) {
	call := l.history.Read(client, key)
	found, err := m.read(ctx, key)
	if err != nil {
		call.Failed()
		l.outcome(ctx, m, err)
		return found, err
	}
	call.Saw(found.value)
	return found, nil
}

// compareAndSet writes by the revision that it has read.
func (l *load) compareAndSet(ctx context.Context, client int, m *member, key, value string) error {
	found, err := l.read(ctx, client, m, key)
	if err != nil {
		return err
	}
	if found.revision == 0 { // there is no precondition that a key be not there
		return l.put(ctx, client, m, key, value)
	}
	call := l.history.CompareAndSet(client, key, found.value, value)
	err = m.write(ctx, key, value, found.revision)
	call.End(l.outcome(ctx, m, err))
	return err
}

// outcome counts what a call came to.
func (l *load) outcome(ctx context.Context, m *member, err error) linear.Outcome {
	outcome := outcomeOf(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case outcome == linear.Applied:
		l.acked++
		close(l.changed)
		l.changed = make(chan struct{})
	case ctx.Err() != nil: // the load ends
	case outcome != linear.Mismatch:
		if !isPromised(err) {
			l.strange = append(l.strange, fmt.Errorf("at %s: %w", m.name, err))
		}
		l.failed[connection.ReplaceAllString(err.Error(), "…")]++
	}
	return outcome
}
