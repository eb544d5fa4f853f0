package wasm

import (
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
	"github.com/weirmesh/weir/proxy/exchange"
)

func isOpen(spec policy.Spec) bool { return spec.FailureMode == weirv1.PolicySpec_OPEN }

// filter takes exchanges through VMs, one after the other.
//
//	Begin: context_create ─▶ request, response callbacks ─▶ finish: done, log, delete
//
// From Begin to finish it holds a VM, because the guest keeps the exchange in its
// memory. Not so with a guest that knows light exchanges: then it takes a VM for a
// callback, any that is idle, and holds it only if the guest says that it keeps
// something. As long as it does not, the exchange is no context of any VM, and
// neither is made nor deleted there.
type filter struct {
	policy   *Policy
	services policy.Services // that the exchange's configuration grants
	tally    *tally
	// connection is set for one that carries no HTTP.
	connection *connection
	vm         *vm // nil: none is held
	x          *exchange.Exchange
	fuel       uint64
	burned     uint64 // by the exchange before
	spent      int    // bytes that the guest has put into the exchange
	id         uint32
	live       bool // the guest has a context for it
	probe      bool // the policy's circuit is open, and waits for how it goes
	alone      bool // the policy is in doubt, and it is this exchange's turn
	served     bool // a callback has gone well, and none has failed
	refused    bool // a callback was not made, as the circuit was open
	failed     bool
	fell       bool // the exchange before has failed

	// stage is what the guest may see of the exchange: nothing (stageIdle) while its
	// goroutine is elsewhere.
	stage   stage
	calls   int  // in flight, which were made for it
	called  bool // one was made in this callback
	busy    bool // some were in flight when the last callback ended
	holding bool // the guest has more of the body shown before it decides
	// parked: it waits, and wake ends that. cut: it has waited in vain. lost is
	// what its VM was lost to.
	parked, cut bool
	wake        chan struct{}
	lost        error

	resume  bool // continue_stream was called, in this callback or since the last
	abort   bool // close_stream was called
	replied bool // reply is to be the answer
	dirty   bool // what follows was used

	body  body
	saved head
	reply reply
}

// reply is an answer that the guest has sent. It is made the response when the
// callback has returned, so that a trap leaves nothing half done.
type reply struct {
	status  int
	body    []byte
	fields  abi.Pairs
	details string
	grpc    int32 // status for gRPC clients, -1: none
	chunk   exchange.Chunk
}

// Begin implements policy.Filter.
func (f *filter) Begin(x *exchange.Exchange) error {
	p := f.policy
	if err := p.pool.enter(f.tally); err != nil {
		return err
	}
	f.x = x
	var err error
	if f.probe, err = p.circuit.check(); err == nil && !p.light {
		err = f.create()
	}
	if err != nil {
		f.Close(x)
	}
	return err
}

// create takes a VM and makes the exchange's context in it.
func (f *filter) create() error {
	if err := f.queue(stageRequestHead); err != nil {
		return err
	}
	if err := f.board(stageRequestHead); err != nil {
		f.pass()
		return err
	}
	f.keep()
	f.vm.stack[0], f.vm.stack[1] = uint64(f.id), rootID
	return f.end(f.vm.run(cbContextCreate, 1))
}

// board takes a VM for a filter that holds none, and enters it.
func (f *filter) board(s stage) error {
	for {
		v, err := f.policy.pool.take()
		if err != nil {
			f.fail(err)
			return err
		}
		f.vm = v
		if err := f.take(s); err == nil {
			f.id = v.newID()
			return nil
		}
		f.drop() // it died while we waited for it: take another
	}
}

// drop gives the VM back.
func (f *filter) drop() {
	v := f.vm
	f.vm = nil
	f.policy.pool.put(v)
}

// enter takes the floor in the VM for one callback, boarding one first if there
// is none; leave gives it back.
func (f *filter) enter(s stage) error {
	if err := f.queue(s); err != nil {
		return err
	}
	err := f.take(s)
	if err != nil {
		f.pass()
	}
	return err
}

