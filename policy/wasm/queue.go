package wasm

import (
	"bytes"
	"fmt"

	"github.com/weirmesh/weir/policy/wasm/abi"
)

// queue is one of a tenant's shared queues. It lives as long as the tenant's shared
// data; who registered it last is told of what comes, in its policy's background.
// Their numbers and names are the tenant's: the vm_id by which other hosts tell them
// apart leads nowhere else.
type queue struct {
	token    uint32
	items    [][]byte
	listener *background
}

// register opens a queue, or finds it, and makes b its listener.
func (t *tenantData) register(name []byte, b *background) (token uint32, ok bool) {
	t.mu.Lock()
	q := t.byName[string(name)]
	if q == nil {
		if len(t.queues) >= maxQueues || len(name) > maxQueueName {
			t.mu.Unlock()
			return 0, false
		}
		q = &queue{token: uint32(len(t.queues) + 1)}
		if t.byName == nil {
			t.byName = map[string]*queue{}
		}
		t.byName[string(name)] = q
		t.queues = append(t.queues, q)
	}
	waiting := len(q.items)
	if q.listener == b {
		waiting = 0 // it has been told of them
	}
	q.listener = b
	t.mu.Unlock()
	b.want()
	b.notify(q.token, waiting)
	return q.token, true
}

func (t *tenantData) resolve(name []byte) (token uint32, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	q := t.byName[string(name)]
	if q == nil {
		return 0, false
	}
	return q.token, true
}

// queue finds a queue by its token. The lock is the caller's.
func (t *tenantData) queue(token uint32) *queue {
	if token == 0 || int64(token) > int64(len(t.queues)) {
		return nil
	}
	return t.queues[token-1]
}

func (t *tenantData) enqueue(token uint32, item []byte) abi.Status {
	t.mu.Lock()
	q := t.queue(token)
	switch {
	case q == nil:
		t.mu.Unlock()
		return abi.NotFound
	case t.queued+len(item)+queueItem > t.limits.queues:
		t.mu.Unlock()
		return abi.InternalFailure
	}
	t.queued += len(item) + queueItem
	q.items = append(q.items, bytes.Clone(item))
	listener := q.listener
	t.mu.Unlock()
	listener.notify(token, 1)
	return abi.OK
}

func (t *tenantData) dequeue(token uint32) ([]byte, abi.Status) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.queue(token)
	switch {
	case q == nil:
		return nil, abi.NotFound
	case len(q.items) == 0:
		return nil, abi.Empty
	}
	item := q.items[0]
	q.items[0] = nil
	q.items = q.items[1:]
	t.queued -= len(item) + queueItem
	return item, abi.OK
}

// retract takes back what was dequeued and could not be handed over.
func (t *tenantData) retract(token uint32, item []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if q := t.queue(token); q != nil {
		q.items = append([][]byte{item}, q.items...)
		t.queued += len(item) + queueItem
	}
}

func proxyRegisterQueue(v *vm, s stack) abi.Status {
	name, inside := v.read(s.u32(0), s.u32(1))
	if !inside || !v.writable(s.u32(2)) {
		return abi.InvalidMemoryAccess
	}
	v.drawBytes(len(name))
	token, ok := v.policy.data.register(name, &v.policy.background)
	if !ok {
		v.policy.log.line(v, abi.Error, fmt.Sprintf("cannot register queue %q: a tenant has at most %d, with names of %d bytes",
			clip(string(name)), maxQueues, maxQueueName))
		return abi.InternalFailure
	}
	return v.putU32(s.u32(2), token)
}

// proxyResolveQueue leaves the vm_id aside: all of a tenant's queues are its own.
func proxyResolveQueue(v *vm, s stack) abi.Status {
	name, inside := v.read(s.u32(2), s.u32(3))
	if !inside || !v.writable(s.u32(4)) {
		return abi.InvalidMemoryAccess
	}
	v.drawBytes(len(name))
	token, ok := v.policy.data.resolve(name)
	if !ok {
		return abi.NotFound
	}
	return v.putU32(s.u32(4), token)
}

func proxyEnqueue(v *vm, s stack) abi.Status {
	item, inside := v.read(s.u32(1), s.u32(2))
	if !inside {
		return abi.InvalidMemoryAccess
	}
	v.drawBytes(len(item))
	status := v.policy.data.enqueue(s.u32(0), item)
	if status == abi.InternalFailure {
		v.policy.log.line(v, abi.Error, "the tenant's queues are full: nothing is sent")
	}
	return status
}

func proxyDequeue(v *vm, s stack) abi.Status {
	if !v.writable(s.u32(1)) || !v.writable(s.u32(2)) {
		return abi.InvalidMemoryAccess
	}
	item, status := v.policy.data.dequeue(s.u32(0))
	if status != abi.OK {
		return status
	}
	if status = v.give(item, s.u32(1), s.u32(2)); status != abi.OK {
		v.policy.data.retract(s.u32(0), item)
	}
	return status
}
