package waf

import (
	"sync"

	"github.com/weirmesh/weir/policy"
)

// Policy is a ruleset under a name.
type Policy struct {
	host    *Host
	spec    policy.Spec
	set     *ruleset
	meter   *meter
	phases  policy.Phases
	release func()
}

func newPolicy(h *Host, spec policy.Spec, set *ruleset) *Policy {
	p := &Policy{host: h, spec: spec, set: set}
	p.meter = h.meters.acquire(spec.Tenant + "/" + spec.Name)
	p.phases = policy.RequestHead | policy.RequestBody
	if set.response {
		p.phases |= policy.ResponseHead | policy.ResponseBody
	}
	p.release = sync.OnceFunc(func() {
		h.meters.release(p.meter)
		h.release(spec.Config)
	})
	return p
}

// Spec implements policy.Policy.
func (p *Policy) Spec() policy.Spec { return p.spec }

// Phases implements policy.Policy.
func (p *Policy) Phases() policy.Phases { return p.phases }

// NewFilter implements policy.Policy.
func (p *Policy) NewFilter() policy.Filter { return newFilter(p) }

// Release implements policy.Policy. Exchanges in flight hold what they need.
func (p *Policy) Release() { p.release() }
