package proxy

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

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
	// chain runs where the listener has no policies of its own, chains where
	// it has.
	chain  *policy.Chain
	chains map[listenerID]*policy.Chain

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

// chainFor is the policies that run on a request that came in by a listener.
func (r *rule) chainFor(l *router.Listener) *policy.Chain {
	if r.chains != nil {
		if c, ok := r.chains[listenerID{l.Gateway, l.Name}]; ok {
			return c
		}
	}
	return r.chain
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
	if err = p.compileChains(ctx, r, ref, route); err != nil {
		return nil, err
	}
	return r, nil
}

// compileChains makes the chain of the rule's own policies, and one for each
// listener of its gateways that adds some.
func (p *Proxy) compileChains(ctx context.Context, r *rule, ref resource.Ref, route *weirv1.Route) error {
	own, apis := p.desired.policiesOn(ref, r.name), p.desired.apisOn(ref, r.name)
	var err error
	if r.chain, err = p.makeChain(ctx, r, order(nil, own), apis); err != nil {
		return err
	}
	for _, parent := range route.GetSpec().GetParentRefs() {
		gateway := resource.Ref{Kind: resource.KindGateway, Tenant: ref.Tenant, Name: parent.GetName()}
		for _, l := range p.desired.resources[gateway].GetGateway().GetSpec().GetListeners() {
			on := p.desired.policiesOn(gateway, l.GetName())
			if len(on) == 0 {
				continue
			}
			chain, err := p.makeChain(ctx, r, order(on, own), apis)
			if err != nil {
				return err
			}
			if r.chains == nil {
				r.chains = map[listenerID]*policy.Chain{}
			}
			r.chains[listenerID{gateway, l.GetName()}] = chain
		}
	}
	return nil
}

// makeChain makes what the policies and Apis of a rule want done, in this order: where
// an Api is in its life, who may, as the contract says, what becomes of it.
func (p *Proxy) makeChain(ctx context.Context, r *rule, specs []*weirv1.Policy, apis []*weirv1.Api) (*policy.Chain, error) {
	if len(specs)+len(apis) == 0 {
		return nil, nil
	}
	m := chainMaker{proxy: p, rule: r}
	for _, a := range apis {
		m.lifecycle(ctx, a)
	}
	transforms := slices.IndexFunc(specs, func(s *weirv1.Policy) bool { return stageOf(s) == int(weirv1.PolicySpec_TRANSFORM) })
	if transforms < 0 {
		transforms = len(specs)
	}
	for _, s := range specs[:transforms] {
		m.policy(ctx, s)
	}
	for _, a := range apis {
		m.contract(ctx, a)
	}
	for _, s := range specs[transforms:] {
		m.policy(ctx, s)
	}
	if m.err != nil || len(m.made) == 0 {
		return nil, m.err
	}
	return policy.NewChain(m.made, policy.ChainConfig{OnFailure: p.policyFailed}), nil
}

// chainMaker gathers what a chain consists of, and the first error. The rule holds
// what was made.
type chainMaker struct {
	proxy *Proxy
	rule  *rule
	made  []policy.Policy
	err   error
}

func (m *chainMaker) policy(ctx context.Context, spec *weirv1.Policy) {
	if m.err != nil {
		return
	}
	s, err := m.proxy.policySpec(spec)
	if err != nil {
		m.err = err
		return
	}
	services, err := m.proxy.grant(s.Tenant, spec.GetSpec().GetServices())
	if err != nil {
		m.err = fmt.Errorf("policy %s: %w", s.Name, err)
		return
	}
	m.rule.held = append(m.rule.held, services.leave)
	m.add(ctx, s, services)
}

func (m *chainMaker) add(ctx context.Context, s policy.Spec, services policy.Services) {
	made, err := m.proxy.cfg.Policies.Make(ctx, s, services)
	if err != nil {
		m.err = fmt.Errorf("policy %s: %w", s.Name, err)
		return
	}
	m.rule.held = append(m.rule.held, made.Release)
	m.made = append(m.made, made)
}

func (p *Proxy) policySpec(spec *weirv1.Policy) (policy.Spec, error) {
	ref := resource.Of(resource.Wrap(spec))
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

// policyFailed is told of every failure of a policy, whatever its mode.
func (p *Proxy) policyFailed(x *exchange.Exchange, err *policy.Error) {
	p.cfg.Metrics.PolicyFailed(err.Policy)
	p.cfg.Logger.Warn("policy failed", "policy", err.Policy, "phase", err.Phase, "request_id", string(x.ID), "error", err.Err)
}
