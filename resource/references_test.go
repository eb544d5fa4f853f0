package resource

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// written is a reference with its places as people read them.
type written struct {
	Field     Path
	To        Ref
	Part      string
	PartField Path
	Port      uint32
	PortField Path
	Use       Use
	Authority bool
}

func writtenOut(r Message) (all []written) {
	for ref := range References(Wrap(r)) {
		w := written{Field: ref.Field(), To: ref.To, Part: ref.Part, Port: ref.Port, Use: ref.Use, Authority: ref.Authority}
		if ref.Part != "" {
			w.PartField = ref.PartField()
		}
		if ref.Port != 0 {
			w.PortField = ref.PortField()
		}
		all = append(all, w)
	}
	return all
}

func TestReferences(t *testing.T) {
	meta := &weirv1.Metadata{Name: "x", Tenant: "shop"}
	tests := map[string]struct {
		message Message
		want    []written
	}{
		"a Service in the clear refers to nothing": {message: &weirv1.Service{Metadata: meta}},
		"a Service refers to certificates": {
			message: &weirv1.Service{Metadata: meta, Spec: &weirv1.ServiceSpec{Tls: &weirv1.UpstreamTLS{
				CaCertificateRefs: []*weirv1.CertificateRef{{Name: "a"}}, ClientCertificateRef: &weirv1.CertificateRef{Name: "b"}}}},
			want: []written{
				{Field: "spec.tls.caCertificateRefs[0].name", To: Ref{"Certificate", "shop", "a"}, Authority: true},
				{Field: "spec.tls.clientCertificateRef.name", To: Ref{"Certificate", "shop", "b"}},
			},
		},
		"a Gateway refers to certificates": {
			message: &weirv1.Gateway{Metadata: meta, Spec: &weirv1.GatewaySpec{Listeners: []*weirv1.Listener{
				{Name: "http"}, {Name: "https", Tls: &weirv1.ListenerTLS{CertificateRefs: []*weirv1.CertificateRef{{Name: "a"}, {Kind: "Certificate", Name: "b"}}}},
			}}},
			want: []written{
				{Field: "spec.listeners[1].tls.certificateRefs[0].name", To: Ref{"Certificate", "shop", "a"}},
				{Field: "spec.listeners[1].tls.certificateRefs[1].name", To: Ref{"Certificate", "shop", "b"}},
			},
		},
		"a Route refers to its parents and backends": {
			message: &weirv1.Route{Metadata: meta, Spec: &weirv1.RouteSpec{
				ParentRefs: []*weirv1.ParentRef{{Name: "public", SectionName: "https", Port: 443}, {Kind: "Service", Name: "books"}},
				Rules: []*weirv1.RouteRule{
					{},
					{BackendRefs: []*weirv1.BackendRef{{Name: "a"}, {Name: "b", Subset: "v1"}}},
				},
			}},
			want: []written{
				{Field: "spec.parentRefs[0].name", To: Ref{"Gateway", "shop", "public"},
					Part: "https", PartField: "spec.parentRefs[0].sectionName", Port: 443, PortField: "spec.parentRefs[0].port",
					Use: Use{HTTP: "spec.rules[1]"}},
				{Field: "spec.parentRefs[1].name", To: Ref{"Service", "shop", "books"},
					Use: Use{HTTP: "spec.rules[1]"}},
				{Field: "spec.rules[1].backendRefs[0].name", To: Ref{"Service", "shop", "a"}},
				{Field: "spec.rules[1].backendRefs[1].name", To: Ref{"Service", "shop", "b"},
					Part: "v1", PartField: "spec.rules[1].backendRefs[1].subset"},
			},
		},
		"a Route refers to where it mirrors to": {
			message: &weirv1.Route{Metadata: meta, Spec: &weirv1.RouteSpec{Rules: []*weirv1.RouteRule{{
				BackendRefs: []*weirv1.BackendRef{{Name: "a"}},
				Filters: []*weirv1.RouteFilter{{}, {RequestMirror: &weirv1.RequestMirror{
					BackendRef: &weirv1.BackendRef{Name: "b", Subset: "v2"}}}},
			}}}},
			want: []written{
				{Field: "spec.rules[0].backendRefs[0].name", To: Ref{"Service", "shop", "a"}},
				{Field: "spec.rules[0].filters[1].requestMirror.backendRef.name", To: Ref{"Service", "shop", "b"},
					Part: "v2", PartField: "spec.rules[0].filters[1].requestMirror.backendRef.subset"},
			},
		},
		"a Policy refers to its targets, its plugin and the services that this may call": {
			message: &weirv1.Policy{Metadata: meta, Spec: &weirv1.PolicySpec{
				TargetRefs: []*weirv1.TargetRef{{Kind: "Route", Name: "books", SectionName: "list"}},
				Plugin:     "stamp",
				Services:   []*weirv1.ServiceGrant{{Name: "users", As: "outbound|80||users"}, {Name: "audit", Subset: "v2"}},
			}},
			want: []written{
				{Field: "spec.targetRefs[0].name", To: Ref{"Route", "shop", "books"}, Part: "list", PartField: "spec.targetRefs[0].sectionName"},
				{Field: "spec.plugin", To: Ref{"Plugin", "shop", "stamp"}},
				{Field: "spec.services[0].name", To: Ref{"Service", "shop", "users"}},
				{Field: "spec.services[1].name", To: Ref{"Service", "shop", "audit"}, Part: "v2", PartField: "spec.services[1].subset"},
			},
		},
		"a Plugin refers to a blob, which has no tenant": {
			message: &weirv1.Plugin{Metadata: meta, Spec: &weirv1.PluginSpec{Digest: "sha256:ab"}},
			want:    []written{{Field: "spec.digest", To: Ref{"Blob", "", "sha256:ab"}}},
		},
		"an empty name refers to nothing": {message: &weirv1.Plugin{Metadata: meta}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, writtenOut(test.message)); diff != "" {
				t.Errorf("references (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReferenceLack(t *testing.T) {
	gateway := Wrap(&weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "public"}, Spec: &weirv1.GatewaySpec{
		Listeners: []*weirv1.Listener{{Name: "http", Port: 80}, {Name: "https", Port: 443}},
	}})
	service := Wrap(&weirv1.Service{Metadata: &weirv1.Metadata{Name: "books"}, Spec: &weirv1.ServiceSpec{
		Subsets: []*weirv1.Subset{{Name: "v1"}},
	}})
	toGateway := Reference{To: Of(gateway), at: place{field: "parent"}, part: "section"}
	tests := map[string]struct {
		ref           Reference
		target        *weirv1.Resource
		part          string
		port          uint32
		field, saying string
	}{
		"no part asked for":           {ref: toGateway, target: gateway},
		"a listener that is there":    {ref: toGateway, target: gateway, part: "http"},
		"a port that is there":        {ref: toGateway, target: gateway, port: 443},
		"a listener that is not":      {ref: toGateway, target: gateway, part: "htpp", field: "parent.section", saying: `Gateway public has no listener "htpp"; did you mean "http"?`},
		"a port that is not":          {ref: toGateway, target: gateway, port: 8080, field: "parent.port", saying: `Gateway public has no listener on port 8080`},
		"a port of the other section": {ref: toGateway, target: gateway, part: "http", port: 443, field: "parent.port", saying: `Gateway public has no listener "http" on port 443`},
		"a subset that is not": {ref: Reference{To: Of(service), part: "subset"}, target: service, part: "blue",
			field: "subset", saying: `Service books has no subset "blue"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ref := test.ref
			ref.Part, ref.Port = test.part, test.port
			field, saying, lacks := ref.Lack(test.target)
			if string(field) != test.field || saying != test.saying || lacks != (test.saying != "") {
				t.Errorf("Lack = %q, %q, %v; want %q, %q", field, saying, lacks, test.field, test.saying)
			}
		})
	}
}
