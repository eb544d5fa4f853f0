// Package health knows which endpoints are well: by asking them (active checks)
// and by how they answer real requests (outlier detection).
//
//	Registry ─▶ Group (a service) ─▶ Member (an endpoint)
//	                 └ Seat: one who holds members, and is told of changes
//
// It outlives the swap of a configuration: an endpoint that is declared again is
// the same member, with all that is known of it, for as long as somebody holds
// it. Several generations may hold a service at once; the newest's settings are
// in force.
//
// # Promises
//
//   - A member that is checked is not healthy before its first check; that one
//     decides alone, later ones by the thresholds.
//   - No more members are ejected at a time than the settings allow, one at
//     least. An ejected member returns by itself.
//   - Each change is logged once, and told to every seat.
//   - Report costs an atomic load where nothing is detected, and no lock unless
//     an endpoint is ejected.
package health

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a Registry needs.
type Config struct{ Logger *slog.Logger }

// Registry keeps groups by the name of their service.
type Registry struct {
	cfg  Config
	ctx  context.Context
	stop context.CancelFunc
	done sync.WaitGroup

	mu     sync.Mutex
	groups map[string]*Group
}

// NewRegistry returns a registry; Close ends it.
func NewRegistry(cfg Config) *Registry {
	ctx, stop := context.WithCancel(context.Background())
	return &Registry{cfg: cfg, ctx: ctx, stop: stop, groups: map[string]*Group{}}
}

// Close ends all checks and waits for them.
func (r *Registry) Close() {
	r.mu.Lock()
	r.stop()
	r.mu.Unlock()
	r.done.Wait()
}

// run starts a goroutine that ends with ctx, unless the registry is closed.
func (r *Registry) run(ctx context.Context, f func(context.Context)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() == nil {
		r.done.Go(func() { f(ctx) })
	}
}

// Join takes a seat in a service's group. changed is called, by any goroutine
// and without a lock, after each change of a member's health, and sometimes
// without one; it must not block.
func (r *Registry) Join(service string, settings Settings, changed func()) *Seat {
	r.mu.Lock()
	g := r.groups[service]
	if g == nil {
		g = &Group{registry: r, service: service, members: map[string]*Member{}, wake: make(chan struct{}, 1)}
		r.groups[service] = g
	}
	g.holds++
	r.mu.Unlock()
	s := &Seat{group: g, settings: settings, changed: changed}
	g.mu.Lock()
	g.seats = append(g.seats, s)
	g.configure()
	g.mu.Unlock()
	g.tell()
	return s
}

// States returns what is known of every member.
func (r *Registry) States() []State {
	r.mu.Lock()
	groups := make([]*Group, 0, len(r.groups))
	for _, g := range r.groups {
		groups = append(groups, g)
	}
	r.mu.Unlock()
	var all []State
	for _, g := range groups {
		all = g.states(all)
	}
	return all
}

// Group is the endpoints of one service.
type Group struct {
	registry *Registry
	service  string
	holds    int // under registry.mu
	outlier  atomic.Pointer[Outlier]
	wake     chan struct{} // the keeper has something new to look at

	mu       sync.Mutex
	seats    []*Seat // the newest last
	settings Settings
	members  map[string]*Member
	ejected  int
	keeping  context.CancelFunc // ends the keeper; nil when there is none
}

// Seat holds members of a group.
type Seat struct {
	group    *Group
	settings Settings
	changed  func()
}

// Leave gives up the seat. Its members are to be removed before.
func (s *Seat) Leave() {
	g := s.group
	g.mu.Lock()
	g.seats = slices.DeleteFunc(g.seats, func(other *Seat) bool { return other == s })
	g.configure()
	g.mu.Unlock()
	g.tell()
	r := g.registry
	r.mu.Lock()
	if g.holds--; g.holds == 0 {
		delete(r.groups, g.service)
	}
	r.mu.Unlock()
}

// Add holds the member of an address. Each Add is undone by one Remove.
func (s *Seat) Add(address string) *Member {
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.members[address]
	if m == nil {
		m = &Member{group: g, address: address, since: time.Now()}
		g.members[address] = m
		g.startCheck(m)
	}
	m.refs++
	return m
}

// Remove gives up a member.
func (s *Seat) Remove(m *Member) {
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if m.refs--; m.refs > 0 {
		return
	}
	delete(g.members, m.address)
	m.stopCheck()
	if m.out {
		m.out = false
		g.ejected--
	}
}

// configure brings the newest seat's settings into force. The caller holds g.mu.
func (g *Group) configure() {
	var next Settings
	if len(g.seats) > 0 {
		next = g.seats[len(g.seats)-1].settings
	}
	before := g.settings
	g.settings = next
	g.outlier.Store(next.Outlier)
	if !before.Check.equal(next.Check) {
		for _, m := range g.members {
			m.stopCheck()
			g.startCheck(m)
		}
	}
	switch {
	case next.Outlier == nil && g.keeping != nil:
		g.keeping()
		g.keeping = nil
		for _, m := range g.members {
			m.out, m.ejections = false, 0
		}
		g.ejected = 0
	case next.Outlier != nil && g.keeping == nil:
		var ctx context.Context
		ctx, g.keeping = context.WithCancel(g.registry.ctx)
		g.registry.run(ctx, g.keep)
	}
}

// tell calls all seats. The caller does not hold g.mu.
func (g *Group) tell() {
	g.mu.Lock()
	seats := slices.Clone(g.seats)
	g.mu.Unlock()
	for _, s := range seats {
		s.changed()
	}
}

func (g *Group) states(all []State) []State {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.members {
		all = append(all, State{
			Service: g.service, Address: m.address, Healthy: m.healthy(), Checked: m.verdict != unknown, Ejected: m.out,
			Reason: m.reason, Ejections: m.ejectionsTotal, Refused: m.refusedTotal, Passed: m.passed, Failed: m.failed,
		})
	}
	return all
}
