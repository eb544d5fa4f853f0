package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirmesh/weir/proxy/balancer"
	"github.com/weirmesh/weir/proxy/health"
	"github.com/weirmesh/weir/proxy/resolve"
	"github.com/weirmesh/weir/proxy/upstream"
)

// world is what services live in: a resolver and endpoints that are ill or not.
type world struct {
	*Registry
	mu    sync.Mutex
	ill   map[string]bool
	names map[string][]string
}

// inWorld runs a test in a bubble of time.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.NewTextHandler(io.Discard, nil))
		w := &world{ill: map[string]bool{}, names: map[string][]string{}}
		with := Registries{
			Pools:  upstream.NewRegistry(nil),
			Health: health.NewRegistry(health.Config{Logger: log}),
			Names:  resolve.NewRegistry(resolve.Config{Logger: log, Lookup: w.lookup}),
			Logger: log,
		}
		w.Registry = NewRegistry(with)
		test(t, w)
		if pools, members := with.Pools.Stats(), with.Health.States(); len(pools)+len(members)+len(w.Counts()) > 0 {
			t.Errorf("left behind: %v %v %v", pools, members, w.Counts())
		}
		w.Close()
		with.Names.Close()
		with.Health.Close()
		with.Pools.Close()
	})
}

// Ask implements health.Question.
func (w *world) Ask(_ context.Context, address string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ill[address] {
		return errors.New("ill")
	}
	return nil
}

// Equal implements health.Question.
func (w *world) Equal(other health.Question) bool { return other == w }

func (w *world) lookup(_ context.Context, _, host string) (found []netip.Addr, _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.names[host] {
		found = append(found, netip.MustParseAddr(a))
	}
	return found, nil
}

// now changes the world, and lets what follows from it happen.
func (w *world) now(change func()) {
	w.mu.Lock()
	change()
	w.mu.Unlock()
	time.Sleep(10 * time.Second)
	synctest.Wait()
}

func declare(addresses ...string) Config {
	cfg := Config{Name: "shop/books", Network: "ip", Balance: Balance{Policy: RoundRobin, Aggression: 1, LeastShare: 0.1, Terms: balancer.Terms{PanicThreshold: 50}},
		Limits: Limits{MaxRetries: -1, BudgetPercent: 20, MinRetries: 3}}
	for _, a := range addresses {
		cfg.Endpoints = append(cfg.Endpoints, Declared{Key: upstream.Key{Address: a}, Weight: 1})
	}
	return cfg
}

func (w *world) checked() health.Settings {
	return health.Settings{Check: &health.Check{Interval: time.Second, Timeout: time.Second, Unhealthy: 2, Healthy: 2, Question: w}}
}

// share is how many of n picks go to each address.
func share(b *Backend, n int) map[string]int {
	got := map[string]int{}
	for key := range n {
		if e := b.Pick(balancer.Hash(fmt.Sprint(key)), new(Tried)); e != nil {
			got[e.Pool.Address()]++
		}
	}
	return got
}

func expectUsed(t *testing.T, when string, b *Backend, want ...string) {
	t.Helper()
	var got []string
	for a := range share(b, 1000) {
		got = append(got, a)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s: used are %v, want %v", when, got, want)
	}
}

