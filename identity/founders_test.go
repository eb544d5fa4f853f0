package identity

import (
	"os"
	"path/filepath"
	"testing"
)

// A founder that starts again knows whom it founded the cluster with, though
// none of them tells it so any more.
func TestAFounderKnowsTheOthersAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "founders")
	committed := `[{"name":"a","address":"10.0.0.1:7400"},{"name":"b","address":"10.0.0.2:7400"}]`
	if err := os.WriteFile(path, []byte(committed), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := NewFounders(path, Founder{Name: "a", Address: "10.0.0.1:7400"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	got := f.Committed()
	if len(got) != 2 || got[0].Name != "a" || got[1].Name != "b" {
		t.Errorf("it is committed to %v", got)
	}
	fresh, err := NewFounders(path+"-2", Founder{Name: "a", Address: "10.0.0.1:7400"}, 2)
	if err != nil {
		t.Fatal(err)
	}
	if got := fresh.Committed(); got != nil {
		t.Errorf("a founder that has met nobody is committed to %v", got)
	}
}
