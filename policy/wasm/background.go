package wasm

import (
	"context"
	"sync"
	"time"
)

// background makes the callbacks that are for a policy and for no exchange: ticks,
// and what has come into its queues. The ABI has them in every VM; here one VM, which
// serves no exchange, has them for all: VMs come and go with traffic, and what these
// callbacks do (counting down, reporting, taking work) is to be done once. What it
// learns it must share with the others as shared data.
type background struct {
	policy *Policy
	done   sync.WaitGroup
	// ready receives when queues have something, and strike what is closed after a
	// tick that was asked for.
	ready  chan struct{}
	strike chan chan struct{}

	mu     sync.Mutex
	cancel context.CancelFunc // nil: it does not run
	// wanted: a queue was registered before it could run. closed: it runs no more.
	wanted, closed bool
	queues         []uint32 // that have something, once for each
}

// start takes over a VM that has asked for such callbacks; nil: it makes one when
// there is something to do.
func (b *background) start(v *vm) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.cancel != nil {
		return
	}
	var ctx context.Context
	ctx, b.cancel = context.WithCancel(context.Background())
	b.done.Go(func() { b.run(ctx, v) })
}

// want has it run, as soon as the policy is made.
func (b *background) want() {
	b.mu.Lock()
	made := b.policy.made.Load()
	b.wanted = true
	b.mu.Unlock()
	if made {
		b.start(nil)
	}
}

// notify tells of n pieces in a queue.
func (b *background) notify(queue uint32, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	for range n {
		b.queues = append(b.queues, queue)
	}
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

func (b *background) next() (queue uint32, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queues) == 0 {
		return 0, false
	}
	queue = b.queues[0]
	b.queues = b.queues[1:]
	return queue, true
}

// stop ends the callbacks and closes their VM.
func (b *background) stop() {
	b.mu.Lock()
	b.closed = true
	if b.cancel != nil {
		b.cancel()
	}
	b.mu.Unlock()
	b.done.Wait()
}

func (b *background) run(ctx context.Context, v *vm) {
	period := time.Duration(0)
	clock := time.NewTicker(time.Hour)
	defer clock.Stop()
	follow := func() { // what the guest last said of its ticks
		v.mu.Lock()
		wanted := v.tickPeriod
		v.mu.Unlock()
		if wanted == period || b.policy.host.config.ManualTicks {
			return
		}
		if period = wanted; period > 0 {
			clock.Reset(period)
		}
	}
	if v != nil {
		follow()
	}
	for {
		select {
		case <-ctx.Done():
			if v != nil {
				v.shut()
			}
			return
		case <-clock.C:
			if period > 0 {
				v = b.call(v, cbTick)
			}
		case done := <-b.strike:
			v = b.call(v, cbTick)
			close(done)
		case <-b.ready:
			for queue, ok := b.next(); ok && ctx.Err() == nil; queue, ok = b.next() {
				v = b.call(v, cbQueueReady, queue)
			}
		}
		if v != nil {
			follow()
		}
	}
}

// Tick makes one tick, and reports whether the plugin has asked for ticks. It is for
// who tests plugins.
func (p *Policy) Tick() bool {
	b := &p.background
	b.mu.Lock()
	running := b.cancel != nil && !b.closed
	b.mu.Unlock()
	if !running {
		return false
	}
	done := make(chan struct{})
	b.strike <- done
	<-done
	return true
}

// reserved is added to the holders of a VM that serves no exchanges.
const reserved = retired / 2

// call makes a callback, in a new VM if the last one has failed, and returns the VM
// for the next time, nil if there is none.
func (b *background) call(v *vm, cb int, arguments ...uint32) *vm {
	if v != nil {
		v.mu.Lock()
		if !v.dead {
			return v.rootAndQuit(cb, arguments)
		}
		v.mu.Unlock() // an answer to a call was its end
	}
	p := b.policy
	probe, err := p.circuit.check()
	if err != nil {
		return nil
	}
	v = newVM(p)
	v.holders.Add(reserved)
	if err = v.start(); err != nil {
		p.failed(err)
		v = nil
	} else if v.mu.Lock(); v.dead {
		v.mu.Unlock()
		v = nil
	} else {
		v = v.rootAndQuit(cb, arguments)
	}
	if probe {
		p.probed(v == nil, true)
	}
	return v
}

// rootAndQuit makes a callback and gives up the floor, which is the caller's. It
// returns the VM unless that has failed.
func (v *vm) rootAndQuit(cb int, arguments []uint32) *vm {
	if !v.quit(v.root(cb, arguments...)) {
		return nil
	}
	return v
}
