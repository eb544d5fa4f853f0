package wasm

import (
	"context"
	"sync"
	"time"
)

// ticker calls a policy's on_tick. The ABI has ticks in every VM; here one VM,
// which serves no exchange, ticks for all: VMs come and go with traffic, and
// what ticks do (counting down, reporting) is to be done once. What it learns
// it must share with the others as shared data.
type ticker struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// start takes over a VM that has asked for ticks.
func (t *ticker) start(p *Policy, v *vm) {
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	t.done.Go(func() { t.run(ctx, p, v) })
}

// stop ends the ticks and closes their VM.
func (t *ticker) stop() {
	if t.cancel != nil {
		t.cancel()
		t.done.Wait()
	}
}

func (t *ticker) run(ctx context.Context, p *Policy, v *vm) {
	period := v.tickPeriod
	clock := time.NewTicker(period)
	defer clock.Stop()
	for {
		select {
		case <-ctx.Done():
			if v != nil {
				v.close()
			}
			return
		case <-clock.C:
		}
		if v = p.tick(v); v == nil {
			continue
		}
		if v.tickPeriod <= 0 {
			v.tickPeriod = period // it has ended its ticks, but another VM may begin
			clock.Stop()
		} else if v.tickPeriod != period {
			period = v.tickPeriod
			clock.Reset(period)
		}
	}
}

// tick makes the callback, in a new VM if the last one trapped, and returns the
// VM for the next time, nil if there is none.
func (p *Policy) tick(v *vm) *vm {
	if v != nil {
		return p.tickIn(v)
	}
	probe, err := p.circuit.check()
	if err != nil {
		return nil
	}
	v = newVM(p)
	err = v.start()
	p.pool.book(v)
	if err == nil {
		v = p.tickIn(v)
	} else {
		v.close()
		p.failed(err)
		v = nil
	}
	if probe {
		p.probed(v == nil, true)
	}
	return v
}

func (p *Policy) tickIn(v *vm) *vm {
	v.stage = stageRoot
	v.stack[0] = rootID
	err := v.run(cbTick, 1)
	v.stage, v.effective = stageIdle, nil
	p.pool.book(v)
	if err != nil {
		p.log.warn("plugin failed in a tick", "error", err)
		v.close()
		p.failed(err)
		return nil
	}
	return v
}
