package store

import (
	"fmt"
	"slices"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// shop is a state in which everything refers to everything.
func shop(t *testing.T) (b *bench, digest string) {
	b = open(t)
	digest = b.push("module")
	b.put(
		gateway("public", "http", "https"),
		service("books", "v1", "v2"),
		route("books", "public", to("books", "v1")),
		plugin("stamp", digest),
		policy("stamp", "stamp", &weirv1.TargetRef{Kind: "Route", Name: "books", SectionName: "all"}),
	)
	return b, digest
}

func TestReferencesToNothingAreRefused(t *testing.T) {
	withSection := route("r", "public")
	withSection.GetRoute().Spec.ParentRefs[0].SectionName = "htps"
	tests := map[string]struct {
		put  *weirv1.Resource
		want string
	}{
		"Route to Gateway":         {route("r", "pubilc"), `NOT_FOUND Route r: spec.parentRefs[0].name: there is no Gateway pubilc; did you mean "public"?`},
		"Route to listener":        {withSection, `NOT_FOUND Route r: spec.parentRefs[0].sectionName: Gateway public has no listener "htps"; did you mean "https"?`},
		"Route to Service":         {route("r", "public", to("books", ""), to("bok", "")), `NOT_FOUND Route r: spec.rules[0].backendRefs[1].name: there is no Service bok; did you mean "books"?`},
		"Route to subset":          {route("r", "public", to("books", "v9")), `NOT_FOUND Route r: spec.rules[0].backendRefs[0].subset: Service books has no subset "v9"; did you mean "v1"?`},
		"Policy to Plugin":         {policy("p", "stmap"), `NOT_FOUND Policy p: spec.plugin: there is no Plugin stmap; did you mean "stamp"?`},
		"Policy to Route":          {policy("p", "stamp", &weirv1.TargetRef{Kind: "Route", Name: "paper"}), `NOT_FOUND Policy p: spec.targetRefs[0].name: there is no Route paper`},
		"Policy to a rule":         {policy("p", "stamp", &weirv1.TargetRef{Kind: "Route", Name: "books", SectionName: "some"}), `NOT_FOUND Policy p: spec.targetRefs[0].sectionName: Route books has no rule "some"`},
		"Policy to a listener":     {policy("p", "stamp", &weirv1.TargetRef{Kind: "Gateway", Name: "public", SectionName: "tcp"}), `NOT_FOUND Policy p: spec.targetRefs[0].sectionName: Gateway public has no listener "tcp"; did you mean "http"?`},
		"Plugin to a module":       {plugin("p", digestOf("other")), fmt.Sprintf(`NOT_FOUND Plugin p: spec.digest: nothing with the digest %s is stored: push it first`, digestOf("other"))},
		"an update is checked too": {route("books", "nowhere"), `NOT_FOUND Route books: spec.parentRefs[0].name: there is no Gateway nowhere`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b, _ := shop(t)
			requireRefused(t, b.entry(transact([]*weirv1.Resource{test.put}))[0], test.want)
		})
	}
}

func TestWhatIsInUseStays(t *testing.T) {
	tests := map[string]struct {
		command *weirv1.Command
		want    []string
	}{
		"a Gateway": {transact(nil, ref("Gateway", "public")),
			[]string{`IN_USE Gateway public: Route books refers to it at spec.parentRefs[0].name`}},
		"a Service": {transact(nil, ref("Service", "books")),
			[]string{`IN_USE Service books: Route books refers to it at spec.rules[0].backendRefs[0].name`}},
		"a Route": {transact(nil, ref("Route", "books")),
			[]string{`IN_USE Route books: Policy stamp refers to it at spec.targetRefs[0].name`}},
		"a Plugin": {transact(nil, ref("Plugin", "stamp")),
			[]string{`IN_USE Plugin stamp: Policy stamp refers to it at spec.plugin`}},
		"a subset": {transact([]*weirv1.Resource{service("books", "v2")}),
			[]string{`IN_USE Service books: Route books would point at nothing at spec.rules[0].backendRefs[0].subset: Service books has no subset "v1"; did you mean "v2"?`}},
		"a rule": {transact([]*weirv1.Resource{namelessRule(route("books", "public", to("books", "v1")))}),
			[]string{`IN_USE Route books: Policy stamp would point at nothing at spec.targetRefs[0].sectionName: Route books has no rule "all"`}},
		"by what the same change puts": {transact([]*weirv1.Resource{route("r", "public", to("books", "v1"))}, ref("Service", "books")),
			[]string{
				`NOT_FOUND Route r: spec.rules[0].backendRefs[0].name: Service books is deleted by the same change`,
				`IN_USE Service books: Route books refers to it at spec.rules[0].backendRefs[0].name`,
			}},
		"by what the same change leaves as it was": {transact([]*weirv1.Resource{route("books", "public", to("books", "v1"))}, ref("Service", "books")),
			[]string{`NOT_FOUND Route books: spec.rules[0].backendRefs[0].name: Service books is deleted by the same change`}},

		"unless the user of it goes too": {transact(nil, ref("Service", "books"), ref("Route", "books"), ref("Policy", "stamp")), nil},
		"unless the user of it moves":    {transact([]*weirv1.Resource{service("paper"), route("books", "public", to("paper", ""))}, ref("Service", "books")), nil},
		"a subset nobody uses":           {transact([]*weirv1.Resource{service("books", "v1")}), nil},
		"a listener nobody names":        {transact([]*weirv1.Resource{gateway("public", "http")}), nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b, _ := shop(t)
			result := b.entry(test.command)[0]
			if test.want == nil {
				accepted(t, result)
				return
			}
			requireRefused(t, result, test.want...)
		})
	}
}