// queue waits until it is the exchange's turn, where the policy is in doubt; pass ends
// that turn. If the circuit has opened meanwhile, only who was served before goes on.
func (f *filter) queue(s stage) error {
	c := &f.policy.circuit
	if f.probe || f.alone || s == stageEnd {
		return nil
	}
	if c.doubt.Load() {
		f.alone = c.queue(f.x)
	}
	if !f.served && c.until.Load() != 0 {
		f.pass()
		f.refused = true
		return errCircuitOpen
	}
	return nil
}

func (f *filter) pass() {
	if f.alone {
		f.alone = false
		f.policy.circuit.pass()
	}
}

// take is enter without the queue.
func (f *filter) take(s stage) error {
	v := f.vm
	if v == nil {
		return f.board(s)
	}
	v.mu.Lock()
	if v.dead {
		v.mu.Unlock()
		return errLost
	}
	v.uses++
	v.stage, v.current, v.effective = s, f, f
	f.stage = s
	return nil
}

// leave ends a callback, which serves the exchange if it went well.
func (f *filter) leave(err error) error {
	if err == nil && !f.served && !f.refused { // else it has only been told of the end
		f.served = true
		f.tally.served.Add(1)
		f.policy.circuit.reassure()
	}
	return f.end(err)
}

// end ends a call into the guest. After an error the VM's memory is in no known
// state: nobody uses it again.
func (f *filter) end(err error) error {
	v := f.vm
	v.stage, v.current, v.effective = stageIdle, nil, nil
	f.stage = stageIdle
	f.fuel += v.burned
	v.burned = 0
	if cap(v.scratch) > keptScratch {
		v.scratch = nil
	}
	if err != nil {
		f.live = false
		v.close()
	}
	if err != nil || len(v.filters) > 1 || f.connection != nil {
		v.rouse()
	}
	v.mu.Unlock()
	if err != nil {
		f.policy.pool.retire(v)
		f.fail(err)
	}
	f.pass()
	return err
}

// fail counts a failure of the exchange's.
func (f *filter) fail(err error) {
	f.unserve()
	f.policy.failed(err)
}

// unserve takes back that the policy has served the exchange well.
func (f *filter) unserve() {
	f.failed = true
	if f.served {
		f.served = false
		f.tally.served.Add(^uint64(0))
	}
}

// keep and forget say whether the exchange is a context of the VM, which the
// filter has the floor in.
func (f *filter) keep() {
	f.vm.filters = append(f.vm.filters, f)
	f.live = true
}

func (f *filter) forget() {
	f.vm.remove(f)
	f.orphan()
	f.live = false
}

// OnRequest implements policy.Filter.
func (f *filter) OnRequest(x *exchange.Exchange, end bool) (policy.Verdict, error) {
	verdict, err := f.head(stageRequestHead, cbRequestHeaders, requestPseudo+x.Request.Fields.Len(), end)
	f.briefly(verdict, err, policy.ResponseHead|policy.ResponseBody, policy.RequestBody, end)
	return verdict, err
}

// OnResponse implements policy.Filter.
func (f *filter) OnResponse(x *exchange.Exchange, end bool) (policy.Verdict, error) {
	verdict, err := f.head(stageResponseHead, cbResponseHeaders, responsePseudo+x.Response.Fields.Len(), end)
	f.briefly(verdict, err, 0, policy.ResponseBody, end)
	return verdict, err
}

func (f *filter) head(s stage, cb int, fields int, end bool) (policy.Verdict, error) {
	if err := f.enter(s); err != nil {
		return policy.Continue, err
	}
	v := f.vm
	v.stack[0], v.stack[1], v.stack[2] = uint64(f.id), uint64(fields), flag(end)
	err := v.run(cb, 1)
	action := abi.Action(v.stack[0])
	if err == nil && action > abi.MostPlain {
		action, err = f.edited(cb, action)
	}
	return f.depart(action, end, err)
}

// edited makes the edit that an action names, and returns what is left of it.
func (f *filter) edited(cb int, action abi.Action) (abi.Action, error) {
	if len(f.vm.edits) == 0 {
		return action, nil // the guest means something else, if anything
	}
	number := uint32(action) >> abi.EditShift
	action &= abi.MostPlain
	if f.replied || f.abort {
		return action, nil
	}
	return action, f.edit(cb, number)
}

