// Package service is a Service at work: its endpoints as they are now, which of
// them a request goes to, and how much it may be asked.
//
//	declared + addresses (resolve) + health ─▶ View ─Pick─▶ Endpoint (a pool)
//
// A [Backend] is a service, or a subset of one, as one generation declares it.
// What must outlive a generation is kept by the name of the service or by
// address, in registries: connections, health, addresses, and what is counted
// towards the limits.
//
// # Promises
//
//   - Pick reads one atomic pointer, takes no lock and allocates nothing. With
//     one endpoint and nothing declared about it, that is all it does.
//   - A change of health or of addresses makes a new view; requests under way
//     keep the connection they have. An endpoint that is gone is drained: its
//     idle connections are closed at once, the others when they come back.
//   - A name that has not been resolved yet is dialled as it is.
//   - Limits hold exactly, over all generations and subsets of a service.
package service

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/proxy/balancer"
	"github.com/weirmesh/weir/proxy/health"
	"github.com/weirmesh/weir/proxy/resolve"
	"github.com/weirmesh/weir/proxy/upstream"
)

// Config is a service as it is declared. It is not changed.
type Config struct {
	Name      string // tenant/name
	Endpoints []Declared
	// Zone is the proxy's own.
	Zone    string
	Balance Balance
	Health  health.Settings
	Limits  Limits
	// Network and Refresh say how names are resolved; see resolve.Key.
	Network string
	Refresh time.Duration
}

// Declared is an endpoint as it is declared: an address, or a name for several.
type Declared struct {
	Key    upstream.Key
	Weight uint32
	Zone   string
	// Unhealthy: somebody else has found that it is not well. Unchecked: it is not asked
	// here.
	Unhealthy, Unchecked bool
}

// Policy chooses an endpoint.
type Policy uint8

// The policies.
const (
	LeastRequest Policy = iota
	RoundRobin
	Random
	RingHash
	Maglev
)

// Balance says how endpoints are chosen.
type Balance struct {
	Policy Policy
	Terms  balancer.Terms
	Ring   balancer.RingSize
	// HashFactor bounds what a hash leads to, as a multiple of the average; 0:
	// no bound.
	HashFactor float64
	// Window is how long an endpoint grows into its share; 0: it has it at once.
	Window     time.Duration
	Aggression float64
	LeastShare float64 // of its share, to begin with
}

// Registries are what backends share.
type Registries struct {
	Pools  *upstream.Registry
	Health *health.Registry
	Names  *resolve.Registry
	Logger *slog.Logger
}

// Registry makes backends and keeps what outlives them.
type Registry struct {
	with Registries
	ctx  context.Context
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	services map[string]*Usage
}

// NewRegistry returns a registry; Close ends it.
func NewRegistry(with Registries) *Registry {
	ctx, stop := context.WithCancel(context.Background())
	return &Registry{with: with, ctx: ctx, stop: stop, services: map[string]*Usage{}}
}

// Close ends what keeps backends up to date, and waits for it. The registries
// that it was given are closed by those who made them, afterwards.
func (r *Registry) Close() {
	r.mu.Lock()
	r.stop()
	r.mu.Unlock()
	r.done.Wait()
}

// Backend is a service at work.
type Backend struct {
	cfg      Config
	registry *Registry
	usage    *Usage
	queue    *upstream.Queue
	view     atomic.Pointer[View]
	seat     *health.Seat // nil: nobody's health matters
	wake     chan struct{}
	stop     context.CancelFunc // of keep; nil when nothing can change

	mu     sync.Mutex // one change at a time
	closed bool
	names  []*resolve.Hold // beside cfg.Endpoints; nil for addresses
	live   map[string]*Endpoint
}

// Endpoint is one address that serves.
type Endpoint struct {
	Pool   *upstream.Pool
	member *health.Member // nil: it is taken to be well
	id     string
	weight float64
	local  bool
	ill    bool // as declared
}

// Report notes how the endpoint answered: with a status, or 0 for not at all.
func (e *Endpoint) Report(status int) {
	if e.member != nil {
		e.member.Report(status)
	}
}