func TestTheIllAreNotUsed(t *testing.T) {
	for _, policy := range []Policy{LeastRequest, RoundRobin, Random, RingHash, Maglev} {
		inWorld(t, func(t *testing.T, w *world) {
			cfg := declare("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
			cfg.Health, cfg.Balance.Policy, cfg.Balance.Ring = w.checked(), policy, balancer.RingSize{Min: 1024, Max: 65536}
			b := w.Open(cfg)
			defer b.Close()
			w.now(func() {})
			expectUsed(t, "all are well", b, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
			w.now(func() { w.ill["10.0.0.2:80"] = true })
			expectUsed(t, "one is ill", b, "10.0.0.1:80", "10.0.0.3:80")
			w.now(func() { w.ill["10.0.0.1:80"] = true })
			expectUsed(t, "panic", b, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
			w.now(func() { clear(w.ill) })
			expectUsed(t, "all are well again", b, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
		})
	}
}

// What its sidecar says of an endpoint counts beside what is found here.
func TestDeclaredIllness(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, checked := range []bool{false, true} {
			cfg := declare("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
			cfg.Endpoints[1].Unhealthy = true
			if checked {
				cfg.Health = w.checked()
			}
			b := w.Open(cfg)
			w.now(func() {})
			expectUsed(t, "one says that it is ill", b, "10.0.0.1:80", "10.0.0.3:80")
			b.Close()
		}
		cfg := declare("10.0.0.1:80")
		cfg.Endpoints[0].Unhealthy = true
		b := w.Open(cfg)
		defer b.Close()
		expectUsed(t, "there is no other", b, "10.0.0.1:80")
		cfg = declare("10.0.0.1:80", "10.0.0.2:80")
		cfg.Health, cfg.Endpoints[0].Unchecked = w.checked(), true
		mixed := w.Open(cfg)
		defer mixed.Close()
		w.now(func() { w.ill["10.0.0.1:80"] = true })
		expectUsed(t, "the one that nobody asks here", mixed, "10.0.0.1:80", "10.0.0.2:80")
		clear(w.ill)
	})
}

func TestNoPanicMeansNoEndpoint(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		cfg := declare("10.0.0.1:80", "10.0.0.2:80")
		cfg.Health, cfg.Balance.Terms.PanicThreshold = w.checked(), 0
		b := w.Open(cfg)
		defer b.Close()
		w.now(func() { w.ill["10.0.0.1:80"], w.ill["10.0.0.2:80"] = true, true })
		expectUsed(t, "none is well", b)
	})
}

func TestEjectedEndpointsAreNotUsed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		cfg := declare("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
		cfg.Health.Outlier = &health.Outlier{Consecutive5xx: 1, Interval: time.Second, Base: 30 * time.Second, Max: time.Minute}
		b := w.Open(cfg)
		defer b.Close()
		bad := b.Pick(0, new(Tried))
		bad.Report(503)
		w.now(func() {})
		if used := share(b, 100); used[bad.Pool.Address()] != 0 || len(used) != 2 {
			t.Errorf("used are %v", used)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if used := share(b, 100); len(used) != 3 {
			t.Errorf("it has not returned: %v", used)
		}
	})
}

func TestAnEndpointGrowsIntoItsShare(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		cfg := declare("10.0.0.1:80", "10.0.0.2:80")
		cfg.Balance.Window = 100 * time.Second
		old := w.Open(cfg)
		w.now(func() {})
		if got := share(old, 1000); got["10.0.0.1:80"] != 500 {
			t.Errorf("of those that are new together, one has %v", got)
		}
		time.Sleep(time.Hour)
		cfg.Endpoints = append(cfg.Endpoints, Declared{Key: upstream.Key{Address: "10.0.0.3:80"}, Weight: 1})
		b := w.Open(cfg)
		defer b.Close()
		old.Close()
		for _, c := range []struct {
			wait  time.Duration
			grown float64
		}{{0, 0.1}, {50 * time.Second, 0.5}, {60 * time.Second, 1}, {time.Hour, 1}} {
			time.Sleep(c.wait)
			synctest.Wait()
			want := 1000 * c.grown / (2 + c.grown)
			if got := share(b, 1000)["10.0.0.3:80"]; math.Abs(float64(got)-want) > 15 {
				t.Errorf("%v later it has %d of 1,000, want %.0f", c.wait, got, want)
			}
		}
	})
}

func TestTheOwnZoneIsPreferred(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		cfg := declare("10.0.0.1:80", "10.0.0.2:80", "10.0.1.1:80", "10.0.1.2:80")
		cfg.Health, cfg.Zone, cfg.Balance.Terms.PreferLocal = w.checked(), "a", true
		for i := range cfg.Endpoints {
			cfg.Endpoints[i].Zone = []string{"a", "a", "b", "b"}[i]
		}
		b := w.Open(cfg)
		defer b.Close()
		w.now(func() {})
		expectUsed(t, "all are well", b, "10.0.0.1:80", "10.0.0.2:80")
		w.now(func() { w.ill["10.0.0.1:80"] = true })
		if got := share(b, 1000)["10.0.0.2:80"]; got < 690 || got > 710 {
			t.Errorf("half a zone has %d of 1,000, want 700", got)
		}
		w.now(func() { w.ill["10.0.0.2:80"] = true })
		expectUsed(t, "the zone is down", b, "10.0.1.1:80", "10.0.1.2:80")
	})
}

