package wasm

import (
	"errors"
	"sync"
	"time"
)

// pool is the VMs of one policy.
//
// An exchange that finds an idle VM has it alone. When there is none and the
// limit allows it, the exchange makes one, which takes it some milliseconds,
// once: VMs outlive exchanges. At the limit exchanges share the VM that serves
// the fewest; its callbacks take turns. Only when all of them are still being
// made is there nothing to share, and the wait is for the first. So the pool
// never refuses and never makes anyone wait for another exchange's upstream; the
// price is that exchanges which share a VM share its end.
//
// The VM used last is used next: its memory is still in the caches, and what
// traffic no longer needs grows old at the other end and is closed.
type pool struct {
	policy *Policy
	limit  int

	mu     sync.Mutex
	idle   []*vm // the last is the one used last
	busy   []*vm
	making int // VMs being made
	held   int // VMs that were retired, and freed with that, but not yet put back
	puts   uint
	// waiting: for one that is being made.
	waiting sync.Cond
	closed  bool
	freed   bool
}

// idleFor is how long a VM is kept that traffic does not need.
const idleFor = time.Minute

var errReleased = errors.New("the policy is released")

// adopt takes in a new VM that serves no exchange.
func (p *pool) adopt(v *vm) {
	p.mu.Lock()
	p.idle = append(p.idle, v)
	p.mu.Unlock()
}

// take returns a VM to serve one more exchange; give it back with put.
func (p *pool) take() (*vm, error) {
	p.mu.Lock()
	for {
		switch {
		case p.closed:
			p.mu.Unlock()
			return nil, errReleased
		case len(p.idle) > 0:
			v := p.idle[len(p.idle)-1]
			p.idle = p.idle[:len(p.idle)-1]
			p.serve(v)
			p.mu.Unlock()
			return v, nil
		case len(p.busy)+p.making < p.limit:
			p.making++
			p.mu.Unlock()
			return p.make()
		case len(p.busy) > 0:
			v := p.leastBusy()
			v.serves++
			p.mu.Unlock()
			return v, nil
		}
		p.waiting.Wait()
	}
}

func (p *pool) make() (*vm, error) {
	v := newVM(p.policy)
	err := v.start()
	p.mu.Lock()
	p.making--
	if err == nil {
		p.serve(v)
	}
	p.waiting.Broadcast() // there is one to share, or another has to be made
	last := p.empty()
	p.mu.Unlock()
	if err != nil {
		v.close()
	}
	if last {
		p.policy.free()
	}
	return v, err
}

// serve moves a VM that is on no list to the busy ones. mu is held.
func (p *pool) serve(v *vm) {
	v.serves = 1
	v.place = len(p.busy)
	p.busy = append(p.busy, v)
}

func (p *pool) leastBusy() *vm {
	least := p.busy[0]
	for _, v := range p.busy[1:] {
		if v.serves < least.serves {
			least = v
		}
	}
	return least
}

// unlist takes a VM off the busy ones. mu is held.
func (p *pool) unlist(v *vm) {
	end := len(p.busy) - 1
	p.busy[v.place] = p.busy[end]
	p.busy[v.place].place = v.place
	p.busy[end] = nil
	p.busy = p.busy[:end]
	v.place = -1
}

// retire takes a VM that has failed out of service. Exchanges that still hold it
// put it back later.
func (p *pool) retire(v *vm) {
	p.mu.Lock()
	if v.place >= 0 {
		p.unlist(v)
		p.held++
	}
	p.mu.Unlock()
}

// put gives a VM back after one exchange.
func (p *pool) put(v *vm) {
	var old *vm
	p.mu.Lock()
	v.serves--
	if v.serves == 0 {
		if v.place < 0 {
			p.held-- // it was retired
		} else {
			p.unlist(v)
			v.idleSince = time.Time{}
			p.idle = append(p.idle, v)
			old = p.trim()
		}
	}
	last := p.empty()
	p.mu.Unlock()
	if old != nil {
		old.close()
	}
	if last {
		p.policy.free()
	}
}

// trim returns a VM to close: any when the pool is closed, else the one used
// longest ago if that is long. mu is held. It looks at the clock only now and
// then: it is called after every exchange.
func (p *pool) trim() *vm {
	if !p.closed {
		if p.puts++; p.puts%64 != 0 || len(p.idle) < 2 {
			return nil
		}
		if oldest := p.idle[0]; oldest.idleSince.IsZero() {
			oldest.idleSince = time.Now()
			return nil
		} else if time.Since(oldest.idleSince) < idleFor {
			return nil
		}
	}
	oldest := p.idle[0]
	p.idle = append(p.idle[:0], p.idle[1:]...)
	return oldest
}

// close frees the idle VMs; busy ones follow when they are put back.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	p.waiting.Broadcast()
	last := p.empty()
	p.mu.Unlock()
	for _, v := range idle {
		v.close()
	}
	if last {
		p.policy.free()
	}
}

// empty reports, once, that a closed pool has no VM left. mu is held.
func (p *pool) empty() bool {
	if !p.closed || p.freed || p.making > 0 || p.held > 0 || len(p.busy) > 0 || len(p.idle) > 0 {
		return false
	}
	p.freed = true
	return true
}

func (p *pool) count() (all, idle int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle) + len(p.busy), len(p.idle)
}
