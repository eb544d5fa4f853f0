package node

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// A service outside the mesh that asks its callers for a certificate is called with the one
// that is declared, by whom its AccessRules name. Others are refused at their own sidecar,
// which has neither the key nor the address, and may call as soon as a rule says so.
func TestAServiceOutsideTheMeshIsCalledByWhomItsRulesName(t *testing.T) {
	m := newMesh(t, "reviews-1 reviews", "shop-1 shop")
	bank := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("shown " + strings.Join(r.TLS.PeerCertificates[0].DNSNames, " ")))
	}))
	bank.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	bank.StartTLS()
	t.Cleanup(bank.Close)
	apply(t, m.api,
		resource.Wrap(&weirv1.Certificate{Metadata: &weirv1.Metadata{Name: "for-bank"}, Spec: &weirv1.CertificateSpec{Hostnames: []string{"shop.example"}, SelfSigned: &weirv1.SelfSigned{}}}),
		resource.Wrap(&weirv1.Service{Metadata: &weirv1.Metadata{Name: "bank"}, Spec: &weirv1.ServiceSpec{
			Endpoints: []*weirv1.Endpoint{{Address: bank.Listener.Addr().String()}},
			Tls:       &weirv1.UpstreamTLS{InsecureSkipVerify: true, ClientCertificateRef: &weirv1.CertificateRef{Name: "for-bank"}},
		}}))
	by := func(name string) func() (int, string) {
		return func() (int, string) { return m.from(name, "GET", "bank.mesh", "/") }
	}
	m.awaitAnswer(200, "shown shop.example", by("shop-1"))
	m.awaitAnswer(200, "shown shop.example", by("reviews-1"))

	letIn := func(service string) {
		apply(t, m.api, resource.Wrap(&weirv1.AccessRule{Metadata: &weirv1.Metadata{Name: "bank"}, Spec: &weirv1.AccessRuleSpec{Service: "bank",
			Allow: []*weirv1.AccessAllow{{From: []string{"spiffe://" + m.td + "/ns/default/svc/" + service}}}}}))
	}
	letIn("shop")
	m.awaitAnswer(403, "access_denied", by("reviews-1"))
	if status, body := by("shop-1")(); status != 200 {
		t.Errorf("whom the rule names is answered %d %s", status, body)
	}
	m.awaitAnswer(200, `weir_access_denied_total{service="default/bank"}`, func() (int, string) {
		return m.ask(m.cars["reviews-1"].cfg.Sidecar.Admin, "GET", "x", "/metrics")
	})
	for name, holds := range map[string]bool{"shop-1": true, "reviews-1": false} {
		_, page := m.ask(m.cars[name].cfg.Sidecar.Admin, "GET", "x", "/debug/config")
		if strings.Contains(page, "Certificate for-bank") != holds {
			t.Errorf("%s holds the certificate: %v", name, !holds)
		}
	}

	// A Route that shares out what is sent to the bank goes by the same rules.
	apply(t, m.api, resource.Wrap(&weirv1.Route{Metadata: &weirv1.Metadata{Name: "to-bank"}, Spec: &weirv1.RouteSpec{
		ParentRefs: []*weirv1.ParentRef{{Kind: "Service", Name: "bank"}}, Rules: []*weirv1.RouteRule{
			{Matches: []*weirv1.RouteMatch{{Path: &weirv1.PathMatch{Type: weirv1.PathMatch_PATH_PREFIX, Value: "/reviews"}}}, BackendRefs: []*weirv1.BackendRef{{Name: "reviews"}}},
			{BackendRefs: []*weirv1.BackendRef{{Name: "bank"}}}}}}))
	m.awaitAnswer(200, "reviews-1: GET /reviews", func() (int, string) { return m.from("reviews-1", "GET", "bank.mesh", "/reviews") })
	m.awaitAnswer(403, "access_denied", by("reviews-1"))
	letIn("reviews")
	m.awaitAnswer(200, "shown shop.example", by("reviews-1"))
	m.awaitAnswer(403, "access_denied", by("shop-1"))
}
