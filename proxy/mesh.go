package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/mesh"
	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http3"
	"github.com/weirmesh/weir/proxy/service"
	"github.com/weirmesh/weir/proxy/upstream"
	"github.com/weirmesh/weir/resource"
)

// Mesh is how a proxy speaks to others. How they prove to each other who they are is
// decided elsewhere.
type Mesh struct {
	// Identity is that of a service, which all of its sidecars bear.
	Identity func(tenant, service string) string
	// Client speaks to the sidecars of the service with an identity, and to nobody else.
	Client func(identity string) *tls.Config
	// Server serves other proxies, and nobody else; nil at an edge.
	Server func(protocols ...string) *tls.Config
	// IsShutOut tells whether a proxy whose certificate is good is none any more; nil:
	// none is. When that changes, [Proxy.CutPeers] is to be called.
	IsShutOut func(*x509.Certificate) bool
	// ResetKey is a listener.Config's, for those connections.
	ResetKey [32]byte
	// Outbound is the port by which a sidecar's service calls others; 0 at an edge.
	Outbound uint16
}

var errNoService = &Error{Status: 404, Blame: Client, Code: "no_service", Detail: "No service of the mesh is reached by this host. " +
	"A service is at NAME" + mesh.Suffix + ", once it is declared."}

// errExpired: proxies leave their connections before that.
var errExpired = &Error{Status: 403, Blame: Client, Code: "certificate_expired", Detail: "The caller's certificate has run out since it connected."}

// CutPeers breaks the connections with proxies that are shut out, both ways, whatever is
// under way on them, and returns how many.
func (p *Proxy) CutPeers() (cut int) {
	if p.cfg.Mesh == nil || p.cfg.Mesh.IsShutOut == nil {
		return 0
	}
	p.shown.Lock()
	for _, b := range p.bound {
		cut += b.listener.CutPeers(p.cfg.Mesh.IsShutOut)
		if b.quic != nil {
			cut += b.quic.CutPeers(p.cfg.Mesh.IsShutOut)
		}
	}
	p.shown.Unlock()
	return cut + p.pools.Cut(p.cfg.Mesh.IsShutOut)
}

// noRoute says why nothing serves a request that came in by a port.
func (p *Proxy) noRoute(port uint16) *Error {
	if p.cfg.Mesh != nil && p.cfg.Mesh.Outbound != 0 && p.cfg.Mesh.Outbound == port {
		return errNoService
	}
	return errNoRoute
}

// addMesh is addSecure for the listener of a sidecar. Any host may be asked for there:
// whoever is let in was told where to go. HTTP/1.1 is what WebSocket begins with.
func (p *Proxy) addMesh(socket *secureSocket) error {
	if p.cfg.Mesh == nil || p.cfg.Mesh.Server == nil {
		return fmt.Errorf("this proxy is no sidecar")
	}
	s := &secureListener{terms: terms{mesh: true}, tickets: p.tickets, mesh: true, forward: true, require: true,
		config: p.cfg.Mesh.Server("h2", "http/1.1"), quic: p.cfg.Mesh.Server(http3.Protocol)}
	s.tickets.refresh(s, time.Now())
	socket.byName[""], socket.first, socket.quic = s, s, true
	return nil
}

// cutInTime ends a conversation when the certificate runs out of one with whom it is: the
// caller's at the sidecar that is called, the callee's at the one that calls. Exchanges
// find that out when they begin; a conversation has begun once and for all.
func (s *session) cutInTime(x *exchange.Exchange) {
	until := s.stream.PeerUntil()
	if s.secured != nil && s.secured.mesh && (until.IsZero() || x.TLS.Peer.NotAfter.Before(until)) {
		until = x.TLS.Peer.NotAfter
	}
	if until.IsZero() {
		return
	}
	done := make(chan struct{})
	timer := time.AfterFunc(time.Until(until), func() {
		defer close(done)
		s.proxy.cfg.Logger.Info("conversation cut: a certificate has run out since it began", "request_id", string(x.ID), "service", x.Service)
		s.Cut()
	})
	s.overdue = func() {
		if !timer.Stop() {
			<-done // the session is another exchange's after this
		}
	}
}

// registered are the endpoints of a service that its sidecars have registered, of those
// that bear some labels.
func (p *Proxy) registered(ref resource.Ref, key upstream.Key, labels map[string]string, instances []*weirv1.Instance) (endpoints []service.Declared) {
	if p.cfg.Mesh == nil || p.desired.resources[ref].GetService().GetSpec().GetProtocol() == weirv1.ServiceSpec_TCP {
		return nil
	}
	spec := p.desired.resources[ref].GetService().GetSpec()
	checked := spec.GetHealthCheck() != nil && len(spec.GetEndpoints()) > 0
	key.Protocol, key.Proxy = upstream.Mesh, 0
	key.TLS = upstream.TLS{On: true, SidecarsOf: p.cfg.Mesh.Identity(ref.Tenant, ref.Name)}
	for _, i := range instances {
		if !bears(i.GetSpec().GetLabels(), labels) {
			continue
		}
		key.Address = i.GetSpec().GetAddress()
		// Where nothing but sidecars is there, they say how it is, and answers do; what
		// checks others would ask an instance what it does not speak.
		endpoints = append(endpoints, service.Declared{Weight: 1, Zone: i.GetSpec().GetLabels()["zone"], Key: key,
			Unhealthy: i.GetSpec().GetUnhealthy(), Unchecked: checked})
	}
	return endpoints
}

