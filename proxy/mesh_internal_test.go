package proxy

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/mesh"
	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/access"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/resource"
)

// Where no AccessRule is declared a sidecar lets in its tenant's services and edges, and
// where one is that alone counts.
func TestWhoComesInWithoutARule(t *testing.T) {
	d := newDesired()
	if rules := d.accessRules("default/books"); rules != nil {
		t.Errorf("an outbound route goes by %v", rules)
	}
	rules := d.accessRules("default/" + mesh.Inbound)
	if len(rules) != 1 {
		t.Fatalf("there are %d rules", len(rules))
	}
	settings, err := proto.Marshal(rules[0].GetSpec())
	if err != nil {
		t.Fatal(err)
	}
	made, err := access.NewHost().Make(t.Context(), policy.Spec{Tenant: "default", Config: string(settings)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for caller, want := range map[string]policy.Verdict{
		"spiffe://td/ns/default/svc/shop": policy.Continue,
		"spiffe://td/node/edge/e1":        policy.Continue,
		"spiffe://td/ns/other/svc/shop":   policy.Respond,
		"spiffe://td/node/server/a":       policy.Respond,
		"":                                policy.Respond,
	} {
		x := new(exchange.Exchange)
		x.Request.Method, x.Request.Path = []byte("GET"), []byte("/")
		x.TLS = &exchange.TLS{Peer: &exchange.Peer{URIs: []string{caller}}}
		if got, err := made.NewFilter().OnRequest(x, true); got != want || err != nil {
			t.Errorf("%q: %v, %v", caller, got, err)
		}
	}
	declared := &weirv1.AccessRule{Metadata: &weirv1.Metadata{Tenant: "default", Name: "x"}, Spec: &weirv1.AccessRuleSpec{Service: "books"}}
	d.put(resource.Wrap(declared))
	if rules := d.accessRules("default/" + mesh.Inbound); len(rules) != 1 || rules[0] != declared {
		t.Errorf("beside one that is declared there is %v", rules)
	}
}
