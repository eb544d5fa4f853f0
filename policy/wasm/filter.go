package wasm

import (
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
	"github.com/weirmesh/weir/proxy/exchange"
)

func isOpen(spec policy.Spec) bool { return spec.FailureMode == weirv1.PolicySpec_OPEN }

// filter is one exchange's context in a VM. It is used again for other exchanges
// once it is closed.
//
//	begin: context_create ─▶ request, response callbacks ─▶ finish: done, log, delete
type filter struct {
	policy *Policy
	vm     *vm
	x      *exchange.Exchange
	id     uint32
	live   bool // the guest has a context for it
	fuel   uint64

	body   body
	saved  head
	reply  reply
	resume bool // continue_stream was called in this callback
	abort  bool // close_stream was called
	spent  int  // bytes that the guest has put into the exchange
}

// reply is an answer that the guest has sent. It is made the response when the
// callback has returned, so that a trap leaves nothing half done.
type reply struct {
	sent    bool
	status  int
	body    []byte
	fields  abi.Pairs
	details string
	grpc    int32 // status for gRPC clients, -1: none
	chunk   exchange.Chunk
}

// begin takes a VM and makes the context in it.
func (f *filter) begin(v *vm, x *exchange.Exchange) error {
	f.vm, f.x = v, x
	if err := f.enter(stageRequestHead); err != nil {
		return err
	}
	f.id = v.newID()
	v.filters = append(v.filters, f)
	f.live = true
	v.stack[0], v.stack[1] = uint64(f.id), rootID
	return f.leave(v.run(cbContextCreate, 1))
}

// enter takes the VM for one callback; leave gives it back.
func (f *filter) enter(s stage) error {
	v := f.vm
	v.mu.Lock()
	if v.dead {
		v.mu.Unlock()
		return errLost
	}
	v.stage, v.current, v.effective = s, f, f
	return nil
}

// leave ends a callback. After an error the VM's memory is in no known state:
// nobody uses it again.
func (f *filter) leave(err error) error {
	v := f.vm
	v.stage, v.current, v.effective = stageIdle, nil, nil
	f.fuel += v.burned
	v.burned = 0
	if cap(v.scratch) > keptScratch {
		v.scratch = nil
	}
	if err != nil {
		f.live = false
		v.close()
	}
	v.mu.Unlock()
	if err != nil {
		f.policy.pool.retire(v)
		f.policy.failed(err)
	}
	return err
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
	if err != nil {
		f.restore(s)
	}
	return f.conclude(action, f.leave(err))
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
	follow := end && trailers > 0 && v.functions[cbTrailers] != nil
	f.body.show(*chunk)
	var err error
	action := abi.Continue
	if v.functions[cb] != nil {
		v.stack[0], v.stack[1], v.stack[2] = uint64(f.id), uint64(len(*chunk)), flag(end && !follow)
		err = v.run(cb, 1)
		action = abi.Action(v.stack[0])
	}
	if err == nil && follow && !f.reply.sent {
		v.stack[0], v.stack[1] = uint64(f.id), uint64(trailers)
		err = v.run(cbTrailers, 1)
		action = abi.Action(v.stack[0])
	}
	if err == nil {
		*chunk = f.body.taken()
	} else {
		f.restore(s)
	}
	return f.conclude(action, f.leave(err))
}

// conclude makes a verdict of what the guest did and returned.
func (f *filter) conclude(action abi.Action, err error) (policy.Verdict, error) {
	resume, abort := f.resume, f.abort
	f.resume, f.abort, f.saved.of = false, false, stageIdle
	switch {
	case err != nil:
		f.reply.sent = false
		return policy.Continue, err
	case f.reply.sent:
		f.answer()
		return policy.Respond, nil
	case abort:
		f.x.Answer(502, nil)
		f.x.Details = "policy_closed_stream"
		return policy.Respond, nil
	case action == abi.Continue || resume:
		return policy.Continue, nil
	}
	return policy.Hold, nil
}

// answer makes the guest's reply the response.
func (f *filter) answer() {
	x, r := f.x, &f.reply
	r.sent = false
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
	if r.grpc >= 0 && isGRPC(x) {
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
	if f.policy.brief && err == nil && verdict != policy.Hold && f.policy.phases&later == 0 {
		f.finish()
	}
}

// finish tells the guest that the exchange is over, and gives the VM back. What
// goes wrong here no longer concerns the exchange.
func (f *filter) finish() {
	v := f.vm
	if v == nil {
		return
	}
	if f.live {
		if err := f.enter(stageEnd); err == nil {
			v.remove(f)
			err = f.last(cbDone, cbLog, cbDelete)
			if err = f.leave(err); err != nil {
				f.policy.log.warn("policy failed at the end of an exchange", "error", err)
			}
		}
	}
	f.live, f.vm = false, nil
	f.policy.spent(f.fuel)
	f.policy.pool.put(v)
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
	f.body.reset()
	f.saved.reset()
	f.reply = reply{}
	f.x, f.fuel, f.spent = nil, 0, 0
	f.policy.filters.Put(f)
}

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

// head is a head as it was before a callback changed it, for policies whose
// failure must leave no trace.
type head struct {
	of                              stage
	method, scheme, authority, path []byte
	status                          int
	changed                         bool // Exchange.RouteChanged
	fields                          exchange.Fields
}

func (h *head) reset() {
	fields := h.fields
	fields.Reset()
	*h = head{fields: fields}
}

// save notes the head before the first change of a callback.
func (f *filter) save() {
	h, x, s := &f.saved, f.x, f.vm.stage
	if !f.policy.open || h.of == s {
		return
	}
	h.reset()
	h.of = s
	from := &x.Request.Fields
	if s >= stageResponseHead {
		from, h.status = &x.Response.Fields, x.Response.Status
	}
	h.method, h.scheme, h.authority, h.path = x.Request.Method, x.Request.Scheme, x.Request.Authority, x.Request.Path
	h.changed = x.RouteChanged
	copyFields(&h.fields, from)
}

// restore undoes what a callback that failed did to a head.
func (f *filter) restore(s stage) {
	h, x := &f.saved, f.x
	if h.of != s || s == stageIdle {
		return
	}
	if s >= stageResponseHead {
		x.Response.Status = h.status
		copyFields(&x.Response.Fields, &h.fields)
		return
	}
	x.Request.Method, x.Request.Scheme, x.Request.Authority, x.Request.Path = h.method, h.scheme, h.authority, h.path
	x.RouteChanged = h.changed
	copyFields(&x.Request.Fields, &h.fields)
}

func copyFields(to, from *exchange.Fields) {
	to.Reset()
	for i := range from.Len() {
		field := from.At(i)
		to.AddParsed(field.Name, field.Value)
	}
}