// OnRequestBody implements policy.Filter.
func (f *filter) OnRequestBody(x *exchange.Exchange, chunk *[]byte, end bool) (policy.Verdict, error) {
	verdict, err := f.chunk(stageRequestBody, cbRequestBody, cbRequestTrailers, x.Request.Trailers.Len(), chunk, end)
	f.briefly(verdict, err, policy.ResponseHead|policy.ResponseBody, policy.RequestBody, end)
	return verdict, err
}

// OnResponseBody implements policy.Filter.
func (f *filter) OnResponseBody(x *exchange.Exchange, chunk *[]byte, end bool) (policy.Verdict, error) {
	verdict, err := f.chunk(stageResponseBody, cbResponseBody, cbResponseTrailers, x.Response.Trailers.Len(), chunk, end)
	f.briefly(verdict, err, 0, policy.ResponseBody, end)
	return verdict, err
}

// chunk shows the guest a chunk and, when it is the last and trailers follow that
// the guest wants to see, these: then they are the end, not the chunk.
func (f *filter) chunk(s stage, cb, cbTrailers, trailers int, chunk *[]byte, end bool) (policy.Verdict, error) {
	if err := f.enter(s); err != nil {
		return policy.Continue, err
	}
	v := f.vm
	if f.replied || f.abort { // since the last callback
		return f.depart(abi.Continue, end, nil)
	}
	follow := end && trailers > 0 && v.functions[cbTrailers] != nil && v.wantsTrailers(s)
	f.body.show(*chunk)
	f.dirty = true
	var err error
	action := abi.Continue
	if !f.live {
		action |= abi.Light // until it is shown something, the guest keeps nothing
	}
	if v.functions[cb] != nil && v.wantsBody(s) {
		v.stack[0], v.stack[1], v.stack[2] = uint64(f.id), uint64(len(*chunk)), flag(end && !follow)
		err = v.run(cb, 1)
		action = abi.Action(v.stack[0])
	}
	if err == nil && follow && !f.replied {
		v.stack[0], v.stack[1] = uint64(f.id), uint64(trailers)
		err = v.run(cbTrailers, 1)
		action = abi.Action(v.stack[0])
	}
	if err == nil && action > abi.MostPlain {
		action, err = f.edited(cb, action)
	}
	verdict, err := f.depart(action, end, err)
	if err == nil {
		*chunk = f.body.taken()
	}
	return verdict, err
}

// wantsBody reports whether the guest has code for the chunks of this body: what it
// said, or else that it exports the callback.
func (v *vm) wantsBody(s stage) bool {
	if s == stageRequestBody {
		return !v.announced || v.wanted&policy.RequestBody != 0
	}
	return !v.announced || v.wanted&policy.ResponseBody != 0
}

// wantsTrailers is the same of the trailers that follow it.
func (v *vm) wantsTrailers(s stage) bool {
	if s == stageRequestBody {
		return !v.announced || v.trailing&trailingRequest != 0
	}
	return !v.announced || v.trailing&trailingResponse != 0
}

// depart leaves the VM after a callback, once the exchange need not wait, and gives
// it back if the guest keeps nothing of the exchange.
func (f *filter) depart(action abi.Action, end bool, err error) (policy.Verdict, error) {
	s := f.stage
	if f.policy.light && err == nil {
		light := action&abi.Light != 0
		action &^= abi.Light
		// Who pauses, or waits for an answer, wants to go on where it was.
		light = light && (action == abi.Continue || f.replied || f.abort) && !f.called
		switch {
		case light && f.live:
			f.forget()
		case !light && !f.live:
			f.keep()
		}
	}
	f.called = false
	var ended error
	if err == nil && action != abi.Continue && f.waits(action, end) {
		if ended = f.wait(); ended == nil {
			action = abi.Continue
		}
	}
	f.busy = f.calls > 0
	failed := err != nil || ended != nil
	verdict := f.conclude(action, failed)
	if f.vm.dead { // lost while it waited; who did that has counted it
		f.unserve()
		err = f.end(nil)
	} else {
		err = f.leave(err)
	}
	if err == nil {
		err = ended
	}
	if !f.live {
		f.drop()
	}
	if failed {
		f.restore(s)
	}
	if f.dirty {
		f.saved.of = stageIdle
	}
	return verdict, err
}

