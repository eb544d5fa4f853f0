package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/bench/measure"
)

const (
	keys = 10_000
	// clientsPerConnection share one, as in a program that uses a cluster.
	clientsPerConnection = 16
	startTime            = time.Minute
	callTime             = 10 * time.Second
)

// value is what is written: none differs in what it costs.
var value = strings.Repeat("v", 512)

// place is what a system gets to work in.
type place struct {
	dir     string
	members int
}

// A system agrees on writes.
type system struct {
	name string
	// start starts all members in a directory that is there.
	start func(context.Context, place) (cluster, error)
}

func (s system) short() string { return strings.ToLower(strings.Fields(s.name)[0]) }

var systems = []system{
	{"Weir, admin API", startWeir},
	{"Weir, log in process", startLog},
	{"etcd", startEtcd},
}

// A cluster is a running system.
type cluster interface {
	// connect opens a connection to the i-th member.
	connect(member int) (connection, error)
	// used is the processor time that the members' own processes have used.
	used() time.Duration
	stop()
}

// A connection carries writes of several clients. Each has another value.
type connection interface {
	put(ctx context.Context, key string, number int64) error
	close()
}

// sample is what one load showed.
type sample struct {
	throughput, flushes float64 // a second; flushes are -1 where nobody counts
	latencies           measure.Histogram
	// What a write costs: the processor time of all members, and of this process.
	members, clients time.Duration
}

// load starts a system and loads it by ever more clients.
func (s settings) load(ctx context.Context, system system, p place, results table) error {
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(p.dir)
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	c, err := system.start(starting, p)
	if err != nil {
		return err
	}
	defer c.stop()
	for _, clients := range s.loads {
		got, err := loadBy(ctx, c, p, clients, s.length)
		if err != nil {
			return fmt.Errorf("load by %d clients: %w", clients, err)
		}
		results.add(row{p.members, clients, system.name}, got)
		fmt.Fprintf(os.Stderr, "%-22s %d members %4d clients %9.0f writes/s, %v + %v of CPU each\n",
			system.name, p.members, clients, got.throughput, got.members.Round(time.Microsecond), got.clients.Round(time.Microsecond))
	}
	return nil
}

func loadBy(ctx context.Context, c cluster, p place, clients int, length time.Duration) (s sample, err error) {
	connections := make([]connection, max(p.members, (clients+clientsPerConnection-1)/clientsPerConnection))
	for i := range connections {
		if connections[i], err = c.connect(i % p.members); err != nil {
			return s, err
		}
		defer connections[i].close()
		if err := connections[i].put(ctx, "warm", int64(i)); err != nil {
			return s, err
		}
	}
	before, countErr := measure.Flushes(p.dir)
	membersUsed, clientsUsed := c.used(), measure.Used()
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, length+callTime)
	defer cancel()
	var numbers atomic.Int64
	numbers.Store(began.UnixNano()) // no value of an earlier load comes again
	histograms, errs := make([]measure.Histogram, clients), make([]error, clients)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			errs[i] = closedLoop(ctx, connections[i%len(connections)], &histograms[i], &numbers, began.Add(length))
		})
	}
	all.Wait()
	elapsed := time.Since(began).Seconds()
	after, _ := measure.Flushes(p.dir)
	membersUsed, clientsUsed = c.used()-membersUsed, measure.Used()-clientsUsed
	for i := range histograms {
		s.latencies.Add(&histograms[i])
	}
	s.throughput, s.flushes = float64(s.latencies.Count())/elapsed, float64(after-before)/elapsed
	if countErr != nil {
		s.flushes = -1
	}
	if n := time.Duration(s.latencies.Count()); n > 0 {
		s.members, s.clients = membersUsed/n, clientsUsed/n
	}
	return s, errors.Join(errs...)
}

// closedLoop is one client: one write after the other, until the time is up.
func closedLoop(ctx context.Context, c connection, latencies *measure.Histogram, numbers *atomic.Int64, until time.Time) error {
	last := time.Now()
	for last.Before(until) {
		n := numbers.Add(1)
		if err := c.put(ctx, fmt.Sprintf("key-%d", n%keys), n); err != nil {
			return err
		}
		now := time.Now()
		latencies.Record(now.Sub(last))
		last = now
	}
	return nil
}
