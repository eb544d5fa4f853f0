// Package access decides who may call a service: it is the policy that AccessRules
// declare, at the sidecar of the service that is called, and at that of a caller whom none
// of them names.
//
// Who calls stands in the certificate by which the connection was secured. Paths are
// compared after they were normalised, as routes' are.
//
// # Promises
//
//   - What no rule allows is refused, and what is said of it names no rule.
//   - Deciding allocates nothing.
package access

import (
	"context"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/resource"
)

// Host makes policies of AccessRules, and counts what they refuse.
type Host struct{ denied *prometheus.CounterVec }

// NewHost returns a host.
func NewHost() *Host {
	return &Host{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "weir_access_denied_total", Help: "Requests that no AccessRule of the service allows.",
	}, []string{"service"})}
}

var _ policy.Maker = (*Host)(nil)

// Make implements policy.Maker.
func (h *Host) Make(_ context.Context, spec policy.Spec, _ policy.Services) (policy.Policy, error) {
	declared := new(weirv1.AccessRuleSpec)
	if err := proto.Unmarshal([]byte(spec.Config), declared); err != nil {
		return nil, fmt.Errorf("read access rules of %s: %w", spec.Name, err)
	}
	return &rules{spec: spec, allow: declared.GetAllow(), denied: h.denied.WithLabelValues(spec.Tenant + "/" + spec.Name)}, nil
}

// Describe implements prometheus.Collector.
func (h *Host) Describe(to chan<- *prometheus.Desc) { h.denied.Describe(to) }

// Collect implements prometheus.Collector.
func (h *Host) Collect(to chan<- prometheus.Metric) { h.denied.Collect(to) }

// rules are all those of one service. They are not changed.
type rules struct {
	spec   policy.Spec
	allow  []*weirv1.AccessAllow
	denied prometheus.Counter
}

func (r *rules) Spec() policy.Spec        { return r.spec }
func (r *rules) Phases() policy.Phases    { return policy.RequestHead }
func (r *rules) NewFilter() policy.Filter { return filter{rules: r} }
func (r *rules) Release()                 {}

type filter struct {
	*rules
	policy.NoBodies
}

func (f filter) OnRequest(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	caller := ""
	if x.TLS != nil && x.TLS.Peer != nil && len(x.TLS.Peer.URIs) == 1 {
		caller = x.TLS.Peer.URIs[0]
	}
	path := x.Request.Path
	for i, c := range path {
		if c == '?' {
			path = path[:i]
			break
		}
	}
	if f.allows(caller, x.Request.Method, path) {
		return policy.Continue, nil
	}
	f.denied.Inc()
	x.Refuse(exchange.Problem{Status: 403, Code: "access_denied", Detail: "The caller may not do this."})
	return policy.Respond, nil
}

func (filter) OnResponse(*exchange.Exchange, bool) (policy.Verdict, error) {
	return policy.Continue, nil
}

// allows reports whether any of the rules lets the caller do that. Nobody is no caller.
func (r *rules) allows(caller string, method, path []byte) bool {
	if caller == "" {
		return false
	}
	for _, a := range r.allow {
		if anyOf(a.GetFrom(), func(from string) bool { return resource.MatchesID(from, caller) }) &&
			anyOf(a.GetMethods(), func(m string) bool { return m == string(method) }) &&
			anyOf(a.GetPaths(), func(p string) bool { return matchesPath(p, path) }) {
			return true
		}
	}
	return false
}

// anyOf: an empty list is met by all.
func anyOf(list []string, matches func(string) bool) bool {
	for _, s := range list {
		if matches(s) {
			return true
		}
	}
	return len(list) == 0
}

func matchesPath(pattern string, path []byte) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return len(path) >= len(prefix) && string(path[:len(prefix)]) == prefix
	}
	return pattern == string(path)
}