// Open brings a service to work. Each Open is undone by one Close.
func (r *Registry) Open(cfg Config) *Backend {
	b := &Backend{cfg: cfg, registry: r, usage: r.acquire(cfg.Name), wake: make(chan struct{}, 1), live: map[string]*Endpoint{}}
	if l := cfg.Limits; l.MaxConnections > 0 {
		b.queue = &upstream.Queue{Max: l.MaxPending, Waiting: &b.usage.waiting}
	}
	if cfg.Health.Check != nil || cfg.Health.Outlier != nil || cfg.Balance.Window > 0 {
		b.seat = r.with.Health.Join(cfg.Name, cfg.Health, b.poke)
	}
	changes := b.seat != nil
	for _, d := range cfg.Endpoints {
		hold := r.resolve(cfg, d.Key.Address, b.poke)
		b.names = append(b.names, hold)
		changes = changes || hold != nil
	}
	growing := b.renew()
	if changes {
		b.keepUp(growing)
	}
	return b
}

func (b *Backend) poke() {
	select {
	case b.wake <- struct{}{}:
	default: // it is going to look anyway
	}
}

// keepUp starts what makes a new view after each change.
func (b *Backend) keepUp(growing bool) {
	r := b.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return
	}
	var ctx context.Context
	ctx, b.stop = context.WithCancel(r.ctx)
	r.done.Go(func() { b.keep(ctx, growing) })
}

func (b *Backend) keep(ctx context.Context, growing bool) {
	step := min(max(b.cfg.Balance.Window/20, 100*time.Millisecond), time.Second)
	timer := time.NewTimer(step)
	defer timer.Stop()
	for {
		var grow <-chan time.Time
		if growing {
			timer.Reset(step)
			grow = timer.C
		}
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		case <-grow:
		}
		growing = b.renew()
	}
}

// Close gives up the backend. It does not wait.
func (b *Backend) Close() {
	if b.stop != nil {
		b.stop()
	}
	b.mu.Lock()
	b.closed = true
	live := b.live
	b.live = nil
	b.mu.Unlock()
	for _, e := range live {
		b.drop(e)
	}
	for _, h := range b.names {
		if h != nil {
			h.Release()
		}
	}
	if b.seat != nil {
		b.seat.Leave()
	}
	b.registry.release(b.usage)
}

// Service is its name, tenant/name.
func (b *Backend) Service() string { return b.cfg.Name }

// Queue is where requests wait for a connection; nil: there is no need to.
func (b *Backend) Queue() *upstream.Queue { return b.queue }

// Tried are the endpoints that a request was sent to: the last four.
type Tried struct {
	n    uint32
	last [4]*Endpoint
}

// Add notes an endpoint.
func (t *Tried) Add(e *Endpoint) {
	t.last[t.n%uint32(len(t.last))] = e
	t.n++
}

// Has reports whether an endpoint is one of them.
func (t *Tried) Has(e *Endpoint) bool {
	for _, tried := range t.last {
		if tried != nil && tried.Pool == e.Pool {
			return true
		}
	}
	return false
}

// View is the endpoints at one moment. It is not changed.
type View struct {
	sole      *Endpoint // where there is no choice
	endpoints []*Endpoint
	picker    balancer.Picker
	panic     bool
}

// Pick chooses an endpoint, not one that was tried while there are others; nil
// where there is none. key is what hashes go by.
func (b *Backend) Pick(key uint64, tried *Tried) *Endpoint {
	v := b.view.Load()
	if v.sole != nil {
		return v.sole
	}
	i := v.picker.Pick(key, v.tried(tried))
	if i == balancer.None {
		return nil
	}
	return v.endpoints[i]
}

// Named is the endpoint of that address, if it is there and well; else nil.
func (b *Backend) Named(address string) *Endpoint {
	for _, e := range b.view.Load().endpoints {
		if e.Pool.Address() == address && e.well() {
			return e
		}
	}
	return nil
}

// Endpoints yields the address of each endpoint, and whether it is well.
func (b *Backend) Endpoints(yield func(address string, healthy bool) bool) {
	for _, e := range b.view.Load().endpoints {
		if !yield(e.Pool.Address(), e.well()) {
			return
		}
	}
}

func (e *Endpoint) well() bool {
	if e.member == nil {
		return true
	}
	healthy, _ := e.member.Health()
	return healthy
}

// tried finds endpoints in this view, which may not be the one they were chosen
// from.
func (v *View) tried(t *Tried) (found balancer.Tried) {
	for k := range min(t.n, uint32(len(t.last))) {
		if i := slices.Index(v.endpoints, t.last[k]); i >= 0 {
			found = found.Add(i)
		}
	}
	return found
}
