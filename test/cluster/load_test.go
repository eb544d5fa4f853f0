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
	clients = 5
	// keysAtOnce are written to at a time, each by so many calls of all clients.
	// So the calls of a key overlap, and no key has too many for the check.
	keysAtOnce  = 2
	callsPerKey = 60
	// enough writes show that a cluster goes on; many take several times as long
	// as it takes to notice that a member is gone.
	enough, many = 25, 300
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
// would give the processes no time.
func (l *load) client(ctx context.Context, number int, random *rand.Rand) {
	for i := 0; ctx.Err() == nil; i++ {
		members := l.c.all()
		at := func() *member { return members[random.IntN(len(members))] }
		key, value := l.nextKey(), fmt.Sprintf("%d.%d.%d", l.number, number, i)
		var err error
		switch random.IntN(5) {
		case 0:
			err = l.create(ctx, number, at(), fmt.Sprintf("c%d-%d-%d", l.number, number, i), value)
		case 1:
			_, err = l.read(ctx, number, at(), key)
		case 2, 3:
			err = l.compareAndSet(ctx, number, at(), at(), key, value)
		default:
			err = l.put(ctx, number, at(), key, value)
		}
		rest := 10 * time.Millisecond
		if err != nil && outcomeOf(err) != linear.Mismatch {
			rest *= 10
		}
		select {
		case <-time.After(rest):
		case <-ctx.Done():
		}
	}
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

// compareAndSet reads at one member and writes at another, by the revision.
func (l *load) compareAndSet(ctx context.Context, client int, from, to *member, key, value string) error {
	found, err := l.read(ctx, client, from, key)
	if err != nil {
		return err
	}
	if found.revision == 0 { // there is no precondition that a key be not there
		return l.put(ctx, client, to, key, value)
	}
	call := l.history.CompareAndSet(client, key, found.value, value)
	err = to.write(ctx, key, value, found.revision)
	call.End(l.outcome(ctx, to, err))
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
