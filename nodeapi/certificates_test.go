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
	world, eu := newScope(nil, g), newScope(map[string]string{"region": "eu"}, g)
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
	if diff := cmp.Diff(want, memberNames(newScope(nil, g))); diff != "" {
		t.Error(diff)
	}
}
