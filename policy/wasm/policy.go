package wasm

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/policy"
)

// Policy is a plugin under one configuration: a module, a pool of VMs, and what
// the VMs share.
type Policy struct {
	host   *Host
	module *module
	spec   policy.Spec
	fuel   int64
	phases policy.Phases
	// brief: the guest said that an exchange may be forgotten after its last phase.
	brief bool
	light bool // the guest knows light exchanges
	// connects: the guest has code for connections that carry no HTTP.
	connects bool
	// indulgent: a pause on a head means that its body be shown.
	indulgent bool
	open      bool // failureMode OPEN: what a failed callback changed is undone

	log    *guestLog
	data   *tenantData
	meters *policyMeters
	// What the VMs have had made of text, and what was checked by it.
	objects  objects
	verified verified

	redisInits redisInits
	redis      redisPool

	calling atomic.Int64 // calls in flight
	// streams of gRPC end with this context, which ends when the policy is released
	// and its last exchange is over.
	streams context.Context
	cut     context.CancelFunc

	pool       pool
	background background
	circuit    circuit

	made  atomic.Bool // the first VM is at work
	first *use        // for what is called while the first VM starts

	mu   sync.Mutex
	uses []*use // each Make that is not released, the newest last
}

// use is what one Make has returned.
type use struct {
	*Policy
	granted policy.Services
}

// use makes the policy ask these services for what no exchange asks for.
func (p *Policy) use(services policy.Services) *use {
	u := &use{p, services}
	p.mu.Lock()
	p.uses = append(p.uses, u)
	p.mu.Unlock()
	return u
}

// services are those of the newest Make; nil: there are none.
func (p *Policy) services() policy.Services {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.uses) == 0 {
		return nil
	}
	return p.uses[len(p.uses)-1].granted
}

// NewFilter implements policy.Policy.
func (u *use) NewFilter() policy.Filter {
	return &filter{policy: u.Policy, services: u.granted, tally: u.pool.tally()}
}

// Release implements policy.Policy.
func (u *use) Release() {
	if u.unuse(u) {
		u.release()
	}
}

func (p *Policy) unuse(u *use) bool {
	p.mu.Lock()
	i := slices.Index(p.uses, u)
	if i >= 0 {
		p.uses = slices.Delete(p.uses, i, i+1)
	}
	p.mu.Unlock()
	if i >= 0 && !p.grantStands(u.granted) {
		p.redis.drop(u.granted)
	}
	return i >= 0
}

// newPolicy compiles what must be compiled and starts the first VM, which may ask
// these services already.
func (h *Host) newPolicy(ctx context.Context, spec policy.Spec, services policy.Services) (*Policy, error) {
	pages, err := h.config.pages(spec.MemoryBytes)
	if err != nil {
		return nil, err
	}
	m, err := h.acquire(ctx, moduleKey{digest: spec.Digest, pages: pages}, h.fetch)
	if err != nil {
		return nil, err
	}
	p := h.bare(m, spec, &h.meters)
	first := newVM(p)
	p.first = p.use(services)
	if err := first.start(); err != nil {
		p.background.stop()
		p.pool.close() // frees the policy, once the calls have ended that it began
		return nil, fmt.Errorf("%w%s", err, first.recent.String())
	}
	if p.describe(first) {
		first.holders.Add(reserved)
		p.background.start(first)
	} else {
		p.pool.adopt(first)
	}
	return p, nil
}

// describe takes down what the first VM has said of its plugin, and reports whether
// there is something to do in the background.
func (p *Policy) describe(v *vm) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	p.phases, p.connects = v.phases(), v.connects()
	p.brief, p.light, p.indulgent = v.brief, v.light, v.indulgent
	p.background.mu.Lock()
	defer p.background.mu.Unlock()
	return v.tickPeriod > 0 || p.background.wanted
}