func TestAddressesOfNames(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		cfg := declare("books.internal:80", "10.0.0.9:80", "localhost:80", "api.localhost:80")
		cfg.Endpoints[0].Weight = 3
		b := w.Open(cfg)
		defer b.Close()
		synctest.Wait()
		expectUsed(t, "not resolved yet", b, "10.0.0.9:80", "api.localhost:80", "books.internal:80", "localhost:80")
		w.now(func() { w.names["books.internal"] = []string{"10.0.0.1", "10.0.0.2", "2001:db8::1"} })
		expectUsed(t, "resolved", b, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80", "[2001:db8::1]:80", "api.localhost:80", "localhost:80")
		if got := share(b, 600); got["10.0.0.1:80"] != 100 || got["10.0.0.9:80"] != 100 {
			t.Errorf("the weight is not shared among the addresses: %v", got)
		}
		w.now(func() { w.names["books.internal"] = []string{"10.0.0.2"} })
		expectUsed(t, "some are gone", b, "10.0.0.2:80", "10.0.0.9:80", "api.localhost:80", "localhost:80")
		w.now(func() { w.names["books.internal"] = nil })
		expectUsed(t, "the last good answer is kept", b, "10.0.0.2:80", "10.0.0.9:80", "api.localhost:80", "localhost:80")
		if n := len(w.with.Pools.Stats()); n != 4 {
			t.Errorf("%d pools are kept for 4 endpoints", n)
		}
	})
}

// What was tried is avoided even if the endpoints changed since.
func TestTriedIsRememberedAcrossViews(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		cfg := declare("books.internal:80", "10.0.0.1:80", "10.0.0.2:80")
		cfg.Balance.Policy = LeastRequest
		b := w.Open(cfg)
		defer b.Close()
		var tried Tried
		for e := b.Pick(0, &tried); ; e = b.Pick(0, &tried) {
			if tried.Add(e); e.Pool.Address() == "10.0.0.1:80" {
				break
			}
		}
		w.now(func() { w.names["books.internal"] = []string{"10.0.0.3"} })
		for range 100 {
			if got := b.Pick(0, &tried).Pool.Address(); got == "10.0.0.1:80" {
				t.Fatalf("%s is tried again", got)
			}
		}
	})
}

func TestLimitsHoldOverGenerations(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		cfg := declare("10.0.0.1:80")
		cfg.Limits.MaxRequests, cfg.Limits.MaxRetries = 2, 2
		old, b := w.Open(cfg), w.Open(cfg)
		defer b.Close()
		defer old.Close()
		var p [4]Permits
		if !p[0].Begin(old) || !p[1].Begin(b) || p[2].Begin(b) || p[3].Begin(old) {
			t.Error("not two requests of four are let in")
		}
		p[0].End()
		p[0].End() // once is enough
		if !p[2].Begin(b) || p[3].Begin(b) {
			t.Error("not one place was given back")
		}
		again := p[1].Retry(b)
		if !again || !p[1].Retry(b) || !p[2].Retry(old) || p[3].Retry(b) {
			t.Error("not two may be retried at a time")
		}
		for i := range p {
			p[i].End()
		}
		if c := w.Counts()[0]; c.Requests != 0 || c.Retries != 0 || c.RefusedRequests != 3 || c.RefusedRetries != 1 || c.Retried != 3 {
			t.Errorf("counts %+v", c)
		}
	})
}

func TestTheBudgetHasAMinimum(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		b := w.Open(declare("10.0.0.1:80"))
		defer b.Close()
		var p [10]Permits
		let := 0
		for i := range p {
			if p[i].Begin(b); p[i].Retry(b) {
				let++
			}
		}
		if let != 3 {
			t.Errorf("with nothing under way %d retries are let through, want 3", let)
		}
		for i := range p {
			p[i].End()
		}
	})
}

func TestPickAllocatesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, cfg := range []Config{declare("10.0.0.1:80"), declare("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")} {
			b := w.Open(cfg)
			if n := testing.AllocsPerRun(100, func() {
				var tried Tried
				var p Permits
				p.Begin(b)
				tried.Add(b.Pick(7, &tried))
				b.Pick(7, &tried).Report(200)
				p.End()
			}); n != 0 {
				t.Errorf("%d endpoints: %v allocations", len(cfg.Endpoints), n)
			}
			b.Close()
		}
	})
}
