package manifest

import "testing"

func TestSuggestOfNothing(t *testing.T) {
	if got := suggest("dnsNames", nil); got != "none is expected here" {
		t.Errorf("got %q", got)
	}
}
