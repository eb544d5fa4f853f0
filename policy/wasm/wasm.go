// Package wasm runs policies that are WASM modules speaking proxy-wasm 0.2.1
// (or 0.2.0, 0.1.0, Higress's 0.2.100). It is the only place that knows the engine, wazero.
//
//	bytes ─▶ fuel.Rewrite ─▶ module (compiled once) ─▶ pool of VMs ─▶ callback
//	          checked          per digest and limit      per policy     fuel, one goroutine
//
// A [Host] makes policies; it is a policy.Maker. A policy holds a small pool of
// VMs, instances of the module under the policy's configuration. An exchange
// takes a VM when it begins and keeps it to its end: its context lives in that
// VM's memory. A guest may say that it keeps nothing there; such an exchange is
// light, and takes any VM that is idle for the length of a callback. And it may
// keep edits, changes of heads, with its VM, and name them by what it returns.
//
// # What a VM may cost
//
// Time: every callback gets a tank of fuel (package fuel), host functions draw
// from it too. Memory: the module's own maximum is lowered to the limit, and the
// memory is mapped outside the Go heap. VMs: at most [Config.VMs] a policy; when
// all are taken, exchanges share one, callback by callback. The rest (log lines,
// shared data, what a callback makes the host keep) is bounded in limits.go.
//
// # When it fails
//
// A trap or an empty tank leaves the guest's memory in no known state, so the VM
// is closed and the next exchange gets another. As long as the pool is not
// exhausted a VM serves one exchange at a time, kept or light, and a trap costs
// that exchange alone; exchanges that had to share the VM fail with it (errLost), by their own
// policy's failureMode. From a trap until an exchange goes well its exchanges are
// shown to the policy one after the other, so that a crowd does not trap on all
// processors at once. A policy that does little but trap opens its circuit for
// a while: its filters fail at once and cost nothing.
//
// # Waiting
//
// A guest may call the services that its policy was granted, and pause an exchange
// meanwhile: see call. The answer is a callback of the root context in the VM that
// asked; whoever makes it has the VM's floor, and so may act for an exchange that
// waits (wait.go). What is for no exchange, ticks and the queues of a tenant, one VM
// of a policy has that serves none: see background.
//
// # Connections without HTTP
//
// A connection holds a VM from its beginning to its end. Both its directions are asked
// about in turns, and none waits in the VM: see connection.
//
// # What is not there
//
// Higress's function that sends a part of a response early can be linked, but says that
// it is not offered.
// docs/guides/abi.md lists every function.
package wasm

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/fuel"
)

