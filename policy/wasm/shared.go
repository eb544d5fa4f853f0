package wasm

import (
	"sync"
	"sync/atomic"

	"github.com/weirmesh/weir/policy/wasm/abi"
)

// sharedData is what guests share. Each tenant has its own; it lives as long as
// the tenant has a policy, so a policy that is replaced finds what it left.
type sharedData struct {
	limits tenantLimits

	mu      sync.Mutex
	tenants map[string]*tenantData
}

// tenantData is one tenant's values, by key.
type tenantData struct {
	policies int // under sharedData.mu

	limits  tenantLimits
	calling atomic.Int64 // calls to services in flight
	vms     atomic.Int64
	memory  atomic.Int64 // of the VMs
	lines   bucket

	mu     sync.RWMutex
	bytes  int
	values map[string]*sharedValue
	// watchers are closed when what is under their key changes.
	watchers map[string][]chan struct{}

	queued int
	queues []*queue // by their token, less one
	byName map[string]*queue
}

// sharedValue has a version, which changes with every store and is never 0 nor
// the largest number: SDKs use these for "whatever it is" and "none yet".
type sharedValue struct {
	data    []byte
	version uint32
}

// tenantLimits bound what all policies of a tenant have together.
type tenantLimits struct {
	shared, queues int
	vms, memory    int64
	lines          float64 // a second
}

func (c *Config) tenantLimits() tenantLimits {
	return tenantLimits{shared: c.SharedBytes, queues: c.QueueBytes, vms: int64(c.TenantVMs), memory: c.TenantMemoryBytes, lines: float64(c.TenantLogLines)}
}

// noVersion is that of what is not there.
const noVersion = 1<<32 - 1

func (s *sharedData) enter(tenant string) *tenantData {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tenants == nil {
		s.tenants = map[string]*tenantData{}
	}
	t := s.tenants[tenant]
	if t == nil {
		t = &tenantData{limits: s.limits, lines: newBucket(s.limits.lines), values: map[string]*sharedValue{}}
		s.tenants[tenant] = t
	}
	t.policies++
	return t
}

func (s *sharedData) leave(tenant string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tenants[tenant]; t != nil {
		if t.policies--; t.policies == 0 {
			delete(s.tenants, tenant)
		}
	}
}

// hasRoom tells whether a policy may have another VM, which may grow to so many bytes.
func (t *tenantData) hasRoom(most int64) bool {
	return t.vms.Load() < t.limits.vms && t.memory.Load()+most <= t.limits.memory
}

// grow takes so much memory for a VM, if there is as much.
func (t *tenantData) grow(bytes int64) bool {
	if t.memory.Add(bytes) <= t.limits.memory {
		return true
	}
	t.memory.Add(-bytes)
	return false
}

// get appends the value to dst, once it has been paid for, byte by byte.
func (t *tenantData) get(dst, key []byte, pay func(bytes int)) (value []byte, version uint32, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s := t.values[string(key)]
	if s == nil {
		return dst, 0, false
	}
	pay(len(s.data)) // may panic: an empty tank ends the callback
	return append(dst, s.data...), s.version, true
}

// set stores a copy of the value if the version is still the one given; 0 means
// whatever it is, and so does a key that is not there.
func (t *tenantData) set(key, value []byte, version uint32) abi.Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.values[string(key)]
	if s != nil && version != 0 && version != s.version {
		return abi.CASMismatch
	}
	grows := len(value)
	if s == nil {
		grows += len(key)
	} else {
		grows -= len(s.data)
	}
	if t.bytes+grows > t.limits.shared || s == nil && (len(t.values) >= maxShared || len(key) > maxSharedKey) {
		return abi.InternalFailure
	}
	if s == nil {
		s = &sharedValue{}
		t.values[string(key)] = s
	}
	t.bytes += grows
	if cap(s.data) > 2*len(value)+64 {
		s.data = nil // what is kept is what is counted, or little more
	}
	s.data = append(s.data[:0], value...)
	if s.version++; s.version == noVersion {
		s.version = 1
	}
	for _, changed := range t.watchers[string(key)] {
		close(changed)
	}
	delete(t.watchers, string(key))
	return abi.OK
}

func proxyGetShared(v *vm, s stack) abi.Status {
	key, inside := v.read(s.u32(0), s.u32(1))
	if !inside || !v.writable(s.u32(4)) {
		return abi.InvalidMemoryAccess
	}
	v.drawBytes(len(key))
	value, version, ok := v.policy.data.get(v.scratch[:0], key, v.drawBytes)
	v.scratch = value
	if !ok {
		return abi.NotFound
	}
	v.mem.WriteUint32Le(s.u32(4), version)
	return v.hand(value, s.u32(2), s.u32(3))
}

func proxySetShared(v *vm, s stack) abi.Status {
	key, a := v.read(s.u32(0), s.u32(1))
	value, b := v.read(s.u32(2), s.u32(3))
	if !a || !b {
		return abi.InvalidMemoryAccess
	}
	v.drawBytes(len(key) + len(value))
	status := v.policy.data.set(key, value, s.u32(4))
	if status == abi.InternalFailure {
		v.policy.log.line(v, abi.Error, "shared data is full: the value is not stored")
	}
	return status
}
