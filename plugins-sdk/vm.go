package sdk

import (
	"errors"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// VM is one sandbox's side of the ABI: it takes the host's callbacks to the
// handlers. Plugins have no use for it; it is exported for package policytest.
//
// A host speaks of contexts by numbers: a root context is a policy (a handler
// with its configuration), a stream context below it one exchange.
type VM struct {
	plugin    Plugin
	policies  map[uint32]*policy
	exchanges map[uint32]*Exchange
	// last is the exchange spoken of last, which is nearly always the one
	// spoken of next.
	last *Exchange
	// free are exchanges to use again.
	free []*Exchange
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
	return &VM{plugin: p, policies: map[uint32]*policy{}, exchanges: map[uint32]*Exchange{}}
}

// OnContextCreate begins a policy (root is 0) or an exchange of the policy root.
func (vm *VM) OnContextCreate(id, root uint32) {
	if root == 0 {
		vm.policies[id] = &policy{}
		return
	}
	p := vm.policies[root]
	if p == nil {
		p = &policy{}
	}
	x := vm.newExchange()
	x.id, x.policy = id, p
	vm.exchanges[id] = x
	vm.last = x
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
	vm.policies[root] = p
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
	x := vm.exchange(id)
	if x == nil || x.answered || x.policy.onRequest == nil {
		return Continue
	}
	x.request.End, x.request.Body.size = end, 0
	return x.policy.onRequest.OnRequest(&x.request)
}

func (vm *VM) OnRequestBody(id uint32, size int, end bool) Action {
	x := vm.exchange(id)
	if x == nil || x.answered || x.policy.onRequestBody == nil {
		return Continue
	}
	x.request.End, x.request.Body.size = end, size
	return x.policy.onRequestBody.OnRequestBody(&x.request)
}

func (vm *VM) OnResponseHeaders(id uint32, end bool) Action {
	x := vm.exchange(id)
	if x == nil || x.answered || x.policy.onResponse == nil {
		return Continue
	}
	x.response.End, x.response.Body.size = end, 0
	return x.policy.onResponse.OnResponse(&x.response)
}

func (vm *VM) OnResponseBody(id uint32, size int, end bool) Action {
	x := vm.exchange(id)
	if x == nil || x.answered || x.policy.onResponseBody == nil {
		return Continue
	}
	x.response.End, x.response.Body.size = end, size
	return x.policy.onResponseBody.OnResponseBody(&x.response)
}

// OnLog is the last that a handler hears of an exchange.
func (vm *VM) OnLog(id uint32) {
	if x := vm.exchange(id); x != nil && x.policy.onDone != nil {
		x.policy.onDone.OnDone(x)
	}
}

// OnDelete ends a policy or an exchange.
func (vm *VM) OnDelete(id uint32) {
	x := vm.exchange(id)
	if x == nil {
		delete(vm.policies, id)
		return
	}
	delete(vm.exchanges, id)
	vm.last = nil
	x.State, x.policy, x.answered = nil, nil, false
	vm.free = append(vm.free, x)
}

// OnTick is a policy's clock.
func (vm *VM) OnTick(root uint32) {
	if p := vm.policies[root]; p != nil && p.onTick != nil {
		p.onTick.OnTick()
	}
}

func (vm *VM) exchange(id uint32) *Exchange {
	if vm.last != nil && vm.last.id == id {
		return vm.last
	}
	x := vm.exchanges[id]
	if x != nil {
		vm.last = x
	}
	return x
}