// instancesOf returns the Instances of a Service, by name.
func (d *desired) instancesOf(service resource.Ref) (instances []*weirv1.Instance) {
	for user := range d.users[service] {
		if i := d.resources[user].GetInstance(); i != nil {
			instances = append(instances, i)
		}
	}
	slices.SortFunc(instances, func(a, b *weirv1.Instance) int {
		return cmp.Compare(a.GetMetadata().GetName(), b.GetMetadata().GetName())
	})
	return instances
}

// revisions tell Instances from what they were.
func revisions(instances []*weirv1.Instance) string {
	var b strings.Builder
	for _, i := range instances {
		fmt.Fprintf(&b, "%s@%d ", i.GetMetadata().GetName(), i.GetMetadata().GetRevision())
	}
	return b.String()
}

// concerns is what an Instance or an AccessRule changes: the Service, and what is let
// in to the one beside this sidecar.
func concerns(r *weirv1.Resource) (to resource.Ref, ok bool) {
	tenant := resource.Of(r).Tenant
	switch {
	case r.GetInstance() != nil:
		return resource.Ref{Kind: resource.KindService, Tenant: tenant, Name: r.GetInstance().GetSpec().GetService()}, true
	case r.GetAccessRule() != nil:
		return resource.Ref{Kind: resource.KindRoute, Tenant: tenant, Name: mesh.Inbound}, true
	}
	return to, false
}

// accessRules are those that a route goes by, by name. A sidecar is told those of its
// own service alone.
func (d *desired) accessRules(route string) (rules []*weirv1.AccessRule) {
	tenant, name, _ := strings.Cut(route, "/")
	if name != mesh.Inbound {
		return nil
	}
	for ref, r := range d.resources {
		if ref.Kind == resource.KindAccessRule && ref.Tenant == tenant {
			rules = append(rules, r.GetAccessRule())
		}
	}
	slices.SortFunc(rules, func(a, b *weirv1.AccessRule) int {
		return cmp.Compare(a.GetMetadata().GetName(), b.GetMetadata().GetName())
	})
	if len(rules) == 0 {
		rules = append(rules, ownTenant(tenant))
	}
	return rules
}

// ownTenant is what holds where no AccessRule is declared: the tenant's own services may
// call, and edges, which are everybody's. Of whom the trust domain is was verified.
func ownTenant(tenant string) *weirv1.AccessRule {
	return &weirv1.AccessRule{
		Metadata: &weirv1.Metadata{Tenant: tenant, Name: mesh.Inbound},
		Spec: &weirv1.AccessRuleSpec{Service: mesh.Local, Allow: []*weirv1.AccessAllow{
			{From: []string{"spiffe://*/ns/" + tenant + "/svc/*", "spiffe://*/node/edge/*"}},
		}},
	}
}

// withheld is the rule that nobody here may call a service, of which a sidecar is told
// only that it is there; nil: it is told of it.
func (d *desired) withheld(service resource.Ref) *weirv1.AccessRule {
	if !d.resources[service].GetService().GetStatus().GetWithheld() {
		return nil
	}
	return &weirv1.AccessRule{Metadata: &weirv1.Metadata{Tenant: service.Tenant, Name: service.Name}, Spec: &weirv1.AccessRuleSpec{Service: service.Name}}
}

// access adds what AccessRules let in, before all else.
func (m *chainMaker) access(ctx context.Context, rules []*weirv1.AccessRule) {
	if len(rules) == 0 {
		return
	}
	all := &weirv1.AccessRuleSpec{Service: rules[0].GetSpec().GetService()}
	for _, r := range rules {
		all.Allow = append(all.Allow, r.GetSpec().GetAllow()...)
	}
	settings, err := proto.MarshalOptions{Deterministic: true}.Marshal(all)
	if err != nil {
		m.err = fmt.Errorf("access rules: %w", err)
		return
	}
	made, err := m.proxy.cfg.Policies.Make(ctx, policy.Spec{Tenant: resource.Of(resource.Wrap(rules[0])).Tenant, Name: all.GetService(),
		Native: policy.Access, Config: string(settings), FailureMode: weirv1.PolicySpec_CLOSED}, nil)
	m.add("access to "+all.GetService(), made, err)
}
