package balancer

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// names are those of n endpoints.
func names(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("10.0.%d.%d:8080", i/250, i%250)
	}
	return all
}

// tables are what both hashes make of the same endpoints.
func tables(names []string, weights []uint32) map[string]Picker {
	return map[string]Picker{"Ring": NewRing(names, weights, RingSize{Min: 8192, Max: 1 << 16}), "Maglev": NewMaglev(names, weights)}
}

func TestAHashLeadsToTheSame(t *testing.T) {
	for name, p := range tables(names(20), Even(20)) {
		again := tables(names(20), Even(20))[name]
		for key := range uint64(1000) {
			if a, b := p.Pick(mix(key), Tried{}), again.Pick(mix(key), Tried{}); a != b {
				t.Fatalf("%s: key %d leads to %d in one proxy and %d in another", name, key, a, b)
			}
		}
	}
}

// Which endpoint a key leads to depends on the endpoints, not on how they are listed.
func TestTheOrderOfEndpointsDoesNotMatter(t *testing.T) {
	listed := names(20)
	reversed := slices.Clone(listed)
	slices.Reverse(reversed)
	for name, p := range tables(listed, Even(20)) {
		other := tables(reversed, Even(20))[name]
		for key := range uint64(2000) {
			if a, b := listed[p.Pick(mix(key), Tried{})], reversed[other.Pick(mix(key), Tried{})]; a != b {
				t.Fatalf("%s: key %d leads to %s or %s", name, key, a, b)
			}
		}
	}
}

// The paper's table is within a percent of even.
func TestMaglevIsEven(t *testing.T) {
	for _, n := range []int{2, 7, 100, 500} {
		m := NewMaglev(names(n), Even(n))
		counts := make([]int, n)
		for _, i := range m.table {
			counts[i]++
		}
		if least, most := slices.Min(counts), slices.Max(counts); most-least > 1 {
			t.Errorf("%d endpoints have from %d to %d places", n, least, most)
		}
	}
}

func TestMaglevKeepsToTheWeights(t *testing.T) {
	weights := []uint32{1, 2, 0, 7, 90}
	counts := make([]float64, len(weights))
	for _, i := range NewMaglev(names(len(weights)), weights).table {
		counts[i]++
	}
	for i, w := range weights {
		if want := maglevSize * float64(w) / 100; math.Abs(counts[i]-want) > 2 {
			t.Errorf("weight %d has %v places, want %v", w, counts[i], want)
		}
	}
}

func TestARingIsWithinItsBounds(t *testing.T) {
	for _, c := range []struct {
		weights []uint32
		size    RingSize
		least   int
		most    int
	}{
		{Even(3), RingSize{1024, 65536}, 1024, 1026},
		{Even(3), RingSize{1, 65536}, 3, 3},
		{Even(1000), RingSize{1024, 65536}, 2000, 2000},
		{Even(1000), RingSize{1024, 1024}, 1000, 1100},
		{[]uint32{1, 1_000_000}, RingSize{1024, 65536}, 65536, 65537}, // not a million
	} {
		r := NewRing(names(len(c.weights)), c.weights, c.size)
		if n := len(r.points); n < c.least || n > c.most {
			t.Errorf("%d endpoints, %v: %d points, want %d to %d", len(c.weights), c.size, n, c.least, c.most)
		}
	}
}

// An endpoint that leaves takes its own keys away and few others.
func TestAChangeDisturbsLittle(t *testing.T) {
	const n, keys = 50, 50_000
	before, after := Even(n), Even(n)
	after[17] = 0
	for name, p := range tables(names(n), before) {
		q := tables(names(n), after)[name]
		own, moved := 0, 0
		for key := range uint64(keys) {
			a, b := p.Pick(mix(key), Tried{}), q.Pick(mix(key), Tried{})
			switch {
			case b == 17:
				t.Fatalf("%s: key %d leads to an endpoint that is gone", name, key)
			case a == 17:
				own++
			case a != b:
				moved++
			}
		}
		if moved > keys*3/100 {
			t.Errorf("%s: %d keys of others moved, of %d", name, moved, keys)
		}
		if own < keys/n/2 || own > keys/n*2 {
			t.Errorf("%s: the endpoint had %d of %d keys", name, own, keys)
		}
	}
}

// counted has a load that follows the choices.
type counted []int64

func (c counted) InFlight(i int) int64 { return c[i] }

// However unequal the keys, no endpoint has more than its share times the factor.
func TestBoundedLoads(t *testing.T) {
	const n, requests = 10, 1000
	for name, p := range tables(names(n), Even(n)) {
		loads := make(counted, n)
		b := NewBounded(p.(table), 1.25, loads)
		for range requests {
			loads[b.Pick(42, Tried{})]++ // all for one key
		}
		if most, allowed := slices.Max(loads), int64(math.Ceil(1.25*requests/n)); most > allowed {
			t.Errorf("%s: one endpoint has %d requests, allowed are %d", name, most, allowed)
		}
		if first := p.Pick(42, Tried{}); loads[first] != slices.Max(loads) {
			t.Errorf("%s: the key's own endpoint has %d", name, loads[first])
		}
	}
}

func TestBoundedPrefersTheBusyToTheTried(t *testing.T) {
	loads := counted{0, 9}
	b := NewBounded(NewMaglev(names(2), Even(2)), 1, loads)
	for key := range uint64(50) {
		if got := b.Pick(mix(key), Tried{}.Add(0)); got != 1 {
			t.Fatalf("chooses %d, which was tried", got)
		}
	}
}

func BenchmarkMaglevTable(b *testing.B) {
	for _, n := range []int{3, 100, 1000} {
		list, weights := names(n), Even(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				NewMaglev(list, weights)
			}
		})
	}
}
