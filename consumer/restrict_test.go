package consumer_test

import (
	"slices"
	"testing"
	"time"

	"github.com/weirmesh/weir/consumer"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// What a change takes from somebody is so before the rest of it is, and nobody gets
// anything by that.
func TestRestrict(t *testing.T) {
	const may = "demo-1 of demo by demo-free to free, limits 1"
	long, short := noon.Add(2*time.Hour), noon.Add(-time.Hour)
	api := resource.Wrap(&weirv1.Api{Metadata: meta("books"), Spec: &weirv1.ApiSpec{}})
	for name, c := range map[string]struct {
		whole     bool
		puts      []*weirv1.Resource
		deletes   []resource.Ref
		k1, k2    string
		concerned []string
	}{
		"a key is revoked":                {deletes: []resource.Ref{gone("Credential", "demo-1")}, k1: "unknown", concerned: []string{"Credential demo-1"}},
		"one that is not known yet":       {deletes: []resource.Ref{gone("Credential", "demo-2")}, concerned: []string{"Credential demo-2"}},
		"a key ends sooner":               {puts: []*weirv1.Resource{credential("demo-1", "demo", "k1", short)}, k1: "expired", concerned: []string{"Credential demo-1"}},
		"a key gets an end":               {puts: []*weirv1.Resource{credential("demo-1", "demo", "k1", long)}, concerned: []string{"Credential demo-1"}},
		"a key is another":                {puts: []*weirv1.Resource{credential("demo-1", "demo", "k2")}, k1: "unknown", concerned: []string{"Credential demo-1"}},
		"a key is another App's":          {puts: []*weirv1.Resource{app("other", ""), credential("demo-1", "other", "k1")}, k1: "unknown", concerned: []string{"Credential demo-1"}},
		"a new key":                       {puts: []*weirv1.Resource{credential("demo-2", "demo", "k2")}},
		"a subscription is suspended":     {puts: []*weirv1.Resource{subscription("demo-free", "demo", "free", suspended)}, k1: "no_subscription", concerned: []string{"Subscription demo-free"}},
		"a subscription goes":             {deletes: []resource.Ref{gone("Subscription", "demo-free")}, k1: "no_subscription", concerned: []string{"Subscription demo-free"}},
		"it goes with its Api":            {deletes: []resource.Ref{gone("Subscription", "demo-free"), gone("Api", "books")}},
		"it goes as its Api changes":      {puts: []*weirv1.Resource{api}, deletes: []resource.Ref{gone("Subscription", "demo-free")}},
		"a Plan has the Api no more":      {puts: []*weirv1.Resource{plan("free")}},
		"what is no consumer's goes":      {deletes: []resource.Ref{gone("Route", "demo-1")}},
		"all there is":                    {whole: true, puts: []*weirv1.Resource{credential("demo-1", "demo", "k1"), credential("demo-2", "demo", "k2")}},
		"all there is, and the key isn't": {whole: true, puts: []*weirv1.Resource{credential("demo-2", "demo", "k2")}, k1: "unknown", concerned: []string{"Credential demo-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := consumer.NewRegistry()
			r.Apply([]*weirv1.Resource{app("demo", "acme"), plan("free", "books"), subscription("demo-free", "demo", "free", 0), credential("demo-1", "demo", "k1")}, nil)
			var concerned []string
			for _, ref := range r.Restrict(c.whole, c.puts, c.deletes) {
				concerned = append(concerned, ref.String())
			}
			if !slices.Equal(concerned, c.concerned) {
				t.Errorf("it concerns %v, want %v", concerned, c.concerned)
			}
			if c.k1 == "" {
				c.k1 = may
			}
			for key, want := range map[string]string{"k1": c.k1, "k2": "unknown"} {
				if got := say(r, "books", key); got != want {
					t.Errorf("%s: got %q, want %q", key, got, want)
				}
			}
		})
	}
}
