package nodeapi

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func openTestRoster(t *testing.T, dir, name string, configured ...string) *roster {
	t.Helper()
	r, err := openRoster(dir, name, configured)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRosterKeepsWhatServersSay(t *testing.T) {
	dir := t.TempDir()
	r := openTestRoster(t, dir, "e1", "old:7400")
	list := []string{"c:7400", "a:7400", "b:7400", "a:7400"}
	if news, err := r.learn(list); !news || err != nil {
		t.Fatal(news, err)
	}
	if news, err := r.learn([]string{"b:7400", "c:7400", "a:7400"}); news || err != nil {
		t.Fatalf("the same list is news: %v, %v", news, err)
	}
	if news, err := r.learn(nil); news || err != nil {
		t.Fatalf("nothing is news: %v, %v", news, err)
	}
	again := openTestRoster(t, dir, "e1", "new:7400").all()
	if len(again) != 4 || again[3] != "new:7400" || !slices.Equal(again[:3], r.all()[:3]) {
		t.Fatalf("after a restart: %v, before it %v", again, r.all())
	}
	r.demote(again[0])
	if all := r.all(); all[len(all)-1] != again[0] || len(all) != 4 {
		t.Fatalf("after %s has failed: %v", again[0], all)
	}
	r.demote("unknown:1")
}

func TestRosterSpreadsProxies(t *testing.T) {
	first := map[string]int{}
	for i := range 300 {
		first[openTestRoster(t, t.TempDir(), fmt.Sprintf("e%d", i), "a:1", "b:1", "c:1").all()[0]]++
	}
	for address, n := range first {
		if n < 50 {
			t.Errorf("%s is first for %d of 300: %v", address, n, first)
		}
	}
	if len(first) != 3 {
		t.Error(first)
	}
}

func TestRosterRefuses(t *testing.T) {
	many := make([]string, maxServers+1)
	for i := range many {
		many[i] = fmt.Sprintf("h%d:1", i)
	}
	r := openTestRoster(t, t.TempDir(), "e1", "a:1")
	for name, list := range map[string][]string{
		"no port": {"host"}, "no host": {":7400"}, "port 0": {"a:0"}, "a line break": {"a\nb:1"}, "too long": {strings.Repeat("a", 300) + ":1"}, "too many": many,
		"a name for a port": {"a:http"},
	} {
		if _, err := r.learn(list); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if !slices.Equal(r.all(), []string{"a:1"}) {
		t.Errorf("it is %v", r.all())
	}
}

func TestRosterThatIsDamaged(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, rosterName), []byte("a:1\n\x00\xff"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := openRoster(dir, "e1", []string{"b:1"})
	if err == nil {
		t.Fatal("it was read")
	}
	if all := r.all(); !slices.Equal(all, []string{"b:1"}) {
		t.Fatalf("it knows %v", all)
	}
}

// What is read can be learnt and read again.
func FuzzServers(f *testing.F) {
	f.Add([]byte("a:1\nb:2\n"))
	f.Add([]byte("[::1]:7400"))
	f.Add([]byte(":\n::1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseServers(data)
		if err != nil {
			return
		}
		dir := t.TempDir()
		r := &roster{path: filepath.Join(dir, rosterName)}
		if _, err := r.learn(list); err != nil {
			t.Fatal(err)
		}
		again, err := openRoster(dir, "", nil)
		if err != nil || !slices.Equal(again.learned, r.learned) {
			t.Fatalf("%q became %q, %v", list, again.learned, err)
		}
	})
}