// Config is what a Host needs. Only Modules is required.
type Config struct {
	// Modules returns the bytes of a module by its digest, "sha256:…".
	Modules func(ctx context.Context, digest string) ([]byte, error)
	// CacheDir keeps compiled code between runs. It must be writable by this
	// process alone: what is in it is executed. Empty: no cache on disk.
	CacheDir string
	Logger   *slog.Logger

	// VMs bounds the VMs of one policy, TenantVMs those of all policies of a tenant, beside
	// the one that each has. Defaults 8 and 64 for each processor.
	VMs, TenantVMs int
	// TenantMemoryBytes bounds the memory of a tenant's VMs together. Default 1 GiB.
	TenantMemoryBytes int64
	// MemoryBytes and Fuel are for policies that state none. Defaults 16 MiB
	// and 10,000,000.
	MemoryBytes, Fuel uint64
	// MaxFuel is what a policy gets that states more. Default 10,000,000,000.
	MaxFuel uint64
	// MaxMemoryBytes bounds what a policy may state. Default 256 MiB.
	MaxMemoryBytes uint64
	// ModuleBytes bounds a module. Default 32 MiB.
	ModuleBytes int
	// LogLines is how many lines a second a policy may log, and a burst of as
	// many again; TenantLogLines the same for a tenant. Defaults 100 and 1000.
	LogLines, TenantLogLines int
	// SharedBytes bounds the shared data of a tenant. Default 4 MiB.
	SharedBytes int
	// QueueBytes bounds the queues of a tenant, all together. Default 4 MiB.
	QueueBytes int
	// Calls and TenantCalls are how many calls to services may be in flight, of one
	// policy and of a tenant. Defaults 256 and 1024. CallBytes bounds the body that
	// one sends, and that of its answer. Default 1 MiB.
	Calls, TenantCalls, CallBytes int

	// Open is how long an open circuit stays open. Default 5 s.
	Open time.Duration

	// ManualTicks: plugins have no ticks of their own, but those that Policy.Tick makes.
	ManualTicks bool
	// Clock is the time of day for guests. Default time.Now.
	Clock func() time.Time
	// Wait has a guest wait so long, and no longer than until changed is closed or ctx
	// ends. Default none: in real time.
	Wait func(ctx context.Context, d time.Duration, changed <-chan struct{})
	// Random makes the source of a VM's random numbers. Default the system's.
	// With a source that repeats, so does the fuel of guests that hash.
	Random func() io.Reader
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.VMs, c.TenantVMs = cmp.Or(c.VMs, 8*runtime.GOMAXPROCS(0)), cmp.Or(c.TenantVMs, 64*runtime.GOMAXPROCS(0))
	c.TenantMemoryBytes = cmp.Or(c.TenantMemoryBytes, 1<<30)
	c.MemoryBytes = cmp.Or(c.MemoryBytes, 16<<20)
	c.MaxMemoryBytes = cmp.Or(c.MaxMemoryBytes, 256<<20)
	c.Fuel, c.MaxFuel = cmp.Or(c.Fuel, 10_000_000), cmp.Or(c.MaxFuel, 10_000_000_000)
	c.ModuleBytes = cmp.Or(c.ModuleBytes, 32<<20)
	c.LogLines = cmp.Or(c.LogLines, 100)
	c.TenantLogLines = cmp.Or(c.TenantLogLines, max(1000, c.LogLines))
	c.SharedBytes = cmp.Or(c.SharedBytes, 4<<20)
	c.QueueBytes = cmp.Or(c.QueueBytes, 4<<20)
	c.Calls, c.TenantCalls = cmp.Or(c.Calls, 256), cmp.Or(c.TenantCalls, 1024)
	c.CallBytes = cmp.Or(c.CallBytes, 1<<20)
	c.Open = cmp.Or(c.Open, 5*time.Second)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Random == nil {
		c.Random = func() io.Reader { return rand.Reader }
	}
	return c
}

func (c Config) validate() error {
	if c.Modules == nil {
		return errors.New("no source of modules")
	}
	if c.VMs < 0 || c.ModuleBytes < 0 || c.LogLines < 0 || c.SharedBytes < 0 || c.QueueBytes < 0 ||
		c.Calls < 0 || c.TenantCalls < 0 || c.CallBytes < 0 || c.TenantVMs < 0 || c.TenantMemoryBytes < 0 || c.TenantLogLines < 0 {
		return errors.New("a limit is negative")
	}
	return nil
}

// Host makes policies and owns all that they share. Close it when they are
// released.
type Host struct {
	config Config
	began  time.Time
	cache  wazero.CompilationCache
	shared sharedData
	meters meters
	// compiling holds one token: compiling takes a processor for as long as a
	// second, and the others are for exchanges.
	compiling chan struct{}
	// hashing holds a token for each processor that may be busy with passwords: the
	// others are for exchanges, however many passwords are tried.
	hashing chan struct{}
	// calls are to services; what they wait for ends with ctx.
	calls sync.WaitGroup
	ctx   context.Context
	stop  context.CancelFunc

	mu       sync.Mutex
	closed   bool
	policies map[policy.Spec]*made
	modules  map[moduleKey]*module
	// late are modules that nobody uses, the newest last; lingering counts them until
	// they are released.
	late      []*late
	lingering sync.WaitGroup
}

var _ policy.Maker = (*Host)(nil)

