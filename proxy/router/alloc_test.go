//go:build !race

package router_test

import "testing"

// Under the race detector a sync.Pool forgets at random, so this is not for it.
func TestMatchAllocatesNothing(t *testing.T) {
	tab := newTable(t, public(), route("a", "*.shop.example", on("~/f[a-z]+ x~a,.b ?n~a.b"), on("/foo/bar POST")))
	x := request("GET A.Shop.Example:80/foo?n=a%20b", "x: a", "x: b")
	if got := match(tab, 80, x); got != "a/0" {
		t.Fatalf("got rule %q", got)
	}
	if n := testing.AllocsPerRun(100, func() { tab.Match(80, x) }); n != 0 {
		t.Errorf("Match allocates %v times", n)
	}
}
