package router

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
)

// An index does what a Go map does, at every size, and an edit leaves the
// versions before it alone.
func TestIndexIsAPersistentMap(t *testing.T) {
	type version struct {
		ix   index[int]
		want map[string]int
	}
	rng := rand.New(rand.NewPCG(1, 2))
	now := version{want: map[string]int{}}
	var versions []version
	for size := 1; size <= 3000; size = size*3/2 + 1 {
		e := new(edit)
		for range size {
			k := fmt.Sprintf("k%d", rng.IntN(size))
			if rng.IntN(3) == 0 {
				now.ix.delete(e, k)
				delete(now.want, k)
			} else {
				v := rng.Int()
				now.ix.set(e, k, v)
				now.want[k] = v
			}
		}
		versions = append(versions, version{now.ix, maps.Clone(now.want)})
	}
	e := new(edit)
	for k := range now.want {
		now.ix.delete(e, k)
	}
	versions = append(versions, version{now.ix, nil})
	for i, v := range versions {
		if v.ix.n != len(v.want) {
			t.Errorf("version %d: n is %d, want %d", i, v.ix.n, len(v.want))
		}
		listed := 0
		for range v.ix.all() {
			listed++
		}
		if listed != len(v.want) {
			t.Errorf("version %d: lists %d values, want %d", i, listed, len(v.want))
		}
		for k := range 3000 {
			key := fmt.Sprintf("k%d", k)
			got, ok := v.ix.getString(key)
			if want, there := v.want[key]; got != want || ok != there {
				t.Fatalf("version %d: %s is %d, %v; want %d, %v", i, key, got, ok, want, there)
			}
		}
	}
}

func TestLengthsKnowsWhatWasAdded(t *testing.T) {
	var l lengths
	for _, n := range []int{0, 3, 64, 255} {
		l.add(n)
	}
	for n := range 400 {
		if want := n == 0 || n == 3 || n == 64 || n == 255; l.has(n) != want {
			t.Errorf("has(%d) is %v, want %v", n, l.has(n), want)
		}
	}
	l.add(300)
	if !l.has(300) || !l.has(280) || l.has(301) || l.has(254) {
		t.Error("from 256 on, every length up to the longest may be there, and none beyond it")
	}
}
