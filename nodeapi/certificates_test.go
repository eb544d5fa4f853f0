package nodeapi

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// A proxy is sent the Certificates that its own Gateways show, and with them
// their keys, and no others.
func TestScopeHoldsTheCertificatesOfItsGateways(t *testing.T) {
	certificate := func(name string) *weirv1.Resource {
		return resource.Wrap(&weirv1.Certificate{Metadata: &weirv1.Metadata{Name: name, Tenant: resource.DefaultTenant, Revision: 1}})
	}
	secure := func(name string, selector map[string]string, certificates ...string) *weirv1.Resource {
		r := gateway(name, selector)
		tls := &weirv1.ListenerTLS{}
		for _, c := range certificates {
			tls.CertificateRefs = append(tls.CertificateRefs, &weirv1.CertificateRef{Name: c})
		}
		r.GetGateway().Spec.Listeners = append(r.GetGateway().Spec.Listeners, &weirv1.Listener{Name: "https", Port: 443, Tls: tls})
		return r
	}
	g := newGraph()
	g.apply(Change{Revision: 1, Reset: true, Puts: []*weirv1.Resource{
		certificate("shop"), certificate("spare"), certificate("eu"), secure("all", nil, "shop"), secure("eu", map[string]string{"region": "eu"}, "eu", "shop"),
	}})
	world, eu := newScope(audience{kinds: resource.NewerKinds}, g), newScope(audience{labels: map[string]string{"region": "eu"}, kinds: resource.NewerKinds}, g)
	if diff := cmp.Diff([]string{"Certificate shop", "Gateway all"}, memberNames(world)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"Certificate eu", "Certificate shop", "Gateway all", "Gateway eu"}, memberNames(eu)); diff != "" {
		t.Error(diff)
	}
	bare := secure("all", nil)
	resource.Meta(bare).Revision = 2
	world.change(2, g.apply(Change{Revision: 2, Puts: []*weirv1.Resource{bare}}))
	if diff := cmp.Diff([]string{"Gateway all"}, memberNames(world)); diff != "" {
		t.Error("a certificate that is not shown any more:", diff)
	}
}

// So are those by which the services of its routes are spoken to.
func TestScopeHoldsTheCertificatesOfItsServices(t *testing.T) {
	certificate := func(name string) *weirv1.Resource {
		return resource.Wrap(&weirv1.Certificate{Metadata: &weirv1.Metadata{Name: name, Tenant: resource.DefaultTenant, Revision: 1}})
	}
	secured := func(name, ca, own string) *weirv1.Resource {
		s := service(name)
		s.GetService().Spec = &weirv1.ServiceSpec{Tls: &weirv1.UpstreamTLS{
			CaCertificateRefs: []*weirv1.CertificateRef{{Name: ca}}, ClientCertificateRef: &weirv1.CertificateRef{Name: own}}}
		return s
	}
	g := newGraph()
	g.apply(Change{Revision: 1, Reset: true, Puts: []*weirv1.Resource{
		gateway("all", nil), route("r", "all", "asked"), secured("asked", "ca", "own"), secured("other", "ca2", "own2"),
		certificate("ca"), certificate("own"), certificate("ca2"), certificate("own2"),
	}})
	want := []string{"Certificate ca", "Certificate own", "Gateway all", "Route r", "Service asked"}
	if diff := cmp.Diff(want, memberNames(newScope(audience{kinds: resource.NewerKinds}, g))); diff != "" {
		t.Error(diff)
	}
}

// The key of a Certificate that only says whom to trust is not sent, unless
// somebody shows that Certificate too.
func TestAnAuthorityComesWithoutItsKey(t *testing.T) {
	ca := resource.Wrap(&weirv1.Certificate{Metadata: &weirv1.Metadata{Name: "ca", Tenant: resource.DefaultTenant, Revision: 1},
		Material: &weirv1.CertificateMaterial{Chain: [][]byte{{1}}, Key: []byte{2}}})
	books := func(revision uint64, tls *weirv1.UpstreamTLS) *weirv1.Resource {
		s := service("books")
		resource.Meta(s).Revision = revision
		s.GetService().Spec = &weirv1.ServiceSpec{Tls: tls}
		return s
	}
	refs := []*weirv1.CertificateRef{{Name: "ca"}}
	trusts := &weirv1.UpstreamTLS{CaCertificateRefs: refs}
	shows := &weirv1.UpstreamTLS{CaCertificateRefs: refs, ClientCertificateRef: refs[0]}
	g := newGraph()
	g.apply(Change{Revision: 1, Reset: true, Puts: []*weirv1.Resource{gateway("all", nil), route("r", "all", "books"), books(1, trusts), ca}})
	s := newScope(audience{kinds: resource.NewerKinds}, g)
	keySent := func(when string, want bool) {
		t.Helper()
		m := s.members[g.at(resource.Of(ca))].GetCertificate().GetMaterial()
		if len(m.GetChain()) == 0 || len(m.GetKey()) > 0 != want {
			t.Errorf("%s: sent %v", when, m)
		}
	}
	keySent("it is trusted", false)
	s.change(2, g.apply(Change{Revision: 2, Puts: []*weirv1.Resource{books(2, shows)}}))
	keySent("it is shown too", true)
	s.change(3, g.apply(Change{Revision: 3, Puts: []*weirv1.Resource{books(3, trusts)}}))
	keySent("it is only trusted again", false)
	if len(ca.GetCertificate().GetMaterial().GetKey()) == 0 {
		t.Error("the original lost its key")
	}
}
