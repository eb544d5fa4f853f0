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
type VM struct {
	plugin   Plugin
	policies []rootContext
	live     exchanges
	// free are exchanges to use again.
	free []*Exchange
}

// rootContext is a policy under its number. There are few of them.
type rootContext struct {
	id     uint32
	policy *policy
}

// policy is a handler, taken apart once so that a call needs no type switch.
type policy struct {
	onRequest      RequestHandler
	onRequestBody  RequestBodyHandler
	onResponse     ResponseHandler
	onResponseBody ResponseBodyHandler
	onDone         DoneHandler
	onTick         TickHandler
	scratch        []byte
}

// NewVM returns a sandbox for the plugin.
func NewVM(p Plugin) *VM {
	return &VM{plugin: p}
}

// OnContextCreate begins a policy (root is 0) or an exchange of the policy root.
func (vm *VM) OnContextCreate(id, root uint32) {
	if root == 0 {
		vm.setPolicy(id, &policy{})
		return
	}
	x := vm.newExchange()
	x.id, x.policy = id, vm.policy(root)
	vm.live.add(x)
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
	x.request = Request{Exchange: x, Header: Header{abi.RequestHeaders}, Body: Body{buffer: abi.RequestBody}}
	x.response = Response{Exchange: x, Header: Header{abi.ResponseHeaders}, Body: Body{buffer: abi.ResponseBody}}
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
	vm.setPolicy(root, p)
	p.announce()
	return true
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
	p.onDone, _ = handler.(DoneHandler)
	p.onTick, _ = handler.(TickHandler)
	if p.phases() == 0 && p.onDone == nil && p.onTick == nil {
		return nil, errors.New("the handler has none of the methods that are called: OnRequest, OnResponse, …")
	}
	return p, nil
}

// announce tells a Weir host which callbacks there is a method for, so that it
// need not make the rest: a body that nobody looks at is not even copied. To
// other hosts the function is unknown, which does no harm.
func (p *policy) announce() {
	set := p.phases()
	if p.onDone == nil {
		set |= brief
	}
	abi.Foreign("weir.phases", []byte{set})
}

// brief says that an exchange may be forgotten when its last phase is over.
const brief = 16

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
	x := vm.live.get(id)
	if x == nil || x.answered || x.policy.onRequest == nil {
		return Continue
	}
	x.request.End, x.request.Body.size = end, 0
	return x.policy.onRequest.OnRequest(&x.request)
}

func (vm *VM) OnRequestBody(id uint32, size int, end bool) Action {
	x := vm.live.get(id)
	if x == nil || x.answered || x.policy.onRequestBody == nil {
		return Continue
	}
	x.request.End, x.request.Body.size = end, size
	return x.policy.onRequestBody.OnRequestBody(&x.request)
}

func (vm *VM) OnResponseHeaders(id uint32, end bool) Action {
	x := vm.live.get(id)
	if x == nil || x.answered || x.policy.onResponse == nil {
		return Continue
	}
	x.response.End, x.response.Body.size = end, 0
	return x.policy.onResponse.OnResponse(&x.response)
}

func (vm *VM) OnResponseBody(id uint32, size int, end bool) Action {
	x := vm.live.get(id)
	if x == nil || x.answered || x.policy.onResponseBody == nil {
		return Continue
	}
	x.response.End, x.response.Body.size = end, size
	return x.policy.onResponseBody.OnResponseBody(&x.response)
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
	x.State, x.policy, x.answered = nil, nil, false
	vm.free = append(vm.free, x)
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
	last *Exchange
}

func (e *exchanges) list(id uint32) **Exchange { return &e.lists[id%uint32(len(e.lists))] }

func (e *exchanges) add(x *Exchange) {
	list := e.list(x.id)
	x.next, *list = *list, x
	e.last = x
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
			return x
		}
	}
	return nil
}
