package wasm

import (
	"sync"
	"sync/atomic"

	"github.com/weirmesh/weir/policy/wasm/abi"
)

// sharedData is what guests share. Each tenant has its own; it lives as long as
// the tenant has a policy, so a policy that is replaced finds what it left.
type sharedData struct {
	limit, queueLimit int

	mu      sync.Mutex
	tenants map[string]*tenantData
}

// tenantData is one tenant's values, by key.
type tenantData struct {
	policies int // under sharedData.mu

	calling atomic.Int64 // calls to services in flight

	mu     sync.RWMutex
	limit  int
	bytes  int
	values map[string]*sharedValue
	// watchers are closed when what is under their key changes.
	watchers map[string][]chan struct{}

	queueLimit, queued int
	queues             []*queue // by their token, less one
	byName             map[string]*queue
}

// sharedValue has a version, which changes with every store and is never 0 nor
// the largest number: SDKs use these for "whatever it is" and "none yet".
type sharedValue struct {
	data    []byte
	version uint32
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
		t = &tenantData{limit: s.limit, queueLimit: s.queueLimit, values: map[string]*sharedValue{}}
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
	if t.bytes+grows > t.limit || s == nil && (len(t.values) >= maxShared || len(key) > maxSharedKey) {
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