// bare is a policy without VMs; free undoes it.
func (h *Host) bare(m *module, spec policy.Spec, all *meters) *Policy {
	p := &Policy{host: h, module: m, spec: spec, fuel: int64(min(cmp.Or(spec.Fuel, h.config.Fuel), h.config.MaxFuel, maxFuel))}
	p.open = isOpen(spec)
	p.data, p.meters = h.shared.enter(spec.Tenant), all.enter(meterKeyOf(spec))
	p.log = newGuestLog(h.config, spec, p.data)
	p.pool.policy, p.pool.limit = p, h.config.VMs
	p.pool.waiting.L = &p.pool.mu
	p.streams, p.cut = context.WithCancel(h.ctx)
	p.background.policy, p.background.ready, p.background.strike = p, make(chan struct{}, 1), make(chan chan struct{})
	p.circuit.pause, p.circuit.patience, p.circuit.turn = h.config.Open, aloneFor, make(chan struct{}, 1)
	return p
}

// Spec implements policy.Policy.
func (p *Policy) Spec() policy.Spec { return p.spec }

// Phases implements policy.Policy: the callbacks that the module exports, less
// those that its SDK has said it does not use.
func (p *Policy) Phases() policy.Phases { return p.phases }

func (p *Policy) release() {
	if !p.host.release(p.spec) {
		return
	}
	p.background.stop()
	p.pool.close() // calls free when the last exchange is over
}

// free gives up what the VMs shared. No VM is left.
func (p *Policy) free() {
	p.cut()
	p.redis.close()
	p.host.shared.leave(p.spec.Tenant)
	p.host.meters.leave(meterKeyOf(p.spec))
	p.module.release()
}

// failed counts a trap.
func (p *Policy) failed(err error) {
	if p.circuit.trapped(err, p.pool.served()) {
		p.log.warn("policy keeps failing: its circuit is open", "for", p.circuit.pause, "error", err)
	}
}

// makers is how many VMs may be made at a time.
func (p *Policy) makers() int {
	if p.circuit.suspect() {
		return 1
	}
	return runtime.GOMAXPROCS(0)
}

// probed takes notice of how the exchange went that an open circuit let through.
// If the policy was not asked at all, the next one shows it.
func (p *Policy) probed(failed, asked bool) {
	if !failed && !asked {
		p.circuit.until.Store(1)
		return
	}
	if pause := p.circuit.probed(failed); pause > 0 {
		p.log.warn("policy still fails: its circuit stays open", "for", pause)
	} else {
		p.log.logger.Info("policy serves again: its circuit is closed")
	}
}

// Status is how a policy fares.
type Status struct {
	Tenant, Name, Plugin, Digest string
	// ABI is the version of proxy-wasm that the plugin speaks.
	ABI string
	// VMs counts those that live, Idle those of them that serve no exchange.
	VMs, Idle int
	// Calls counts those to services that are in flight.
	Calls int
	// MemoryBytes is the linear memory of all of them, as they have grown.
	MemoryBytes uint64
	// Exchanges counts those that were begun, Traps those callbacks that failed,
	// OutOfFuel those of them that emptied the tank.
	Exchanges, Traps, OutOfFuel uint64
	// Fuel is what all callbacks burned, DearestExchange the most that one
	// exchange did: to start a VM is no part of the exchange that needed it.
	Fuel, DearestExchange uint64
	// OpenUntil is until when the policy is not asked; the next exchange after that
	// shows how it fares. Zero when the circuit is closed.
	OpenUntil time.Time
	LastError string
	// LinesDropped counts lines that were not logged because there were too many.
	LinesDropped uint64
}

// Status describes the policy.
func (p *Policy) Status() Status {
	s := Status{
		Tenant: p.spec.Tenant, Name: p.spec.Name, Plugin: p.spec.Plugin, Digest: p.spec.Digest,
		ABI: string(p.module.version), Exchanges: p.pool.begun(), Fuel: p.pool.burned(),
		DearestExchange: p.pool.dearest(), LinesDropped: p.log.dropped.Load(),
	}
	s.VMs, s.Idle = p.pool.count()
	s.Calls = int(p.calling.Load())
	s.MemoryBytes = p.pool.memory()
	p.circuit.describe(&s)
	return s
}
