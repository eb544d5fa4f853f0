package wasm

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// pool is the VMs of one policy.
//
// An exchange that finds an idle VM has it alone. When there is none and the
// limit and the tenant's allow it, the exchange makes one, which takes a processor some
// milliseconds, once: VMs outlive exchanges. One for each processor is made at a
// time, and only one where exchanges trapped just now, so that others have processors
// left; who comes meanwhile waits for that. At the limit exchanges share the VM that serves
// the fewest; its callbacks take turns. So the pool
// never refuses and never makes anyone wait for another exchange's upstream; the
// price is that exchanges which share a VM share its end.
//
// # Who holds a VM
//
// vm.holders says how many exchanges do. Whoever raises it from 0 to 1 has the VM
// alone, and that takes no lock: only who finds nothing idle goes to the list,
// under mu. Where to look first is a hint: the VM that this processor gave back
// last, whose memory is still in its caches. Hints are no more than that: one may
// speak of a VM that is taken or gone, and all of them may be lost at any time.
//
// # The end
//
// The pool outlives whatever uses its VMs: enter and leave count the exchanges in
// flight, and calls to services are counted beside them, and the last to leave a closed pool closes what VMs are left and then,
// when they are closed, frees the policy. Nobody else does, and nobody closes a VM
// who has not entered.
type pool struct {
	policy *Policy
	limit  int
	hints  sync.Pool // of *vm

	mu     sync.Mutex
	vms    []*vm // that live and have not failed
	making int   // VMs being made
	// waiting: for one that is being made.
	waiting sync.Cond
	freed   bool
	closed  atomic.Bool

	next    atomic.Uint32 // the tally for the next filter
	_       [128]byte     // the tallies change with every exchange
	tallies [16]tally
	// calls counts calls to services, which are inside as exchanges are.
	calls tally
}

// tally counts some of the exchanges. There are several, and a filter always
// counts in the same one: as filters stay with their processor, so do the tallies,
// where a single one would travel between the processors twice in an exchange.
type tally struct {
	begun   atomic.Uint64
	served  atomic.Uint64 // by a callback that went well, and none that did not
	ended   atomic.Uint64
	burned  atomic.Uint64 // fuel
	dearest atomic.Uint64
	_       [88]byte
}

const (
	// idleFor is how long a VM is kept that traffic does not need.
	idleFor = time.Minute
	// trimEvery is how many exchanges pass between two looks for such VMs.
	trimEvery = 256
	// retired is added to the holders of a VM that nobody may take any more.
	retired = -1 << 30
)

var errReleased = errors.New("the policy is released")

// tally is the one for a new filter to count in.
func (p *pool) tally() *tally {
	return &p.tallies[p.next.Add(1)%uint32(len(p.tallies))]
}

// enter begins an exchange: until it has left, VMs can be taken.
func (p *pool) enter(t *tally) error {
	n := t.begun.Add(1)
	if p.closed.Load() {
		p.exit(t)
		return errReleased
	}
	if n%trimEvery == 0 { // exactly one of so many, however they come
		p.trim(time.Now())
	}
	return nil
}

// leave ends an exchange, which holds no VM any more and has burned so much.
func (p *pool) leave(t *tally, fuel uint64) {
	t.burned.Add(fuel)
	for most := t.dearest.Load(); fuel > most && !t.dearest.CompareAndSwap(most, fuel); most = t.dearest.Load() {
	}
	p.exit(t)
}

func (p *pool) exit(t *tally) {
	t.ended.Add(1)
	if p.closed.Load() {
		p.finish()
	}
}

// book counts what a VM has burned for no exchange: its start, a tick.
func (p *pool) book(v *vm) {
	p.tallies[0].burned.Add(v.burned)
	v.burned = 0
}

// begun, served, ended, burned and dearest are what all tallies say.
func (p *pool) begun() (n uint64) {
	for i := range p.tallies {
		n += p.tallies[i].begun.Load()
	}
	return n
}

func (p *pool) served() (n uint64) {
	for i := range p.tallies {
		n += p.tallies[i].served.Load()
	}
	return n
}

func (p *pool) ended() (n uint64) {
	for i := range p.tallies {
		n += p.tallies[i].ended.Load()
	}
	return n
}

func (p *pool) burned() (n uint64) {
	for i := range p.tallies {
		n += p.tallies[i].burned.Load()
	}
	return n
}

func (p *pool) dearest() (n uint64) {
	for i := range p.tallies {
		n = max(n, p.tallies[i].dearest.Load())
	}
	return n
}

// adopt takes in a new VM that serves no exchange.
func (p *pool) adopt(v *vm) {
	p.mu.Lock()
	p.vms = append(p.vms, v)
	p.mu.Unlock()
}

// take returns a VM to serve one more exchange, which has entered; give it back
// with put.
func (p *pool) take() (*vm, error) {
	for {
		v, _ := p.hints.Get().(*vm)
		if v == nil {
			return p.find()
		}
		if v.holders.CompareAndSwap(0, 1) {
			return v, nil
		}
	}
}

