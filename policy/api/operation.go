package api

import (
	"fmt"

	"github.com/weirmesh/weir/contract"
	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// operation is the policy that says what is called. It decides nothing.
type operation struct {
	host     *Host
	spec     policy.Spec
	api      string             // "tenant/name"
	contract *contract.Contract // nil: there is none
	keyed    bool               // it asks for a key
}

func (h *Host) newOperation(spec policy.Spec, declared *weirv1.ApiSpec) (*operation, error) {
	o := &operation{host: h, spec: spec, api: spec.Tenant + "/" + spec.Name, keyed: declared.GetAuthentication() != nil}
	if spec.Document == "" {
		return o, nil
	}
	var err error
	if o.contract, err = h.acquire(spec.Document); err != nil {
		return nil, fmt.Errorf("compile the contract of Api %s: %w", spec.Name, err)
	}
	return o, nil
}

func (o *operation) Spec() policy.Spec        { return o.spec }
func (o *operation) Phases() policy.Phases    { return policy.RequestHead }
func (o *operation) NewFilter() policy.Filter { return operationFilter{operation: o} }

func (o *operation) Release() {
	if o.contract != nil {
		o.host.release(o.spec.Document)
	}
}

type operationFilter struct {
	*operation
	policy.NoBodies
}

// OnRequest implements policy.Filter. Of several Apis on one Route the first one that has
// the operation is what is called; none: the first.
func (f operationFilter) OnRequest(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	if x.Operation != "" {
		return policy.Continue, nil
	}
	if x.Api == "" {
		x.Api, x.Keyed = f.api, f.keyed
	}
	if f.contract == nil {
		return policy.Continue, nil
	}
	if o := f.contract.Operation(x.Request.Method, x.Request.Path); o != nil {
		x.Api, x.Keyed, x.Operation = f.api, f.keyed, o.Name
	}
	return policy.Continue, nil
}

// OnResponse implements policy.Filter.
func (operationFilter) OnResponse(*exchange.Exchange, bool) (policy.Verdict, error) {
	return policy.Continue, nil
}
