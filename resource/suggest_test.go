package resource_test

import (
	"testing"

	"github.com/weirmesh/weir/resource"
)

func TestNearest(t *testing.T) {
	fields := []string{"parentRefs", "hostnames", "rules", "backendRefs"}
	for word, want := range map[string]string{
		"backendRef": "backendRefs", "backend_refs": "backendRefs", "Rules": "rules", "ruels": "rules",
		"hostname": "hostnames", "colour": "", "": "", "x": "",
	} {
		if got := resource.Nearest(word, fields); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
	if got := resource.Nearest("HTTPRoute", resource.Kinds()); got != "Route" {
		t.Errorf("Nearest(HTTPRoute) = %q", got)
	}
}

func TestParseKind(t *testing.T) {
	for word, want := range map[string]string{
		"route": "Route", "routes": "Route", "ROUTES": "Route", "Policies": "Policy", "policy": "Policy", "gateways": "Gateway",
	} {
		if got, ok := resource.ParseKind(word); !ok || got != want {
			t.Errorf("ParseKind(%q) = %q, %v", word, got, ok)
		}
	}
	if _, ok := resource.ParseKind("pods"); ok {
		t.Error("pods is a kind")
	}
}

func TestPath(t *testing.T) {
	at := resource.Path("").Field("spec").Field("rules").Index(10).Field("labels").Key(`a."]b`)
	if want := resource.Path(`spec.rules[10].labels["a.\"]b"]`); at != want {
		t.Fatalf("got %s, want %s", at, want)
	}
	for _, want := range []resource.Path{"spec.rules[10].labels", "spec.rules[10]", "spec.rules", "spec", "", ""} {
		if at = at.Parent(); at != want {
			t.Fatalf("got %s, want %s", at, want)
		}
	}
}
