package resolve

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// zone is a resolver whose answers the test sets.
type zone struct {
	mu      sync.Mutex
	answers map[string][]netip.Addr
	down    bool
	asked   atomic.Int64
	log     bytes.Buffer
}

func (z *zone) lookup(_ context.Context, network, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked.Add(1)
	if z.down {
		return nil, errors.New("no resolver")
	}
	return z.answers[network+" "+host], nil
}

func (z *zone) set(network, host string, addresses ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.answers == nil {
		z.answers = map[string][]netip.Addr{}
	}
	var all []netip.Addr
	for _, a := range addresses {
		all = append(all, netip.MustParseAddr(a))
	}
	z.answers[network+" "+host] = all
}

func (z *zone) setDown(down bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.down = down
}

func (z *zone) Write(b []byte) (int, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.log.Write(b)
}

func (z *zone) logged(what string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return strings.Count(z.log.String(), what)
}

func (z *zone) registry() *Registry {
	return NewRegistry(Config{Logger: slog.New(slog.NewTextHandler(z, nil)), Lookup: z.lookup})
}

func expect(t *testing.T, h *Hold, want ...string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for _, a := range h.Addresses() {
		got = append(got, a.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestANameIsLookedUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := new(zone)
		z.set("ip", "books", "10.0.0.2", "::ffff:10.0.0.1", "10.0.0.1", "2001:db8::1")
		r := z.registry()
		defer r.Close()
		var told atomic.Int64
		h := r.Acquire(Key{Host: "books", Network: "ip"}, func() { told.Add(1) })
		defer h.Release()
		expect(t, h, "10.0.0.1", "10.0.0.2", "2001:db8::1")
		z.set("ip", "books", "2001:db8::1", "10.0.0.2", "10.0.0.1")
		time.Sleep(6 * time.Second)
		expect(t, h, "10.0.0.1", "10.0.0.2", "2001:db8::1")
		if n := told.Load(); n != 1 {
			t.Errorf("told %d times of one change", n)
		}
		z.set("ip", "books", "10.0.0.3")
		time.Sleep(6 * time.Second)
		expect(t, h, "10.0.0.3")
		if n := told.Load(); n != 2 {
			t.Errorf("told %d times of two changes", n)
		}
	})
}

func TestTheLastGoodAnswerIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := new(zone)
		z.set("ip4", "books", "10.0.0.1")
		r := z.registry()
		defer r.Close()
		h := r.Acquire(Key{Host: "books", Network: "ip4"}, func() {})
		defer h.Release()
		expect(t, h, "10.0.0.1")
		z.setDown(true)
		time.Sleep(time.Hour)
		expect(t, h, "10.0.0.1")
		z.setDown(false)
		z.set("ip4", "books") // an answer with nothing in it
		time.Sleep(time.Hour)
		expect(t, h, "10.0.0.1")
		z.set("ip4", "books", "10.0.0.2")
		time.Sleep(time.Minute)
		expect(t, h, "10.0.0.2")
		if n, m := z.logged("name not resolved"), z.logged("name resolved again"); n != 1 || m != 1 {
			t.Errorf("logged the trouble %d times, its end %d times", n, m)
		}
	})
}

func TestANameIsLookedUpOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := new(zone)
		z.set("ip", "books", "10.0.0.1")
		r := z.registry()
		defer r.Close()
		k := Key{Host: "books", Network: "ip", Refresh: time.Minute}
		a, b := r.Acquire(k, func() {}), r.Acquire(k, func() {})
		expect(t, a, "10.0.0.1")
		expect(t, b, "10.0.0.1")
		a.Release()
		time.Sleep(150 * time.Second)
		asked := z.asked.Load()
		if asked < 2 || asked > 4 {
			t.Errorf("asked %d times in two and a half minutes", asked)
		}
		b.Release()
		time.Sleep(time.Hour)
		if z.asked.Load() != asked {
			t.Error("it is still looked up")
		}
	})
}

func TestWhatHasARouteIsReachable(t *testing.T) {
	loopback := netip.MustParseAddr("127.0.0.1")
	if got := reachable([]netip.Addr{loopback}); !slices.Equal(got, []netip.Addr{loopback}) {
		t.Errorf("got %v", got)
	}
	if got := reachable(nil); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}
