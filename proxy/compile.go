package proxy

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/weirmesh/weir/mesh"
	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/balancer"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/router"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/telemetry"
)

// rule is one rule of a route, compiled: all that serving a request needs,
// found once. What every request reads comes first and lies together: with ten
// thousand rules each cache line that a request touches is one that it misses.
type rule struct {
	metrics     *telemetry.Series
	sole        *backend // where there is no choice; else split chooses of backends
	route, name string
	chains      chains
	// ofBackends are those for each backend, where backends have policies of their own
	// and there is a choice; nil: chains, whichever is chosen.
	ofBackends []chains

	timeout        time.Duration // 0: none
	attemptTimeout time.Duration
	filters        *filters // nil: none
	retry          *retryRule
	hedging        *hedging // nil: none
	split          *balancer.Split
	backends       []*backend
	connections    *telemetry.Connections // those that carry no HTTP; nil: it is for none
	idle           time.Duration          // of those

	since uint64   // the first generation that it is part of
	held  []func() // what release gives back
}

type listenerID struct {
	gateway resource.Ref
	name    string
}

// chains are the policies that run on the requests of a rule: plain where the listener
// has none of its own, on where it has.
type chains struct {
	plain *policy.Chain
	on    map[listenerID]*policy.Chain
}

// at is the policies that run on a request that came in by a listener.
func (c *chains) at(l *router.Listener) *policy.Chain {
	if c.on != nil {
		if chain, ok := c.on[listenerID{l.Gateway, l.Name}]; ok {
			return chain
		}
	}
	return c.plain
}

// release gives back the pools and policies that the rule holds.
func (r *rule) release() {
	for _, give := range r.held {
		give()
	}
	r.held = nil
}

// compile makes the next generation out of the current one and what changed.
// The caller holds p.mu.
func (p *Proxy) compile(ctx context.Context, revision uint64) (swapped, error) {
	current := p.current.Load()
	table, seq := current.table, current.seq+1
	gateways, routes, gone := p.desired.dirty()
	change := router.Change{Removed: gone}
	for _, ref := range gateways {
		change.Gateways = append(change.Gateways, p.desired.resources[ref].GetGateway())
	}
	for _, ref := range routes {
		change.Routes = append(change.Routes, p.desired.resources[ref].GetRoute())
	}
	var made []*rule
	next, err := table.With(change, func(route *weirv1.Route, index int) (*rule, error) {
		r, err := p.compileRule(ctx, route, index)
		if err == nil {
			r.since = seq
			made = append(made, r)
		}
		return r, err
	})
	if err != nil {
		for _, r := range made {
			r.release()
		}
		return swapped{}, err
	}
	s := swapped{next: p.newGeneration(next, revision, seq)}
	s.next.sockets, s.next.doors, s.next.challenges, s.next.clash = current.sockets, current.doors, current.challenges, current.clash
	if p.desired.securityChanged() {
		s.next.doors = p.compileDoors(next)
		if err = p.compileSecurity(&s, next); err != nil {
			for _, r := range made {
				r.release()
			}
			return swapped{}, err
		}
	}
	for _, ref := range append(routes, gone...) {
		for _, old := range table.Rules(ref) {
			s.drops = append(s.drops, drop{old.Value.since, old.Value.release})
		}
	}
	return s, nil
}

// compileRule compiles one rule. On an error it holds nothing.
func (p *Proxy) compileRule(ctx context.Context, route *weirv1.Route, index int) (_ *rule, err error) {
	ref := resource.Of(resource.Wrap(route))
	spec := route.GetSpec().GetRules()[index]
	r := &rule{
		route:          ref.Tenant + "/" + ref.Name,
		name:           spec.GetName(),
		timeout:        spec.GetTimeouts().GetRequest().AsDuration(),
		attemptTimeout: spec.GetTimeouts().GetBackendRequest().AsDuration(),
		retry:          compileRetry(spec.GetRetry()),
		hedging:        compileHedging(spec.GetHedging()),
	}
	if r.name == "" {
		r.name = strconv.Itoa(index)
	}
	defer func() {
		if err != nil {
			r.release()
			err = fmt.Errorf("%s, rule %s: %w", ref, r.name, err)
		}
	}()
	r.metrics = p.cfg.Metrics.Route(r.route)
	r.held = append(r.held, func() { p.cfg.Metrics.ForgetRoute(r.route) })
	p.compileStream(r, ref, route, spec)
	if r.filters, err = p.compileFilters(r, ref.Tenant, spec.GetFilters()); err != nil {
		return nil, err
	}
	if err = p.compileBackends(r, ref.Tenant, spec.GetBackendRefs()); err != nil {
		return nil, err
	}
	if err = p.compileChains(ctx, r, ref, route, index); err != nil {
		return nil, err
	}
	return r, nil
}

