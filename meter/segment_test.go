package meter

import (
	"os"
	"path/filepath"
	"testing"
)

// Who was late counts nothing in a segment that is sealed, and is told so.
func TestASealedSegmentDoesNotChange(t *testing.T) {
	s, err := createSegment(filepath.Join(t.TempDir(), "a"), name{epoch{1}, 1}, slotsPerSegment)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := seriesOf(answer("s", "o", 200))
	hash := key.hashed()
	if found, _ := s.count(&key, hash); found {
		t.Fatal("a series is found that was not added")
	}
	s.add(&key, hash, 41)
	if found, sealed := s.count(&key, hash); !found || sealed {
		t.Fatalf("counted: %v, %v", found, sealed)
	}
	if err := s.seal(); err != nil {
		t.Fatal(err)
	}
	if found, sealed := s.count(&key, hash); !found || !sealed {
		t.Errorf("after it is sealed: found %v, sealed %v", found, sealed)
	}
	data, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := readSegment(data)
	if err != nil || len(c.counts) != 1 || c.counts[0].GetCount() != 42 {
		t.Errorf("read %v, %v; want one counter of 42", c, err)
	}
}

// What the servers would refuse does not get into a segment.
func TestNamesAreClean(t *testing.T) {
	for text, want := range map[string]string{"listBooks": "listBooks", "a\x00b\n": "a\ufffdb\ufffd", "\xff": "\ufffd"} {
		if got := clip(text, 64); got != want {
			t.Errorf("%q became %q", text, got)
		}
	}
}
