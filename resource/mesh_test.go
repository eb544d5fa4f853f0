package resource

import (
	"strings"
	"testing"
)

// FuzzMatchesID: a pattern without a star matches itself alone.
func FuzzMatchesID(f *testing.F) {
	f.Add("spiffe://td/ns/*/svc/shop", "spiffe://td/ns/default/svc/shop")
	f.Add("spiffe://td/ns/default/svc/shop", "spiffe://td/ns/default/svc/shop")
	f.Add("*", "")
	f.Fuzz(func(t *testing.T, pattern, id string) {
		got := MatchesID(pattern, id)
		if !strings.Contains(pattern, "*") && got != (pattern == id) {
			t.Errorf("%q matches %q: %v", pattern, id, got)
		}
		if got && strings.Count(id, "/") < strings.Count(pattern, "/") {
			t.Errorf("%q matches the shorter %q", pattern, id)
		}
	})
}
