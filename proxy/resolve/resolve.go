// Package resolve keeps the addresses of DNS names up to date.
//
// Go's resolver does not tell how long an answer holds, so a name is looked up
// again at an interval, with jitter. What is not answered changes nothing: the
// last good addresses stay, for a resolver that is down must not take down what
// is up. A change is told to those who hold the name, and logged once; so is the
// beginning and the end of a resolver's trouble.
package resolve

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// DefaultRefresh is how often a name is looked up where nothing else is said.
const DefaultRefresh = 5 * time.Second

const (
	lookupTimeout = 5 * time.Second
	jitter        = 0.1 // of the interval
	maxAddresses  = 256 // of one name; more are left out
)

// Config is what a Registry needs.
type Config struct {
	Logger *slog.Logger
	// Lookup returns the addresses of a host in a network: "ip", "ip4" or
	// "ip6"; nil: the system's resolver.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Key is what is looked up.
type Key struct {
	Host    string
	Network string        // "ip", "ip4", "ip6"
	Refresh time.Duration // 0: DefaultRefresh
}

// Registry looks up names, each once however many hold it.
type Registry struct {
	cfg  Config
	ctx  context.Context
	stop context.CancelFunc
	done sync.WaitGroup

	mu    sync.Mutex
	names map[Key]*name
}

type name struct {
	key   Key
	stop  context.CancelFunc
	holds []*Hold

	// Under Registry.mu:
	addresses []netip.Addr // nil: not known yet
}

// Hold is one who wants to know a name's addresses.
type Hold struct {
	registry *Registry
	name     *name
	changed  func()
}

// NewRegistry returns a registry; Close ends it.
func NewRegistry(cfg Config) *Registry {
	if cfg.Lookup == nil {
		cfg.Lookup = lookup
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Registry{cfg: cfg, ctx: ctx, stop: stop, names: map[Key]*name{}}
}

// Acquire begins to look up a name. changed is called without a lock, by another
// goroutine, when its addresses are other ones than before; it must not block.
func (r *Registry) Acquire(k Key, changed func()) *Hold {
	if k.Refresh == 0 {
		k.Refresh = DefaultRefresh
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[k]
	if n == nil {
		n = &name{key: k}
		r.names[k] = n
		var ctx context.Context
		ctx, n.stop = context.WithCancel(r.ctx)
		if r.ctx.Err() == nil {
			r.done.Go(func() { r.keep(ctx, n) })
		}
	}
	h := &Hold{r, n, changed}
	n.holds = append(n.holds, h)
	return h
}

// Addresses are those last known, in order; none before the first answer.
func (h *Hold) Addresses() []netip.Addr {
	h.registry.mu.Lock()
	defer h.registry.mu.Unlock()
	return h.name.addresses
}

// Release gives up the hold; the last one of a name ends its look-ups.
func (h *Hold) Release() {
	r, n := h.registry, h.name
	r.mu.Lock()
	defer r.mu.Unlock()
	n.holds = slices.DeleteFunc(n.holds, func(other *Hold) bool { return other == h })
	if len(n.holds) == 0 && r.names[n.key] == n {
		delete(r.names, n.key)
		n.stop()
	}
}

// Close ends all look-ups and waits for them.
func (r *Registry) Close() {
	r.mu.Lock()
	r.stop()
	r.mu.Unlock()
	r.done.Wait()
}

// keep looks a name up until ctx ends.
func (r *Registry) keep(ctx context.Context, n *name) {
	failing := false
	for {
		limited, cancel := context.WithTimeout(ctx, lookupTimeout)
		found, err := r.cfg.Lookup(limited, n.key.Network, n.key.Host)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil || len(found) == 0:
			if !failing {
				r.cfg.Logger.Warn("name not resolved", "host", n.key.Host, "error", err)
			}
			failing = true
		default:
			if failing {
				r.cfg.Logger.Info("name resolved again", "host", n.key.Host)
			}
			failing = false
			r.found(n, tidy(found))
		}
		wait := time.NewTimer(time.Duration(float64(n.key.Refresh) * (1 + jitter*(2*rand.Float64()-1))))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
	}
}

// found notes what a name's addresses are.
func (r *Registry) found(n *name, addresses []netip.Addr) {
	r.mu.Lock()
	if slices.Equal(addresses, n.addresses) {
		r.mu.Unlock()
		return
	}
	n.addresses = addresses
	holds := slices.Clone(n.holds)
	r.mu.Unlock()
	r.cfg.Logger.Info("addresses changed", "host", n.key.Host, "addresses", addresses)
	for _, h := range holds {
		h.changed()
	}
}

// tidy sorts addresses, each once: resolvers like to shuffle.
func tidy(found []netip.Addr) []netip.Addr {
	all := make([]netip.Addr, 0, len(found))
	for _, a := range found {
		all = append(all, a.Unmap())
	}
	slices.SortFunc(all, netip.Addr.Compare)
	all = slices.Compact(all)
	return all[:min(len(all), maxAddresses)]
}

// lookup asks the system's resolver. Addresses that this host has no way to, as
// those of IPv6 often are, are left out while there are others.
func lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	found, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, err
	}
	return reachable(found), nil
}

func reachable(found []netip.Addr) []netip.Addr {
	var with []netip.Addr
	for _, a := range found {
		// Nothing is sent: the kernel looks for a route.
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
		if err == nil {
			c.Close()
			with = append(with, a)
		}
	}
	if len(with) == 0 {
		return found
	}
	return with
}