// compileChains makes the chains of a rule: of the policies of its tenant, its Route and
// its Service, and for each listener of its Gateways that adds some. Where the rule's
// requests are shared among several services there are chains for each, if any of them
// has policies.
func (p *Proxy) compileChains(ctx context.Context, r *rule, ref resource.Ref, route *weirv1.Route, index int) (err error) {
	backends := route.GetSpec().GetRules()[index].GetBackendRefs()
	ofServices, some := make([]callee, len(backends)), false
	var sole callee
	for i, b := range backends {
		service := resource.Ref{Kind: resource.KindService, Tenant: ref.Tenant, Name: b.GetName()}
		ofServices[i] = callee{p.desired.policiesOn(service, b.GetSubset()), p.desired.withheld(service)}
		if b.Weight == nil || b.GetWeight() > 0 {
			sole, some = ofServices[i], some || len(ofServices[i].policies) > 0 || ofServices[i].withheld != nil
		}
	}
	if !some || r.sole != nil {
		r.chains, err = p.chainsWith(ctx, r, ref, route, sole)
		return err
	}
	if r.chains, err = p.chainsWith(ctx, r, ref, route, callee{}); err != nil { // if none can be chosen
		return err
	}
	for _, of := range ofServices {
		c, err := p.chainsWith(ctx, r, ref, route, of)
		if err != nil {
			return err
		}
		r.ofBackends = append(r.ofBackends, c)
	}
	return nil
}

// callee is what a service adds to the chains of those who call it.
type callee struct {
	policies []resource.Attached
	withheld *weirv1.AccessRule // it may not be called; nil: it may
}

// chainsWith are the chains where a service has these policies.
func (p *Proxy) chainsWith(ctx context.Context, r *rule, ref resource.Ref, route *weirv1.Route, service callee) (c chains, err error) {
	if service.withheld != nil {
		m := chainMaker{proxy: p, rule: r}
		m.access(ctx, []*weirv1.AccessRule{service.withheld})
		c.plain, err = m.chain()
		return c, err
	}
	var tenant []resource.Attached
	if !mesh.Made(ref.Name) {
		tenant = p.desired.policiesOn(resource.Ref{Kind: resource.KindTenant, Tenant: ref.Tenant}, "")
	}
	own := p.desired.policiesOn(ref, r.name)
	apis := p.desired.apisOn(ref, r.name)
	if c.plain, err = p.makeChain(ctx, r, resource.Chain(tenant, own, service.policies), apis); err != nil {
		return c, err
	}
	for _, parent := range route.GetSpec().GetParentRefs() {
		gateway := resource.Ref{Kind: resource.KindGateway, Tenant: ref.Tenant, Name: parent.GetName()}
		for _, l := range p.desired.resources[gateway].GetGateway().GetSpec().GetListeners() {
			on := p.desired.policiesOn(gateway, l.GetName())
			if len(on) == 0 {
				continue
			}
			chain, err := p.makeChain(ctx, r, resource.Chain(tenant, on, own, service.policies), apis)
			if err != nil {
				return c, err
			}
			if c.on == nil {
				c.on = map[listenerID]*policy.Chain{}
			}
			c.on[listenerID{gateway, l.GetName()}] = chain
		}
	}
	return c, nil
}

// makeChain makes what the policies and Apis of a rule want done, in this order: where
// an Api is in its life, who calls it, who may, how often, as the contract says, what
// becomes of it. The policies come in the order of their stages.
func (p *Proxy) makeChain(ctx context.Context, r *rule, list []resource.Attached, apis []*weirv1.Api) (*policy.Chain, error) {
	rules := p.desired.accessRules(r.route)
	if len(list)+len(apis)+len(rules) == 0 {
		return nil, nil
	}
	m := chainMaker{proxy: p, rule: r}
	m.access(ctx, rules)
	for _, a := range apis {
		m.operation(ctx, a)
	}
	for _, a := range apis {
		m.lifecycle(ctx, a)
	}
	for _, a := range apis {
		m.keys(ctx, a)
	}
	policiesBefore := func(stage weirv1.PolicySpec_Stage) {
		for len(list) > 0 && resource.StageOf(list[0].Policy) < stage {
			m.policy(ctx, list[0].Policy)
			list = list[1:]
		}
	}
	policiesBefore(weirv1.PolicySpec_LIMIT)
	m.quota(ctx, apis)
	policiesBefore(weirv1.PolicySpec_TRANSFORM)
	for _, a := range apis {
		m.contract(ctx, a)
	}
	for _, a := range list {
		m.policy(ctx, a.Policy)
	}
	return m.chain()
}