// NewHost opens the cache; nothing else happens until a policy is made.
func NewHost(config Config) (*Host, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("configure WASM host: %w", err)
	}
	cache := wazero.NewCompilationCache()
	if config.CacheDir != "" {
		var err error
		if cache, err = wazero.NewCompilationCacheWithDir(config.CacheDir); err != nil {
			return nil, fmt.Errorf("open cache of compiled modules: %w", err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Host{
		ctx: ctx, stop: stop, config: config, began: config.Clock(), cache: cache,
		compiling: make(chan struct{}, 1),
		hashing:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		shared:    sharedData{limits: config.tenantLimits()},
		policies:  map[policy.Spec]*made{},
		modules:   map[moduleKey]*module{},
	}, nil
}

// Close gives up the cache. Policies must have been released before.
func (h *Host) Close() error {
	h.mu.Lock()
	again, n := h.closed, len(h.policies)
	h.closed = true
	h.mu.Unlock()
	if again {
		return nil
	}
	h.stop()
	h.forgetAll()
	h.calls.Wait() // of policies that are released: nobody begins another
	if n > 0 {
		return fmt.Errorf("close WASM host: %d policies are not released", n)
	}
	return h.cache.Close(context.Background())
}

// made is a policy that exists or is being made. ready is closed when policy
// and err are set.
type made struct {
	ready  chan struct{}
	policy *Policy
	err    error
	refs   int // under Host.mu
}

var errClosed = errors.New("the WASM host is closed")

// Make implements policy.Maker. Its error says why the plugin does not work,
// with the last lines that it logged.
func (h *Host) Make(ctx context.Context, spec policy.Spec, services policy.Services) (policy.Policy, error) {
	for {
		p, mine, err := h.make(ctx, spec, services)
		if err == nil {
			u := p.use(services)
			if mine {
				p.made.Store(true)
				p.unuse(p.first)
			}
			return u, nil
		}
		abandoned := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
		if mine || !abandoned || ctx.Err() != nil {
			return nil, fmt.Errorf("make policy %s/%s of plugin %s: %w", spec.Tenant, spec.Name, spec.Plugin, err)
		}
		// Another caller made it for us and gave up; we have not.
	}
}

func (h *Host) make(ctx context.Context, spec policy.Spec, services policy.Services) (p *Policy, mine bool, err error) {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, true, errClosed
	}
	m := h.policies[spec]
	if m == nil {
		m = &made{ready: make(chan struct{})}
		h.policies[spec] = m
		mine = true
	}
	m.refs++
	h.mu.Unlock()
	if mine {
		m.policy, m.err = h.newPolicy(ctx, spec, services)
		if m.err != nil {
			h.mu.Lock()
			delete(h.policies, spec)
			h.mu.Unlock()
		}
		close(m.ready)
		return m.policy, true, m.err
	}
	select {
	case <-m.ready:
		return m.policy, false, m.err
	case <-ctx.Done():
		h.abandon(m)
		return nil, true, ctx.Err()
	}
}

// abandon gives up a Make that was not waited for.
func (h *Host) abandon(m *made) {
	go func() { // ends when the one who makes the policy is done
		<-m.ready
		if m.err == nil {
			m.policy.release()
		}
	}()
}

// release undoes one Make and reports whether it was the last.
func (h *Host) release(spec policy.Spec) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.policies[spec]
	if m == nil {
		return false
	}
	if m.refs--; m.refs > 0 {
		return false
	}
	delete(h.policies, spec)
	return true
}

// Status describes every policy that is made.
func (h *Host) Status() []Status {
	h.mu.Lock()
	var all []*Policy
	for _, m := range h.policies {
		select {
		case <-m.ready:
			all = append(all, m.policy)
		default:
		}
	}
	h.mu.Unlock()
	var out []Status
	for _, p := range all {
		if p != nil {
			out = append(out, p.Status())
		}
	}
	return out
}

// Limits bounds one plugin.
type Limits struct {
	// MemoryBytes of one VM; 0: the host's default.
	MemoryBytes uint64
	// Fuel for one callback; 0: the host's default.
	Fuel uint64
}

// pages is a memory limit in whole pages.
func (c Config) pages(bytes uint64) (uint32, error) {
	bytes = cmp.Or(bytes, c.MemoryBytes)
	if bytes > c.MaxMemoryBytes {
		return 0, fmt.Errorf("a memory limit of %d bytes: at most %d are allowed", bytes, c.MaxMemoryBytes)
	}
	return uint32((bytes + fuel.PageSize - 1) / fuel.PageSize), nil
}