func namelessRule(r *weirv1.Resource) *weirv1.Resource {
	r.GetRoute().Spec.Rules[0].Name = ""
	return r
}

func TestListenerThatMovesFromThePortThatIsNamed(t *testing.T) {
	b := open(t)
	r := route("r", "public")
	r.GetRoute().Spec.ParentRefs[0].Port = 8080
	b.put(gateway("public", "http"), r)
	moved := gateway("public", "http")
	moved.GetGateway().Spec.Listeners[0].Port = 9090
	requireRefused(t, b.entry(transact([]*weirv1.Resource{moved}))[0],
		`IN_USE Gateway public: Route r would point at nothing at spec.parentRefs[0].port: Gateway public has no listener on port 8080`)
}

// A listener that turns to bytes takes from the routes that name it what only HTTP
// has.
func TestListenerThatTurnsToBytes(t *testing.T) {
	b := open(t)
	r := route("r", "public")
	r.GetRoute().Spec.ParentRefs[0].SectionName = "http"
	r.GetRoute().Spec.Rules[0].Matches = []*weirv1.RouteMatch{{Method: "GET"}}
	b.put(gateway("public", "http"), r)
	turned := gateway("public", "http")
	turned.GetGateway().Spec.Listeners[0].Protocol = weirv1.Listener_TCP
	requireRefused(t, b.entry(transact([]*weirv1.Resource{turned}))[0],
		`IN_USE Gateway public: Route r would point at nothing at spec.rules[0].matches: is for HTTP, and the listener "http" of Gateway public speaks TCP`)
}

func TestManyReferrersAreCounted(t *testing.T) {
	b := open(t)
	b.put(gateway("public", "http"))
	var routes []*weirv1.Resource
	for i := range 20 {
		routes = append(routes, route(fmt.Sprintf("r%02d", i), "public"))
	}
	b.put(routes...)
	requireRefused(t, b.entry(transact(nil, ref("Gateway", "public")))[0], `IN_USE Gateway public: `+
		`Route r00 refers to it at spec.parentRefs[0].name; Route r01 refers to it at spec.parentRefs[0].name; `+
		`Route r02 refers to it at spec.parentRefs[0].name; 17 more`)
}

func TestReferrersFollowEveryChange(t *testing.T) {
	b, digest := shop(t)
	referrers := func(to resource.Ref) []resource.Ref { return slices.Collect(b.View().Referrers(to)) }
	requireSame(t, []resource.Ref{ref("Route", "books")}, referrers(ref("Service", "books")))
	requireSame(t, []resource.Ref{ref("Plugin", "stamp")}, referrers(blobRef(digest)))

	b.put(service("paper"), route("books", "public", to("paper", "")))
	requireSame(t, []resource.Ref(nil), referrers(ref("Service", "books")))
	requireSame(t, []resource.Ref{ref("Route", "books")}, referrers(ref("Service", "paper")))

	b.delete(ref("Policy", "stamp"), ref("Route", "books"))
	requireSame(t, []resource.Ref(nil), referrers(ref("Service", "paper")))
	requireSame(t, []resource.Ref(nil), referrers(ref("Plugin", "stamp")))
}