// chainMaker gathers what a chain consists of, and the first error. The rule holds
// what was made.
type chainMaker struct {
	proxy *Proxy
	rule  *rule
	made  []policy.Policy
	err   error
}

// chain is what was made; nil: nothing.
func (m *chainMaker) chain() (*policy.Chain, error) {
	if m.err != nil || len(m.made) == 0 {
		return nil, m.err
	}
	return policy.NewChain(m.made, policy.ChainConfig{OnFailure: m.proxy.policyFailed}), nil
}

func (m *chainMaker) policy(ctx context.Context, spec *weirv1.Policy) {
	if m.err != nil {
		return
	}
	services, err := m.proxy.grant(resource.Of(resource.Wrap(spec)).Tenant, spec.GetSpec().GetServices())
	if err != nil {
		m.err = fmt.Errorf("policy %s: %w", spec.GetMetadata().GetName(), err)
		return
	}
	m.rule.held = append(m.rule.held, services.leave)
	made, err := m.proxy.makePolicy(ctx, spec, services)
	m.add(spec.GetMetadata().GetName(), made, err)
}

func (m *chainMaker) add(name string, made policy.Policy, err error) {
	if err != nil {
		m.err = fmt.Errorf("policy %s: %w", name, err)
		return
	}
	m.rule.held = append(m.rule.held, made.Release)
	m.made = append(m.made, made)
}

func (p *Proxy) policySpec(spec *weirv1.Policy) (policy.Spec, error) {
	ref := resource.Of(resource.Wrap(spec))
	if firewall := spec.GetSpec().GetWaf(); firewall != nil {
		return firewallSpec(ref, spec.GetSpec())
	}
	plugin := resource.Ref{Kind: resource.KindPlugin, Tenant: ref.Tenant, Name: spec.GetSpec().GetPlugin()}
	declared := p.desired.resources[plugin].GetPlugin()
	if declared == nil {
		return policy.Spec{}, fmt.Errorf("%s: %s is not there", ref, plugin)
	}
	s := policy.Spec{
		Tenant: ref.Tenant, Name: ref.Name, Plugin: plugin.Name,
		Digest:        declared.GetSpec().GetDigest(),
		FailureMode:   spec.GetSpec().GetFailureMode(),
		MemoryBytes:   declared.GetSpec().GetLimits().GetMemoryBytes(),
		Fuel:          declared.GetSpec().GetLimits().GetFuel(),
		StopIteration: declared.GetSpec().GetAllowOnHeadersStopIteration(),
	}
	if c := spec.GetSpec().GetConfig(); c != nil {
		text, err := c.MarshalJSON()
		if err != nil {
			return s, fmt.Errorf("%s: encode configuration: %w", ref, err)
		}
		s.Config = string(text)
	}
	return s, nil
}

// firewallSpec is that of a policy which is the web application firewall's use. Its
// configuration is the same bytes for the same settings.
func firewallSpec(ref resource.Ref, spec *weirv1.PolicySpec) (policy.Spec, error) {
	settings, err := policy.EncodeFirewall(spec.GetWaf())
	if err != nil {
		return policy.Spec{}, fmt.Errorf("%s: encode the firewall's settings: %w", ref, err)
	}
	return policy.Spec{Tenant: ref.Tenant, Name: ref.Name, Native: policy.Firewall, Config: settings, FailureMode: spec.GetFailureMode()}, nil
}

// policyFailed is told of every failure of a policy, whatever its mode.
func (p *Proxy) policyFailed(x *exchange.Exchange, err *policy.Error) {
	p.cfg.Metrics.PolicyFailed(err.Policy)
	p.cfg.Logger.Warn("policy failed", "policy", err.Policy, "phase", err.Phase, "request_id", string(x.ID), "error", err.Err)
}
