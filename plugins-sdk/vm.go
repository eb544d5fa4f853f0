package sdk

import (
	"errors"
	"slices"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// VM is one sandbox's side of the ABI: it takes the host's callbacks to the
// handlers. Plugins have no use for it; it is exported for package policytest.
//
// A host speaks of contexts by numbers: a root context is a policy (a handler
// with its configuration), a stream context below it one exchange.
//
// To a host that knows light exchanges (ABI.md) a sandbox says after each method
// whether it keeps something of the exchange, which is to say whether its State is
// nil. As long as it keeps nothing there is no context: the exchange is [VM.spare],
// under another number each time.
type VM struct {
	plugin   Plugin
	policies []rootContext
	live     exchanges
	// free are exchanges to use again.
	free []*Exchange
	// spare is an exchange that is not live, of the policy whose exchanges may be
	// light; nil where there is none.
	spare *Exchange
	// only is the spare one as long as no other is live.
	only *Exchange
	// waiting is calls, by their tokens; nil where there was none.
	waiting map[uint32]waiting
	// streams are those that are open, by their tokens.
	streams map[uint32]*GRPCStream
}

// rootContext is a policy under its number. There are few of them.
type rootContext struct {
	id     uint32
	policy *policy
}

// policy is a handler, taken apart once so that a call needs no type switch.
type policy struct {
	onRequest          RequestHandler
	onRequestBody      RequestBodyHandler
	onResponse         ResponseHandler
	onResponseBody     ResponseBodyHandler
	onRequestTrailers  RequestTrailersHandler
	onResponseTrailers ResponseTrailersHandler
	onDone             DoneHandler
	onTick             TickHandler
	onQueue            QueueHandler
	scratch            []byte
	vm                 *VM
	id                 uint32 // of the root context
}

// NewVM returns a sandbox for the plugin.
func NewVM(p Plugin) *VM {
	return &VM{plugin: p}
}

// OnContextCreate begins a policy (root is 0) or an exchange of the policy root.
func (vm *VM) OnContextCreate(id, root uint32) {
	if root == 0 {
		vm.setPolicy(id, &policy{id: id})
		return
	}
	x := vm.newExchange()
	x.id, x.policy = id, vm.policy(root)
	vm.add(x)
}

func (vm *VM) add(x *Exchange) {
	vm.live.add(x)
	vm.only = nil
}

// policy returns one that sees nothing where there is none of that number.
func (vm *VM) policy(id uint32) *policy {
	for i := range vm.policies {
		if vm.policies[i].id == id {
			return vm.policies[i].policy
		}
	}
	return &policy{}
}

func (vm *VM) setPolicy(id uint32, p *policy) {
	for i := range vm.policies {
		if vm.policies[i].id == id {
			vm.policies[i].policy = p
			return
		}
	}
	vm.policies = append(vm.policies, rootContext{id, p})
}

func (vm *VM) newExchange() *Exchange {
	if n := len(vm.free); n > 0 {
		x := vm.free[n-1]
		vm.free = vm.free[:n-1]
		return x
	}
	x := new(Exchange)
	x.request = Request{Exchange: x, Header: Header{abi.RequestHeaders}, Body: Body{buffer: abi.RequestBody}, Trailers: Header{abi.RequestTrailers}}
	x.response = Response{Exchange: x, Header: Header{abi.ResponseHeaders}, Body: Body{buffer: abi.ResponseBody}, Trailers: Header{abi.ResponseTrailers}}
	return x
}

// OnConfigure makes the policy's handler; false refuses the configuration.
func (vm *VM) OnConfigure(root uint32, size int) bool {
	var config []byte
	if size > 0 {
		var s abi.Status
		if config, s = abi.GetBuffer(abi.PluginConfiguration, 0, uint32(size)); s != abi.OK {
			Errorf("get configuration: %v", s)
			return false
		}
	}
	p, err := newPolicy(vm.plugin, config)
	if err != nil {
		Log(LevelError, err.Error())
		return false
	}
	p.vm, p.id = vm, root
	vm.setPolicy(root, p)
	vm.spare, vm.only = nil, nil
	if p.announce() && len(vm.policies) == 1 {
		vm.renew(p)
	}
	return true
}

// renew makes another exchange the spare one.
func (vm *VM) renew(p *policy) {
	vm.spare = vm.newExchange()
	vm.spare.policy, vm.spare.spare = p, true
	if vm.live.count == 0 {
		vm.only = vm.spare
	}
}

func newPolicy(plugin Plugin, config []byte) (*policy, error) {
	if plugin.make == nil {
		return nil, errors.New("the plugin has registered nothing: call sdk.Register from init")
	}
	handler, err := plugin.make(config)
	if err != nil {
		return nil, err
	}
	p := &policy{}
	p.onRequest, _ = handler.(RequestHandler)
	p.onRequestBody, _ = handler.(RequestBodyHandler)
	p.onResponse, _ = handler.(ResponseHandler)
	p.onResponseBody, _ = handler.(ResponseBodyHandler)
	p.onRequestTrailers, _ = handler.(RequestTrailersHandler)
	p.onResponseTrailers, _ = handler.(ResponseTrailersHandler)
	p.onDone, _ = handler.(DoneHandler)
	p.onTick, _ = handler.(TickHandler)
	p.onQueue, _ = handler.(QueueHandler)
	if p.phases() == 0 && p.trailers() == 0 && p.onDone == nil && p.onTick == nil && p.onQueue == nil {
		return nil, errors.New("the handler has none of the methods that are called: OnRequest, OnResponse, …")
	}
	return p, nil
}

// announce tells a Weir host which callbacks there is a method for, so that it
// need not make the rest: a body that nobody looks at is not even copied. To
// other hosts the function is unknown, which does no harm. It reports whether the
// host knows light exchanges; a handler that is told of an exchange's end has none.
func (p *policy) announce() (light bool) {
	set := p.phases() | abi.PhaseIndulgent
	if p.onDone == nil {
		set |= abi.PhaseBrief | abi.PhaseLight
	}
	announced := []byte{set}
	if trailers := p.trailers(); trailers != 0 {
		announced = append(announced, trailers)
	}
	known, s := abi.Foreign("weir.phases", announced)
	return s == abi.OK && len(known) == 1 && known[0]&abi.PhaseLight != 0
}

// phases is the set of callbacks with a method, as ABI.md numbers them.
func (p *policy) phases() (set byte) {
	for i, wanted := range [...]bool{p.onRequest != nil, p.onRequestBody != nil, p.onResponse != nil, p.onResponseBody != nil} {
		if wanted {
			set |= 1 << i
		}
	}
	return set
}

// OnRequestHeaders and its three siblings bring an exchange to its handler.
func (vm *VM) OnRequestHeaders(id uint32, end bool) Action {
	x := vm.enter(id)
	if x == nil || x.answered || x.policy.onRequest == nil {
		return vm.unseen(x)
	}
	x.request.End, x.request.Body.size = end, 0
	return vm.leave(x, x.policy.onRequest.OnRequest(&x.request), requestHead)
}

func (vm *VM) OnRequestBody(id uint32, size int, end bool) Action {
	x := vm.enter(id)
	if x == nil || x.answered || x.policy.onRequestBody == nil {
		return vm.unseen(x)
	}
	x.request.End, x.request.Body.size = end, size
	action := inBody(x.policy.onRequestBody.OnRequestBody(&x.request))
	x.request.Body.held = action == Hold
	return vm.leave(x, action, requestBody)
}

func (vm *VM) OnResponseHeaders(id uint32, end bool) Action {
	x := vm.enter(id)
	if x == nil || x.answered || x.policy.onResponse == nil {
		return vm.unseen(x)
	}
	x.response.End, x.response.Body.size = end, 0
	return vm.leave(x, x.policy.onResponse.OnResponse(&x.response), responseHead)
}

func (vm *VM) OnResponseBody(id uint32, size int, end bool) Action {
	x := vm.enter(id)
	if x == nil || x.answered || x.policy.onResponseBody == nil {
		return vm.unseen(x)
	}
	x.response.End, x.response.Body.size = end, size
	action := inBody(x.policy.onResponseBody.OnResponseBody(&x.response))
	x.response.Body.held = action == Hold
	return vm.leave(x, action, responseBody)
}

// inBody: in a body's callback there is one kind of pause.
func inBody(action Action) Action {
	if action == wait {
		return Hold
	}
	return action
}

// enter returns the exchange of that number, nil where there is none. It and leave
// are small enough to be inlined: in a sandbox a call is dear.
func (vm *VM) enter(id uint32) *Exchange {
	if x := vm.only; x != nil {
		x.id = id
		return x
	}
	return vm.find(id)
}

// find is enter where some exchanges are live: one that is not is the spare one,
// if there is that.
//
//go:noinline
func (vm *VM) find(id uint32) *Exchange {
	x := vm.live.get(id)
	if x == nil && vm.spare != nil {
		x = vm.spare
		x.id = id
	}
	return x
}

// unseen is the action where there is no method to call.
func (vm *VM) unseen(x *Exchange) Action {
	if x == nil {
		return Continue
	}
	return vm.keep(x, Continue, requestHead)
}

// leave ends a callback: most exchanges remain light.
func (vm *VM) leave(x *Exchange, action Action, in phase) Action {
	if action&Action(abi.ActionPauses) == 0 && x.State == nil && x.spare {
		return action | light
	}
	return vm.keep(x, action, in)
}

// light stands beside the action of an exchange of which nothing is kept.
const light = Action(abi.ActionLight)

// keep is leave where there may be something to keep.
func (vm *VM) keep(x *Exchange, action Action, in phase) Action {
	if vm.spare == nil {
		return action
	}
	over := x.answered || action&Action(abi.ActionPauses) == 0 && x.open == 0 && (x.State == nil || x.last(in))
	switch {
	case !over && x == vm.spare:
		x.spare = false
		vm.renew(x.policy)
		vm.add(x)
	case over && x == vm.spare:
		vm.hangUp(x)
		x.State, x.answered, x.spare = nil, false, true
	case over:
		vm.OnDelete(x.id)
	}
	if over {
		return action | light
	}
	return action
}

// phase is where an exchange is.
type phase uint8

const (
	requestHead phase = iota
	requestBody
	responseHead
	responseBody
)

// last reports whether no method follows on the phase.
func (x *Exchange) last(in phase) bool {
	p := x.policy
	switch in {
	case requestHead:
		return p.unanswered() && (x.request.End || p.onRequestBody == nil && p.onRequestTrailers == nil)
	case requestBody:
		return p.unanswered() && x.request.End
	case responseHead:
		return x.response.End || p.onResponseBody == nil && p.onResponseTrailers == nil
	}
	return x.response.End
}

// unanswered: the handler has no method for the response.
func (p *policy) unanswered() bool {
	return p.onResponse == nil && p.onResponseBody == nil && p.onResponseTrailers == nil
}

// OnLog is the last that a handler hears of an exchange.
func (vm *VM) OnLog(id uint32) {
	if x := vm.live.get(id); x != nil && x.policy.onDone != nil {
		x.policy.onDone.OnDone(x)
	}
}

// OnDelete ends a policy or an exchange.
func (vm *VM) OnDelete(id uint32) {
	x := vm.live.remove(id)
	if x == nil {
		vm.policies = slices.DeleteFunc(vm.policies, func(r rootContext) bool { return r.id == id })
		return
	}
	vm.hangUp(x)
	x.State, x.policy, x.answered, x.due = nil, nil, false, false
	x.request.Body, x.response.Body = Body{buffer: abi.RequestBody}, Body{buffer: abi.ResponseBody}
	vm.free = append(vm.free, x)
	if vm.live.count == 0 {
		vm.only = vm.spare
	}
}

// OnTick is a policy's clock.
func (vm *VM) OnTick(root uint32) {
	if p := vm.policy(root); p.onTick != nil {
		p.onTick.OnTick()
	}
}

// exchanges finds exchanges by their numbers. Hosts count up, so the number
// itself spreads them well over the lists. A map would cost a sandbox more than
// all the rest of a callback.
type exchanges struct {
	lists [64]*Exchange
	// last is the exchange spoken of last, which is nearly always the one
	// spoken of next.
	last  *Exchange
	count int
}

func (e *exchanges) list(id uint32) **Exchange { return &e.lists[id%uint32(len(e.lists))] }

func (e *exchanges) add(x *Exchange) {
	list := e.list(x.id)
	x.next, *list = *list, x
	e.last = x
	e.count++
}

// get returns nil where there is none.
func (e *exchanges) get(id uint32) *Exchange {
	if e.last != nil && e.last.id == id {
		return e.last
	}
	for x := *e.list(id); x != nil; x = x.next {
		if x.id == id {
			e.last = x
			return x
		}
	}
	return nil
}

func (e *exchanges) remove(id uint32) *Exchange {
	e.last = nil
	for at := e.list(id); *at != nil; at = &(*at).next {
		if x := *at; x.id == id {
			*at, x.next = x.next, nil
			e.count--
			return x
		}
	}
	return nil
}