// find is take by the list.
func (p *pool) find() (*vm, error) {
	p.mu.Lock()
	for {
		for _, v := range p.vms {
			if v.holders.CompareAndSwap(0, 1) {
				p.mu.Unlock()
				return v, nil
			}
		}
		switch room := p.hasRoom(); {
		case room && p.making < p.policy.makers():
			p.making++
			p.mu.Unlock()
			return p.make()
		case room || len(p.vms) == 0:
			p.waiting.Wait()
		default:
			if v := p.share(); v != nil {
				p.mu.Unlock()
				return v, nil
			}
		}
	}
}

// hasRoom tells whether there may be another VM: the first one always. mu is held.
func (p *pool) hasRoom() bool {
	n := len(p.vms) + p.making
	return n == 0 || n < p.limit && p.policy.data.hasRoom(p.policy.module.memory())
}

func (p *pool) make() (*vm, error) {
	v := newVM(p.policy)
	err := v.start()
	p.mu.Lock()
	p.making--
	if err == nil {
		v.holders.Add(1) // beside those of its calls
		p.vms = append(p.vms, v)
	}
	p.waiting.Broadcast() // there is one to share, or another has to be made
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return v, nil
}

// share joins those who hold the VM that the fewest hold, nil if they have just
// given it back. mu is held, so nobody retires it meanwhile.
func (p *pool) share() *vm {
	least, fewest := p.vms[0], p.vms[0].holders.Load()
	for _, v := range p.vms[1:] {
		if n := v.holders.Load(); n < fewest {
			least, fewest = v, n
		}
	}
	if fewest == 0 || !least.holders.CompareAndSwap(fewest, fewest+1) {
		return nil
	}
	return least
}

// put gives a VM back after one exchange.
func (p *pool) put(v *vm) {
	if v.holders.Add(-1) != 0 {
		return // shared, or retired
	}
	if p.closed.Load() {
		p.shed(v)
		return
	}
	p.hints.Put(v)
}

// retire takes a VM that has failed, and is closed, out of service. Exchanges that
// still hold it put it back later.
func (p *pool) retire(v *vm) {
	p.mu.Lock()
	v.holders.Add(retired)
	p.unlist(v)
	p.mu.Unlock()
}

func (p *pool) unlist(v *vm) {
	if i := slices.Index(p.vms, v); i >= 0 {
		p.vms = slices.Delete(p.vms, i, i+1)
	}
}

// trim closes the VMs that no one has used for long, but for the last. What
// traffic needs least stands at the end of the list.
func (p *pool) trim(now time.Time) {
	var old []*vm
	p.mu.Lock()
	for i := len(p.vms) - 1; i >= 0 && len(p.vms) > 1; i-- {
		v := p.vms[i]
		if !v.holders.CompareAndSwap(0, 1) {
			continue
		}
		// It is ours, and with mu held nobody joins us.
		switch {
		case v.uses != v.seen || v.idleSince.IsZero():
			v.seen, v.idleSince = v.uses, now
		case now.Sub(v.idleSince) >= idleFor:
			v.holders.Add(retired)
			p.unlist(v)
			old = append(old, v)
		}
		v.holders.Add(-1)
	}
	p.mu.Unlock()
	for _, v := range old {
		v.shut()
	}
}

// shed closes an idle VM of a closed pool, but for the last: exchanges that are
// still in flight may want one. Who calls it has entered.
func (p *pool) shed(v *vm) {
	p.mu.Lock()
	shed := len(p.vms) > 1 && v.holders.CompareAndSwap(0, retired)
	if shed {
		p.unlist(v)
	}
	p.mu.Unlock()
	if shed {
		v.shut()
	}
}

// close ends the pool once the exchanges in flight have left. It counts as one of
// them meanwhile.
func (p *pool) close() {
	t := &p.tallies[0]
	t.begun.Add(1)
	p.closed.Store(true)
	p.mu.Lock()
	idle := slices.Clone(p.vms)
	p.mu.Unlock()
	for _, v := range idle {
		p.shed(v)
	}
	p.exit(t)
}

// finish frees a closed pool that everyone has left.
func (p *pool) finish() {
	p.mu.Lock()
	// Read in this order, equal numbers mean that nobody was inside between the
	// two; who has come since turns back at once.
	ended, answered := p.ended(), p.calls.ended.Load()
	calls, exchanges := p.calls.begun.Load(), p.begun()
	if p.freed || answered != calls || ended != exchanges {
		over := ended == exchanges
		p.mu.Unlock()
		if over {
			p.policy.cut()
		}
		return
	}
	p.freed = true
	vms := p.vms
	p.vms = nil
	p.mu.Unlock()
	for _, v := range vms {
		v.shut()
	}
	p.policy.free()
}

// memory waits for callbacks that are running, but for no exchange.
func (p *pool) memory() (n uint64) {
	p.mu.Lock()
	vms := slices.Clone(p.vms)
	p.mu.Unlock()
	for _, v := range vms {
		v.mu.Lock()
		if v.mem != nil && !v.dead {
			n += uint64(v.mem.Size())
		}
		v.mu.Unlock()
	}
	return n
}

func (p *pool) count() (all, idle int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.vms {
		if v.holders.Load() == 0 {
			idle++
		}
	}
	return len(p.vms), idle
}
