package resource

import (
	"strings"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A route must ask only for what the listeners have that it names.
func TestRouteAndListenerFit(t *testing.T) {
	gateway := &weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "g", Tenant: DefaultTenant}, Spec: &weirv1.GatewaySpec{Listeners: []*weirv1.Listener{
		{Name: "web", Port: 80, Protocol: weirv1.Listener_HTTP}, {Name: "db", Port: 5432, Protocol: weirv1.Listener_TCP},
		{Name: "tls", Port: 443, Protocol: weirv1.Listener_TLS},
	}}}
	onlyTCP := &weirv1.Gateway{Metadata: gateway.Metadata, Spec: &weirv1.GatewaySpec{Listeners: gateway.Spec.Listeners[1:2]}}
	idle := &weirv1.RouteTimeouts{Idle: durationpb.New(10 * time.Second)}
	for _, c := range []struct {
		name   string
		on     *weirv1.Gateway
		parent *weirv1.ParentRef
		spec   *weirv1.RouteSpec
		want   string // "": it fits
	}{
		{"HTTP, unnamed", gateway, &weirv1.ParentRef{}, &weirv1.RouteSpec{Hostnames: []string{"a"}, Rules: []*weirv1.RouteRule{{}, {}}}, ""},
		{"TCP", gateway, &weirv1.ParentRef{SectionName: "db"}, &weirv1.RouteSpec{Rules: []*weirv1.RouteRule{{Timeouts: idle}}}, ""},
		{"TLS", gateway, &weirv1.ParentRef{Port: 443}, &weirv1.RouteSpec{Hostnames: []string{"a"}, Rules: []*weirv1.RouteRule{{}}}, ""},
		{"hostnames for TCP", gateway, &weirv1.ParentRef{SectionName: "db"}, &weirv1.RouteSpec{Hostnames: []string{"a"}, Rules: []*weirv1.RouteRule{{}}},
			`spec.hostnames: are for clients that ask for a name, and the listener "db"`},
		{"a match for TCP", gateway, &weirv1.ParentRef{SectionName: "db"}, &weirv1.RouteSpec{Rules: []*weirv1.RouteRule{{Matches: []*weirv1.RouteMatch{{}}}}},
			`spec.rules[0].matches: is for HTTP, and the listener "db" of Gateway g speaks TCP`},
		{"a filter for TLS", gateway, &weirv1.ParentRef{Port: 443}, &weirv1.RouteSpec{Rules: []*weirv1.RouteRule{{Filters: []*weirv1.RouteFilter{{}}}}},
			`spec.rules[0].filters: is for HTTP`},
		{"two rules", gateway, &weirv1.ParentRef{SectionName: "db"}, &weirv1.RouteSpec{Rules: []*weirv1.RouteRule{{}, {}}}, `spec.rules[1]: is for HTTP`},
		{"a request's timeout", gateway, &weirv1.ParentRef{SectionName: "db"},
			&weirv1.RouteSpec{Rules: []*weirv1.RouteRule{{Timeouts: &weirv1.RouteTimeouts{Request: durationpb.New(time.Second)}}}}, `spec.rules[0].timeouts.request: is for HTTP`},
		{"idle for HTTP", gateway, &weirv1.ParentRef{SectionName: "web"}, &weirv1.RouteSpec{Rules: []*weirv1.RouteRule{{Timeouts: idle}}},
			`spec.rules[0].timeouts.idle: is for TCP and TLS`},
		{"idle, unnamed", gateway, &weirv1.ParentRef{}, &weirv1.RouteSpec{Rules: []*weirv1.RouteRule{{Timeouts: idle}}},
			`spec.rules[0].timeouts.idle: is for TCP and TLS: name the listener`},
		{"unnamed where nothing speaks HTTP", onlyTCP, &weirv1.ParentRef{}, &weirv1.RouteSpec{Rules: []*weirv1.RouteRule{{}}},
			`spec.parentRefs[0].name: Gateway g has no listener that speaks HTTP: name`},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.parent.Name = "g"
			c.spec.ParentRefs = []*weirv1.ParentRef{c.parent}
			r := Wrap(&weirv1.Route{Metadata: &weirv1.Metadata{Name: "r"}, Spec: c.spec})
			for ref := range References(r) {
				field, message, lacks := ref.Lack(Wrap(c.on))
				if got := string(field) + ": " + message; lacks != (c.want != "") || lacks && !strings.HasPrefix(got, c.want) {
					t.Errorf("got %q", got)
				}
			}
		})
	}
}
