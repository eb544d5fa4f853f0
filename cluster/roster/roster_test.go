package roster

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func open(t *testing.T, path string) *Roster {
	t.Helper()
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func merge(t *testing.T, r *Roster, want bool, entries ...Entry) {
	t.Helper()
	if changed, err := r.Merge(entries...); err != nil || changed != want {
		t.Fatalf("merge: changed %t, %v", changed, err)
	}
}

func TestNewerEntriesWin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "roster")
	r := open(t, path)
	merge(t, r, true, Entry{"b", "b:1", 13, 5}, Entry{"a", "a:1", 13, 5})
	merge(t, r, false, Entry{"a", "a:0", 13, 4}, Entry{"a", "a:9", 13, 5}, Entry{"", "nobody:1", 13, 9})
	merge(t, r, true, Entry{"a", "a:2", 14, 6})
	want := []Entry{{"a", "a:2", 14, 6}, {"b", "b:1", 13, 5}}
	for _, r := range []*Roster{r, open(t, path)} {
		if got := r.List(); !slices.Equal(got, want) {
			t.Errorf("entries are %v, want %v", got, want)
		}
	}
	if e, found := r.Get("a"); !found || e != want[0] {
		t.Errorf("a is %v", e)
	}
}

func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "roster")
	merge(t, open(t, path), true, Entry{"a", "a:1", 13, 1})
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole {
		damaged := slices.Clone(whole)
		damaged[at] ^= 4
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Open(path)
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Fatalf("byte %d: error is %v", at, err)
		}
		if len(r.List()) > 0 {
			t.Errorf("byte %d: it holds %v", at, r.List())
		}
	}
}

// FuzzDecodeFile: foreign bytes are an error or entries, never a panic; entries
// come back as they were.
func FuzzDecodeFile(f *testing.F) {
	f.Add(EncodeFile(nil), true)
	f.Add(EncodeFile([]Entry{{"a", "a:1", 13, 7}, {"b", "", 0, 1 << 63}}), false)
	f.Fuzz(func(t *testing.T, data []byte, whole bool) {
		decode := Decode
		if whole {
			decode = DecodeFile
		}
		entries, err := decode(data)
		if err != nil {
			return
		}
		again, err := DecodeFile(EncodeFile(entries))
		if err != nil || !slices.Equal(entries, again) {
			t.Errorf("%v came back as %v, %v", entries, again, err)
		}
	})
}
