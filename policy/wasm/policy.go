package wasm

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
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
	open  bool // failureMode OPEN: what a failed callback changed is undone

	log    *guestLog
	data   *tenantData
	meters *pluginMeters

	pool    pool
	ticker  ticker
	circuit circuit
}

// newPolicy compiles what must be compiled and starts the first VM.
func (h *Host) newPolicy(ctx context.Context, spec policy.Spec) (*Policy, error) {
	pages, err := h.config.pages(spec.MemoryBytes)
	if err != nil {
		return nil, err
	}
	m, err := h.acquire(ctx, moduleKey{digest: spec.Digest, pages: pages})
	if err != nil {
		return nil, err
	}
	p := h.bare(m, spec)
	first := newVM(p)
	if err := first.start(); err != nil {
		lines := first.recent.String()
		first.close()
		p.free()
		return nil, fmt.Errorf("%w%s", err, lines)
	}
	p.pool.book(first)
	p.phases = first.phases()
	p.brief, p.light = first.brief, first.light
	if first.tickPeriod > 0 {
		p.ticker.start(p, first)
	} else {
		p.pool.adopt(first)
	}
	return p, nil
}

// bare is a policy without VMs; free undoes it.
func (h *Host) bare(m *module, spec policy.Spec) *Policy {
	p := &Policy{host: h, module: m, spec: spec, fuel: int64(min(cmp.Or(spec.Fuel, h.config.Fuel), maxFuel))}
	p.open = isOpen(spec)
	p.log = newGuestLog(h.config, spec)
	p.data, p.meters = h.shared.enter(spec.Tenant), h.meters.enter(spec.Tenant, spec.Plugin)
	p.pool.policy, p.pool.limit = p, h.config.VMs
	p.pool.waiting.L = &p.pool.mu
	p.circuit.pause = h.config.Open
	return p
}

// Spec implements policy.Policy.
func (p *Policy) Spec() policy.Spec { return p.spec }

// Phases implements policy.Policy: the callbacks that the module exports, less
// those that its SDK has said it does not use.
func (p *Policy) Phases() policy.Phases { return p.phases }

// Release implements policy.Policy.
func (p *Policy) Release() {
	if !p.host.release(p.spec) {
		return
	}
	p.ticker.stop()
	p.pool.close() // calls free when the last exchange is over
}

// free gives up what the VMs shared. No VM is left.
func (p *Policy) free() {
	p.host.shared.leave(p.spec.Tenant)
	p.host.meters.leave(p.spec.Tenant, p.spec.Plugin)
	p.module.release()
}

// NewFilter implements policy.Policy.
func (p *Policy) NewFilter() policy.Filter { return &filter{policy: p, tally: p.pool.tally()} }

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
	// MemoryBytes is the linear memory of all of them, as they have grown.
	MemoryBytes uint64
	// Exchanges counts those that were begun, Traps those callbacks that failed,
	// OutOfFuel those of them that emptied the tank.
	Exchanges, Traps, OutOfFuel uint64
	// Fuel is what all callbacks burned, DearestExchange the most that one
	// exchange did: to start a VM is no part of the exchange that needed it.
	Fuel, DearestExchange uint64
	// OpenUntil is when the circuit closes again; zero when it is closed.
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
	s.MemoryBytes = p.pool.memory()
	p.circuit.describe(&s)
	return s
}
