//go:build linux

package powercut

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// tornVolume has a file whose every page was overwritten since it was synced,
// and a file that was renamed from a to b; then the power was cut.
func tornVolume(t *testing.T, seed uint64, content func(byte) []byte) (*volume, Report) {
	t.Helper()
	v := newVolume(false)
	f, g := v.inode(typeFile|0o600, 0, 0), v.inode(typeFile|0o600, 0, 0)
	if errno := v.add(v.root, "f", f); errno != 0 {
		t.Fatal(errno)
	}
	if errno := v.add(v.root, "a", g); errno != 0 {
		t.Fatal(errno)
	}
	f.write(content(1), 0)
	v.sync(f)
	v.sync(v.root)
	f.write(content(2), 0)
	if errno := v.rename(name{v.root, "a"}, name{v.root, "b"}, true); errno != 0 {
		t.Fatal(errno)
	}
	return v, v.crash(newRandom(seed), false)
}

// A file that was overwritten, page by page, and a rename: what each of many
// seeds leaves must be possible, and all that is possible must come about.
func TestSeedsTearWritesAtPages(t *testing.T) {
	const pages = 8
	content := func(version byte) []byte { return bytes.Repeat([]byte{version}, pages*pageSize) }
	outcome := func(seed uint64) (kept int, report Report) {
		v, d := tornVolume(t, seed, content)
		report = d
		f := v.root.entries["f"]
		data := f.read(make([]byte, 2*pages*pageSize), 0)
		if len(data) != pages*pageSize {
			t.Fatalf("seed %d: %d bytes", seed, len(data))
		}
		for i := range pages {
			page := data[i*pageSize : (i+1)*pageSize]
			if bytes.Count(page, page[:1]) != pageSize {
				t.Errorf("seed %d: page %d is mixed", seed, i)
			}
			kept += int(page[0] - 1)
		}
		if a, b := v.root.entries["a"] != nil, v.root.entries["b"] != nil; a == b {
			t.Errorf("seed %d: after a rename the old name is there: %v, the new: %v", seed, a, b)
		}
		return kept, report
	}
	seen := map[int]bool{}
	for seed := range uint64(100) {
		kept, report := outcome(seed)
		seen[kept] = true
		if report.KeptPages != kept || report.LostPages != pages-kept {
			t.Errorf("seed %d: %d of %d pages kept, the report has %+v", seed, kept, pages, report)
		}
		if again, _ := outcome(seed); again != kept {
			t.Errorf("seed %d kept %d pages, then %d", seed, kept, again)
		}
	}
	if len(seen) != pages+1 {
		t.Errorf("of 0 to %d pages, 100 seeds kept only these numbers: %v", pages, slices.Sorted(maps.Keys(seen)))
	}
}

// A size may survive without its pages, and pages without their size: what lay
// behind the end must not come to light when the file grows again.
func TestSeedsKeepSizesApartFromPages(t *testing.T) {
	sizes := map[int64]bool{}
	for seed := range uint64(50) {
		v := newVolume(false)
		f := v.inode(typeFile|0o600, 0, 0)
		f.write([]byte("old"), 0)
		v.add(v.root, "f", f)
		v.sync(f)
		v.sync(v.root)
		f.write(bytes.Repeat([]byte{'n'}, 2*pageSize), 3)
		v.crash(newRandom(seed), false)
		size := f.now.size
		sizes[size] = true
		f.truncate(4 * pageSize)
		data := f.read(make([]byte, 4*pageSize), 0)
		if string(data[:3]) != "old" || len(bytes.Trim(data[size:], "\x00")) > 0 {
			t.Errorf("seed %d: a file of %d bytes, grown, has %.9q behind its end", seed, size, data[size:])
		}
	}
	if !sizes[3] || !sizes[2*pageSize+3] || len(sizes) != 2 {
		t.Errorf("the sizes were %v", sizes)
	}
}

// A name's later change never survives an earlier one.
func TestSeedsKeepTheOrderOfAName(t *testing.T) {
	outcomes := map[string]bool{}
	for seed := range uint64(100) {
		v := newVolume(false)
		first, second := v.inode(typeFile|0o600, 0, 0), v.inode(typeFile|0o600, 0, 0)
		v.add(v.root, "a", first)
		v.rename(name{v.root, "a"}, name{v.root, "b"}, true)
		v.add(v.root, "a", second)
		v.crash(newRandom(seed), false)
		is := map[*inode]string{nil: "-", first: "1", second: "2"}
		outcomes[is[v.root.entries["a"]]+is[v.root.entries["b"]]] = true
	}
	want := map[string]bool{"--": true, "1-": true, "-1": true, "21": true}
	if diff := cmp.Diff(want, outcomes); diff != "" {
		t.Errorf("what a and b were, over all seeds (-want +got):\n%s", diff)
	}
}

func TestSeedsKeepNamesOneByOneOrInOrder(t *testing.T) {
	for _, journal := range []bool{false, true} {
		gaps, outcomes := 0, map[int]bool{}
		for seed := range uint64(100) {
			v := newVolume(journal)
			const names = 6
			for i := range names {
				if errno := v.add(v.root, fmt.Sprint(i), v.inode(typeFile|0o600, 0, 0)); errno != 0 {
					t.Fatal(errno)
				}
			}
			v.crash(newRandom(seed), false)
			outcomes[len(v.root.entries)] = true
			for i := 1; i < names; i++ {
				if v.root.entries[fmt.Sprint(i)] != nil && v.root.entries[fmt.Sprint(i-1)] == nil {
					gaps++
				}
			}
		}
		if len(outcomes) < 5 || (gaps == 0) != journal {
			t.Errorf("journal %v: a later name without the one before it: %d times; numbers kept %v", journal, gaps, outcomes)
		}
	}
}
