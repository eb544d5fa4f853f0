package wasm

import (
	"unsafe"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
	"github.com/weirmesh/weir/proxy/exchange"
)

// connection takes one connection that carries no HTTP through a VM, which it holds from
// Begin to Close. It is a filter as far as the guest's context and its end go. Its
// two directions are asked about by two goroutines, in turns; what either holds back
// is the VM's to change, as long as it is held.
type connection struct {
	filter
	flows [2]flow
	wake  func(policy.Direction)
}

// flow is one direction of a connection's bytes.
type flow struct {
	kept    []byte // held back, as it was before the last callback
	body    body   // what the guest sees and changes
	holding bool
	resume  bool // continue_stream was called
	roused  bool // and wake since
}

var _ policy.ConnectionPolicy = (*use)(nil)

// NewConnectionFilter implements policy.ConnectionPolicy.
func (u *use) NewConnectionFilter() policy.ConnectionFilter {
	c := &connection{filter: filter{policy: u.Policy, services: u.granted, tally: u.pool.tally()}}
	c.connection = c
	return c
}

// Connects implements policy.ConnectionPolicy.
func (p *Policy) Connects() bool { return p.connects }

// connects says whether the guest has code for connections.
func (v *vm) connects() bool {
	for _, cb := range []int{cbNewConnection, cbDownstreamData, cbUpstreamData, cbDownstreamClose, cbUpstreamClose} {
		if v.functions[cb] != nil {
			return true
		}
	}
	return false
}

var (
	stageOf      = [2]stage{stageDownstream, stageUpstream}
	dataCallback = [2]int{cbDownstreamData, cbUpstreamData}
	endCallback  = [2]int{cbDownstreamClose, cbUpstreamClose}
	bufferOf     = [2]abi.Buffer{abi.DownstreamData, abi.UpstreamData}
)

// lacks says that the guest has no such callback, which spares taking the floor.
func (c *connection) lacks(cb int) bool { return c.vm != nil && c.vm.functions[cb] == nil }

// OnConnect implements policy.ConnectionFilter.
func (c *connection) OnConnect(_ *exchange.Exchange, wake func(policy.Direction)) (policy.Verdict, error) {
	if c.vm == nil { // of a guest that knows light exchanges, which this is none of
		c.wake = wake
		if err := c.create(); err != nil {
			return policy.Continue, err
		}
	} else { // where others may be rousing it already
		c.vm.mu.Lock()
		c.wake = wake
		c.vm.mu.Unlock()
	}
	if c.lacks(cbNewConnection) {
		return policy.Continue, nil
	}
	if err := c.enter(stageConnect); err != nil {
		return policy.Continue, err
	}
	c.vm.stack[0] = uint64(c.id)
	err := c.vm.run(cbNewConnection, 1)
	_, verdict, err := c.decide(&c.flows[policy.Downstream], nil, abi.Action(c.vm.stack[0]), err)
	return verdict, err
}

// OnBytes implements policy.ConnectionFilter.
func (c *connection) OnBytes(_ *exchange.Exchange, d policy.Direction, piece []byte, end bool) ([]byte, policy.Verdict, error) {
	w, cb := &c.flows[d], dataCallback[d]
	if c.lacks(cb) && !w.holding {
		return piece, policy.Continue, nil
	}
	if err := c.enter(stageOf[d]); err != nil {
		return append(w.kept, piece...), policy.Continue, err
	}
	if w.holding {
		w.keep(w.body.taken()) // it may have been changed since
		w.kept = append(w.kept, piece...)
		piece = w.kept
	}
	v := c.vm
	w.body.show(piece)
	v.stack[0], v.stack[1], v.stack[2] = uint64(c.id), uint64(len(piece)), flag(end)
	err := v.run(cb, 1)
	return c.decide(w, piece, abi.Action(v.stack[0]), err)
}

