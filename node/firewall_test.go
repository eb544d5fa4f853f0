package node

import (
	"net/http"
	"strings"
	"testing"

	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// A server compiles a firewall's rules before it stores them; an edge has them in
// force, counts and tells of them.
func TestFirewall(t *testing.T) {
	dir, address, gateway, upstream := t.TempDir(), freeport.Address(t), freeport.Address(t), newUpstream(t)
	run(t, serverConfig(t, dir, address)).ready()
	api := adminAPI(t, dir)
	config := edgeConfig(t.TempDir(), address, joinToken(t, api))
	config.Edge.Admin = freeport.Address(t)
	run(t, config).ready()
	apply(t, api, shop(t, gateway, upstream, "/books")...)
	requireServes(t, gateway, "/books")

	shield := func(rules string) *weirv1.Resource {
		return resource.Wrap(&weirv1.Policy{Metadata: &weirv1.Metadata{Name: "shield"}, Spec: &weirv1.PolicySpec{
			TargetRefs: []*weirv1.TargetRef{{Kind: "Gateway", Name: "public"}}, Waf: &weirv1.Firewall{Rules: rules}}})
	}
	for _, rules := range []string{"\nSecRule ARGS \"@rx (\" \"id:1,phase:1,deny\"", "\nSecAuditLog /tmp/log"} {
		_, err := api.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{shield(rules)}})
		if err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q is answered with %v", rules, err)
		}
	}
	list, err := api.List(t.Context(), &weirv1.ListRequest{Kind: "Policy"})
	if err != nil || len(list.GetResources()) > 0 {
		t.Errorf("stored: %v, %v", list, err)
	}

	apply(t, api, shield(`SecRule ARGS:old "@streq 1" "id:1,phase:1,deny,status:410"`))
	if got, _ := get(t, "http://"+gateway+"/books?old=1"); got != http.StatusGone {
		t.Errorf("a rule of one's own answers %d", got)
	}
	if got, body := get(t, "http://"+gateway+"/books?q=%3Cscript%3Ealert(1)%3C/script%3E"); got != http.StatusForbidden || strings.Contains(body, "941") {
		t.Errorf("an attack is answered %d %s", got, body)
	}
	requireServes(t, gateway, "/books")
	// Rules are counted as they match; exchanges when they are over.
	_, metrics := get(t, "http://"+config.Edge.Admin+"/metrics")
	if !strings.Contains(metrics, `weir_waf_transactions_total{action="blocked",policy="default/shield"}`) || !strings.Contains(metrics, `weir_waf_rule_hits_total{policy="default/shield",rule="941100"} 1`) {
		t.Error("the metrics have nothing of it")
	}
}
