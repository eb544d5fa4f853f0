package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// writeChains prints the policies and Apis that run on a Route's requests, rule by rule, in the
// order in which they run, and where each comes from: that also says on which of the
// requests it runs, where it comes from a listener or from one of several services.
func writeChains(w io.Writer, r *weirv1.Resource, all []*weirv1.Resource) error {
	route := r.GetRoute()
	if route == nil {
		return nil
	}
	var rows [][]string
	for i, rule := range route.GetSpec().GetRules() {
		c := chained{resource.Of(r), route, rule, rule.GetName(), all}
		if c.name == "" {
			c.name = strconv.Itoa(i)
		}
		rows = append(rows, c.rows()...)
	}
	if len(rows) == 0 {
		return nil
	}
	var table strings.Builder
	if err := writeTable(&table, []string{"RULE", "STAGE", "POLICY", "PLUGIN", "FROM"}, rows); err != nil {
		return err
	}
	text := strings.TrimSuffix(table.String(), "\n")
	_, err := fmt.Fprintf(w, "Policies:\n  %s\n", strings.ReplaceAll(text, "\n", "\n  "))
	return err
}

// chained is a rule of a Route, and all that is declared beside it.
type chained struct {
	ref   resource.Ref
	route *weirv1.Route
	rule  *weirv1.RouteRule
	name  string
	all   []*weirv1.Resource
}

// The levels at which policies are attached, the widest first.
const (
	ofTenant = iota
	ofGateway
	ofRoute
	ofService
	levels
	nowhere = -1
)

// level is where a target stands above the rule.
func (c *chained) level(t *weirv1.TargetRef) int {
	named := func(section string) bool { return t.GetSectionName() == "" || t.GetSectionName() == section }
	switch t.GetKind() {
	case resource.KindTenant:
		return ofTenant
	case resource.KindGateway:
		if slices.ContainsFunc(c.listeners(t.GetName()), named) {
			return ofGateway
		}
	case resource.KindRoute:
		if t.GetName() == c.ref.Name && named(c.name) {
			return ofRoute
		}
	case resource.KindService:
		if slices.ContainsFunc(c.rule.GetBackendRefs(), func(b *weirv1.BackendRef) bool {
			return b.GetName() == t.GetName() && named(b.GetSubset()) && (b.Weight == nil || b.GetWeight() > 0)
		}) {
			return ofService
		}
	}
	return nowhere
}

// listeners are those of a Gateway by which requests of the Route come in.
func (c *chained) listeners(gateway string) (names []string) {
	i := slices.IndexFunc(c.all, func(r *weirv1.Resource) bool {
		return r.GetGateway() != nil && resource.Of(r) == resource.Ref{Kind: resource.KindGateway, Tenant: c.ref.Tenant, Name: gateway}
	})
	if i < 0 {
		return nil
	}
	for _, l := range c.all[i].GetGateway().GetSpec().GetListeners() {
		for _, p := range c.route.GetSpec().GetParentRefs() {
			if p.GetName() == gateway && (p.GetSectionName() == "" || p.GetSectionName() == l.GetName()) && (p.GetPort() == 0 || p.GetPort() == l.GetPort()) {
				names = append(names, l.GetName())
			}
		}
	}
	return names
}

// rows are what runs, in the order in which it does: where an Api is in its life, who
// calls it, policies, the limits of whoever calls, those that limit, the contract, and
// those that transform.
func (c *chained) rows() (rows [][]string) {
	add := func(stage, name, what, from string) { rows = append(rows, []string{c.name, stage, name, what, from}) }
	apis := c.apis()
	for _, a := range apis {
		if a.Api.GetSpec().GetState() != weirv1.ApiSpec_PUBLISHED {
			add("LIFECYCLE", a.Api.GetMetadata().GetName(), "(api)", a.from)
		}
	}
	for _, a := range apis {
		if a.Api.GetSpec().GetAuthentication() != nil {
			add("KEY", a.Api.GetMetadata().GetName(), "(api)", a.from)
		}
	}
	addPolicy := func(p *weirv1.Policy) {
		add(resource.StageOf(p).String(), p.GetMetadata().GetName(), pluginOf(p.GetSpec()), c.from(p))
	}
	policies := c.policies()
	policiesBefore := func(stage weirv1.PolicySpec_Stage) {
		for len(policies) > 0 && resource.StageOf(policies[0].Policy) < stage {
			addPolicy(policies[0].Policy)
			policies = policies[1:]
		}
	}
	policiesBefore(weirv1.PolicySpec_LIMIT)
	for _, a := range apis {
		if a.Api.GetSpec().GetAuthentication() != nil {
			add("LIMIT", a.Api.GetMetadata().GetName(), "(api)", a.from) // of whoever calls, once
			break
		}
	}
	policiesBefore(weirv1.PolicySpec_TRANSFORM)
	for _, a := range apis {
		if a.Api.GetSpec().GetContractRef() != nil {
			add("CONTRACT", a.Api.GetMetadata().GetName(), "(api)", a.from)
		}
	}
	for _, a := range policies {
		addPolicy(a.Policy)
	}
	return rows
}

// ofApi is an Api that a rule is of, and by what.
type ofApi struct {
	*weirv1.Api
	from string
}

func (c *chained) apis() (all []ofApi) {
	for _, r := range c.all {
		if resource.Of(r).Tenant != c.ref.Tenant {
			continue
		}
		for _, t := range r.GetApi().GetSpec().GetTargetRefs() {
			if c.level(t) == ofRoute {
				all = append(all, ofApi{r.GetApi(), targetText(t)})
			}
		}
	}
	return all
}

// policies are those that may run on the rule's requests, in their order.
func (c *chained) policies() []resource.Attached {
	var at [levels][]resource.Attached
	for _, r := range c.all {
		p := r.GetPolicy()
		if p == nil || resource.Of(r).Tenant != c.ref.Tenant {
			continue
		}
		for _, t := range p.GetSpec().GetTargetRefs() {
			if level := c.level(t); level != nowhere {
				at[level] = append(at[level], resource.Attached{Policy: p, By: t})
			}
		}
	}
	return resource.Chain(at[:]...)
}

// from says by what a policy is attached to the rule.
func (c *chained) from(p *weirv1.Policy) string {
	var all []string
	for _, t := range p.GetSpec().GetTargetRefs() {
		if c.level(t) == nowhere {
			continue
		}
		all = append(all, targetText(t))
	}
	return strings.Join(all, "; ")
}

func targetText(t *weirv1.TargetRef) string {
	text := strings.TrimSuffix(t.GetKind()+" "+t.GetName(), " ")
	if t.GetSectionName() != "" {
		text += ", " + map[string]string{
			resource.KindGateway: "listener", resource.KindRoute: "rule", resource.KindService: "subset",
		}[t.GetKind()] + " " + t.GetSectionName()
	}
	return text
}
