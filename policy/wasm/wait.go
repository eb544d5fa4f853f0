package wasm

import (
	"errors"
	"time"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
)

// An exchange that is paused waits in its filter, on its own goroutine, without the
// floor. Meanwhile whoever has the floor may act for it: a call's answer, another
// exchange that shares the VM. So it is parked while it waits, which says that what
// is in it may be looked at by who has the floor, and roused when it has been
// continued, answered or closed, or when its VM is lost. Its deadline ends every
// wait, and so does that nobody wants it any more.

var errUnwanted = errors.New("nobody wants the exchange any more")

// waits says whether a callback's action pauses the exchange until something
// happens that is not more of its body. The VM's floor is the filter's.
func (f *filter) waits(action abi.Action, end bool) bool {
	if action == abi.Continue || f.resume || f.abort || f.replied {
		return false
	}
	p := f.policy
	head, body := f.stage == stageRequestHead, policy.RequestBody
	if f.stage >= stageResponseHead {
		head, body = f.stage == stageResponseHead, policy.ResponseBody
	}
	switch {
	case head && (action == abi.PauseAll || action == abi.PauseAllWatermark):
		return true
	case end || head && p.phases&body == 0:
		// No body can end it. Who has asked for the indulgent way waits for what is
		// under way, if anything is.
		return !p.indulgent || f.calls > 0
	case head:
		return !p.spec.StopIteration && !p.indulgent && p.module.version != abi.V02100
	}
	return false
}

// wait parks the exchange. It is called with the floor, and returns with it.
func (f *filter) wait() error {
	v, x := f.vm, f.x
	if len(v.calls) == 0 {
		v.policy.log.line(v, abi.Warn, "plugin has paused an exchange, and nothing is under way that could continue it")
	}
	until := time.Now().Add(maxPause)
	if !x.Deadline.IsZero() && x.Deadline.Before(until) {
		until = x.Deadline
	}
	if f.wake == nil {
		f.wake = make(chan struct{}, 1)
	}
	f.fuel += v.burned
	v.burned = 0
	v.stage, v.current, v.effective = stageIdle, nil, nil
	f.parked = true
	v.mu.Unlock()
	f.pass()

	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	why := errUnwanted
	select {
	case <-f.wake:
	case <-timer.C:
		why = policy.ErrWaited
	case <-x.Done:
	}

	v.mu.Lock()
	f.parked = false
	select { // it may have been roused since
	case <-f.wake:
	default:
	}
	switch {
	case v.dead:
		f.live = false
		if f.lost != nil {
			return f.lost
		}
		return errLost
	case f.resume || f.replied || f.abort:
		return nil
	}
	f.cut = true
	return why
}

// rouse wakes those who need not wait any more. The floor is the caller's.
func (v *vm) rouse() {
	for _, f := range v.filters {
		if f.connection != nil {
			f.connection.rouse()
		}
		if f.parked && (v.dead || f.resume || f.replied || f.abort) {
			select {
			case f.wake <- struct{}{}:
			default:
			}
		}
	}
}

// orphan parts the exchange from the calls that were made for it. Those that it
// still waited for are given up; the others run on, and their answers come to the
// root context.
func (f *filter) orphan() {
	if f.calls == 0 {
		return
	}
	for _, c := range f.vm.calls {
		if c.owner == f {
			c.owner = nil
			if f.cut {
				c.cancel()
			}
		}
	}
	f.calls = 0
}