// decide makes a verdict of what the guest has done and returned, and gives up the
// floor. shown is the direction's bytes as they were before.
func (c *connection) decide(w *flow, shown []byte, action abi.Action, err error) ([]byte, policy.Verdict, error) {
	left := w.body.taken()
	verdict := policy.Hold
	switch {
	case err != nil:
		left, verdict = shown, policy.Continue
	case c.abort:
		verdict = policy.Respond
	case action == abi.Continue || w.resume:
		verdict = policy.Continue
	}
	w.resume, w.roused, w.holding = false, false, verdict == policy.Hold
	if w.holding {
		w.keep(left)
		w.body.show(w.kept)
	} else {
		w.kept = w.kept[:0] // what is left may be there, until the next piece comes
	}
	err = c.leave(err)
	return left, verdict, err
}

// keep makes bytes those that are held.
func (w *flow) keep(b []byte) {
	if unsafe.SliceData(b) != unsafe.SliceData(w.kept) || len(b) != len(w.kept) {
		w.kept = append(w.kept[:0], b...)
	}
}

// Resume implements policy.ConnectionFilter.
func (c *connection) Resume(_ *exchange.Exchange, d policy.Direction) ([]byte, policy.Verdict, error) {
	w := &c.flows[d]
	if err := c.enter(stageOf[d]); err != nil {
		return c.Release(d), policy.Continue, err
	}
	verdict := policy.Hold
	var out []byte
	switch {
	case c.abort:
		verdict = policy.Respond
	case w.resume:
		verdict, out = policy.Continue, w.body.taken()
		w.kept, w.holding = w.kept[:0], false
	}
	w.resume, w.roused = false, false
	return out, verdict, c.end(nil)
}

// Release implements policy.ConnectionFilter.
func (c *connection) Release(d policy.Direction) []byte {
	w := &c.flows[d]
	c.vm.mu.Lock()
	defer c.vm.mu.Unlock()
	out := w.kept
	w.kept, w.holding = w.kept[:0], false
	return out
}

// OnDisconnect implements policy.ConnectionFilter.
func (c *connection) OnDisconnect(_ *exchange.Exchange, d policy.Direction, remote bool) error {
	const local, peer = 1, 2 // the ABI's types of peers
	if c.lacks(endCallback[d]) {
		return nil
	}
	if err := c.enter(stageEnd); err != nil {
		return err
	}
	by := uint64(local)
	if remote {
		by = peer
	}
	c.vm.stack[0], c.vm.stack[1] = uint64(c.id), by
	return c.leave(c.vm.run(endCallback[d], 1))
}

// Close implements policy.ConnectionFilter.
func (c *connection) Close(x *exchange.Exchange) {
	c.cut = c.flows[0].holding || c.flows[1].holding // it waits in vain for what it has asked
	c.filter.Close(x)
}

// rouse has those asked again who may have been let go. The floor is the caller's.
func (c *connection) rouse() {
	for d := range c.flows {
		w := &c.flows[d]
		if !w.roused && c.wake != nil && (c.vm.dead || c.abort || w.holding && w.resume) {
			w.roused = true
			c.wake(policy.Direction(d))
		}
	}
}

// flow is the direction whose bytes are in a buffer, nil: none is shown or held.
func (v *vm) flow(b abi.Buffer) *flow {
	f := v.effective
	if f == nil || f.connection == nil {
		return nil
	}
	for d := range bufferOf {
		if w := &f.connection.flows[d]; bufferOf[d] == b && w.body.shown {
			return w
		}
	}
	return nil
}

// proceedOn ends what a connection holds back of a direction.
func (v *vm) proceedOn(d policy.Direction) abi.Status {
	f := v.effective
	if f == nil || f.connection == nil || f.stage == stageEnd {
		return abi.BadArgument
	}
	w := &f.connection.flows[d]
	w.resume = w.holding || f.stage == stageOf[d] || f.stage == stageConnect && d == policy.Downstream
	return abi.OK
}

// direction is the way of a connection that a stream of the ABI names.
func direction(s abi.Stream) (policy.Direction, bool) {
	switch s {
	case abi.DownstreamStream:
		return policy.Downstream, true
	case abi.UpstreamStream:
		return policy.Upstream, true
	}
	return 0, false
}