// conclude makes a verdict of what the guest did and returned. The floor is the
// filter's: an answer may have come from another context.
func (f *filter) conclude(action abi.Action, failed bool) policy.Verdict {
	resume, abort, replied := f.resume, f.abort, f.replied
	f.resume, f.abort, f.replied, f.holding = false, false, false, false
	switch {
	case failed:
		return policy.Continue
	case replied:
		f.answer()
		return policy.Respond
	case abort:
		f.x.Answer(502, nil)
		f.x.Details = "policy_closed_stream"
		return policy.Respond
	case action == abi.Continue || resume:
		return policy.Continue
	}
	f.holding = true
	return policy.Hold
}

// answer makes the guest's reply the response.
func (f *filter) answer() {
	x, r := f.x, &f.reply
	x.Answer(r.status, nil)
	if len(r.body) > 0 {
		r.chunk.Set(r.body)
		x.Response.Body = &r.chunk
	}
	for name, value := range r.fields.All {
		if !isFraming(name) && len(name) > 0 && name[0] != ':' {
			x.Response.Fields.Add(name, value)
		}
	}
	if r.grpc >= 0 && x.Request.IsGRPC() {
		x.Response.Status = 200
		x.Response.Fields.Set(x.Copy("grpc-status"), x.CopyBytes(appendInt(nil, int64(r.grpc))))
	}
	x.Details = r.details
}

// briefly ends the context when nothing that the guest wants follows, if it has
// allowed that: so its VM is free while the upstream thinks, or while a long
// body is relayed. later are the phases that may follow for certain, body the one
// that follows unless this was the end.
func (f *filter) briefly(verdict policy.Verdict, err error, later, body policy.Phases, end bool) {
	if !end {
		later |= body
	}
	if f.policy.brief && f.vm != nil && err == nil && verdict != policy.Hold && !f.busy && f.policy.phases&later == 0 {
		f.finish()
	}
}

// finish tells the guest that the exchange is over, and gives the VM back. What
// goes wrong here no longer concerns the exchange.
func (f *filter) finish() {
	if f.vm == nil {
		return
	}
	if f.live {
		if err := f.enter(stageEnd); err == nil {
			f.forget()
			err = f.last(cbDone, cbLog, cbDelete)
			if err = f.leave(err); err != nil {
				f.policy.log.warn("policy failed at the end of an exchange", "error", err)
			}
		}
	}
	f.live = false
	f.drop()
}

// last makes the last callbacks. A guest that says it is not done yet is done:
// there is nothing that it could wait for.
func (f *filter) last(cbs ...int) error {
	for _, cb := range cbs {
		f.vm.stack[0] = uint64(f.id)
		if err := f.vm.run(cb, 1); err != nil {
			return err
		}
	}
	return nil
}

// Close implements policy.Filter.
func (f *filter) Close(*exchange.Exchange) {
	f.finish()
	if f.dirty {
		f.body.reset()
		f.saved.reset()
		f.reply = reply{}
	}
	f.resume, f.abort, f.replied, f.dirty = false, false, false, false
	f.busy, f.holding, f.cut, f.lost = false, false, false, nil
	if f.probe {
		f.policy.probed(f.failed, f.fuel > 0)
	}
	f.fell = f.failed
	f.probe, f.served, f.refused, f.failed = false, false, false, false
	burned := f.fuel
	f.x, f.fuel, f.spent, f.burned = nil, 0, 0, burned
	f.policy.pool.leave(f.tally, burned)
}

// Burned is the fuel that the exchange burned which was closed last.
func (f *filter) Burned() uint64 { return f.burned }

// Failed tells whether the guest failed in the exchange that was closed last, be it at
// its very end.
func (f *filter) Failed() bool { return f.fell }

// remove takes a filter off the VM's list.
func (v *vm) remove(f *filter) {
	for i := range v.filters {
		if v.filters[i] == f {
			end := len(v.filters) - 1
			v.filters[i] = v.filters[end]
			v.filters[end] = nil
			v.filters = v.filters[:end]
			return
		}
	}
}

// spend accounts for bytes that the guest makes the exchange keep.
func (f *filter) spend(n int) bool {
	if f.spent+n > maxExchangeBytes {
		return false
	}
	f.spent += n
	return true
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
