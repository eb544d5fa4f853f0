package balancer

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
)

func count(n, choices int, choose func() int) []int {
	counts := make([]int, n)
	for range choices {
		counts[choose()]++
	}
	return counts
}

func TestSplitIsExactInEveryRound(t *testing.T) {
	for _, c := range []struct {
		weights []uint32
		round   int
		want    []int
	}{
		{[]uint32{1}, 1, []int{1}},
		{[]uint32{1, 1}, 2, []int{1, 1}},
		{[]uint32{90, 10}, 10, []int{9, 1}},
		{[]uint32{50, 0, 25}, 3, []int{2, 0, 1}},
		{[]uint32{0, 7, 0}, 1, []int{0, 1, 0}},
		{[]uint32{1, 2, 3, 4}, 10, []int{1, 2, 3, 4}},
		{[]uint32{1_000_000, 1_000_000, 3_000_000}, 5, []int{1, 1, 3}},
	} {
		s := NewSplit(c.weights)
		for range 5 {
			if got := count(len(c.weights), c.round, s.Next); !slices.Equal(got, c.want) {
				t.Errorf("%v: a round is %v, want %v", c.weights, got, c.want)
			}
		}
	}
}

// Whatever the weights, the share after any number of choices is off by a few
// choices, where chance would be off by hundreds.
func TestSplitIsEvenAllTheTime(t *testing.T) {
	for _, weights := range [][]uint32{
		{90, 10}, {997, 3}, {1_000_000, 1}, {999_983, 500_009, 7}, {math.MaxUint32, math.MaxUint32 - 1}, {1, 2, 3, 4, 5, 6, 7, 8, 9},
	} {
		s, total, counts := NewSplit(weights), 0.0, make([]int, len(weights))
		for _, w := range weights {
			total += float64(w)
		}
		for n := 1; n <= 100_000; n++ {
			counts[s.Next()]++
			for i, w := range weights {
				want := float64(n) * float64(w) / total
				if off := math.Abs(float64(counts[i]) - want); off > 8 {
					t.Fatalf("%v: after %d choices index %d was chosen %d times, want %.1f", weights, n, i, counts[i], want)
				}
			}
		}
	}
}

func TestNothingToChoose(t *testing.T) {
	for _, weights := range [][]uint32{nil, {}, {0}, {0, 0, 0}} {
		if got := NewSplit(weights).Next(); got != None {
			t.Errorf("Split of %v chooses %d", weights, got)
		}
		for name, p := range pickers(weights, idle{}) {
			if got := p.Pick(0, Tried{}.Add(0)); got != None {
				t.Errorf("%s of %v chooses %d", name, weights, got)
			}
		}
	}
}

func TestSplitIsExactWhenManyChoose(t *testing.T) {
	s := NewSplit([]uint32{3, 1})
	results := make(chan int, 4)
	var choosers sync.WaitGroup
	for range 4 {
		choosers.Go(func() { results <- count(2, 1000, s.Next)[0] })
	}
	choosers.Wait()
	close(results)
	first := 0
	for n := range results {
		first += n
	}
	if first != 3000 {
		t.Errorf("4,000 choices of {3, 1} were the first %d times, want 3,000", first)
	}
}

type idle struct{}

func (idle) InFlight(int) int64 { return 0 }

func pickers(weights []uint32, loads Loads) map[string]Picker {
	ring, maglev := NewRing(names(len(weights)), weights, RingSize{Min: 4096, Max: 1 << 16}), NewMaglev(names(len(weights)), weights)
	return map[string]Picker{
		"RoundRobin": NewRoundRobin(weights), "LeastRequest": NewLeastRequest(weights, loads), "Random": NewRandom(weights),
		"Ring": ring, "Maglev": maglev,
		"bounded Ring": NewBounded(ring, 100, loads), "bounded Maglev": NewBounded(maglev, 100, loads),
	}
}

func TestPickersKeepToTheWeights(t *testing.T) {
	weights := []uint32{1, 0, 3, 6}
	for name, p := range pickers(weights, idle{}) {
		key := uint64(0)
		got := count(4, 100_000, func() int { key++; return p.Pick(mix(key), Tried{}) })
		for i, w := range weights {
			if want := 10_000 * int(w); math.Abs(float64(got[i]-want)) > 2500 {
				t.Errorf("%s: index %d was chosen %d times, want about %d", name, i, got[i], want)
			}
		}
	}
}

func TestPickersAvoidWhatWasTried(t *testing.T) {
	for name, p := range pickers([]uint32{1, 1, 0, 1000}, idle{}) {
		for key := range uint64(200) {
			key = mix(key)
			first := p.Pick(key, Tried{})
			second := p.Pick(key, Tried{}.Add(first))
			third := p.Pick(key, Tried{}.Add(first).Add(second))
			if got := []int{first, second, third}; !isPermutation(got, 0, 1, 3) {
				t.Fatalf("%s: tries %v", name, got)
			}
			if again := p.Pick(key, Tried{}.Add(0).Add(1).Add(3)); again == None || again == 2 {
				t.Fatalf("%s: when all were tried, chooses %d", name, again)
			}
		}
	}
	for name, p := range pickers([]uint32{5}, idle{}) {
		if got := p.Pick(0, Tried{}.Add(0)); got != 0 {
			t.Errorf("%s: the only endpoint is not tried again: %d", name, got)
		}
	}
}

func isPermutation(got []int, want ...int) bool {
	return slices.Equal(slices.Sorted(slices.Values(got)), want)
}

func TestTriedRemembersTheLastFour(t *testing.T) {
	var tried Tried
	if tried.Has(0) {
		t.Error("none has 0")
	}
	for i := range 6 {
		tried = tried.Add(i)
	}
	for i := range 7 {
		if want := i >= 2 && i < 6; tried.Has(i) != want {
			t.Errorf("after 0 to 5, Has(%d) is %v", i, tried.Has(i))
		}
	}
}

// busy has a fixed load on each endpoint.
type busy []int64

func (b busy) InFlight(i int) int64 { return b[i] }

func TestLeastRequestTakesTheLessLoaded(t *testing.T) {
	for _, c := range []struct {
		weights []uint32
		loads   busy
		avoided int
	}{
		{[]uint32{1, 1}, busy{5, 4}, 0},
		{[]uint32{1, 1, 1}, busy{0, 9, 0}, 1},
		{[]uint32{10, 1}, busy{20, 3}, 1}, // 2 a share against 3
		{[]uint32{10, 1}, busy{40, 3}, 0},
	} {
		p := NewLeastRequest(c.weights, c.loads)
		if got := count(len(c.weights), 1000, func() int { return p.Pick(0, Tried{}) }); got[c.avoided] > 0 {
			t.Errorf("weights %v, loads %v: chooses %v", c.weights, c.loads, got)
		}
	}
}

func TestLeastRequestTakesTheLoadedBeforeTheTried(t *testing.T) {
	p := NewLeastRequest(Even(2), busy{9, 0})
	for range 100 {
		if got := p.Pick(0, Tried{}.Add(1)); got != 0 {
			t.Fatalf("chooses %d, which was tried", got)
		}
	}
}

func TestChoosingAllocatesNothing(t *testing.T) {
	s := NewSplit([]uint32{999_983, 17})
	if n := testing.AllocsPerRun(100, func() { s.Next() }); n != 0 {
		t.Errorf("Split allocates %v times", n)
	}
	for name, p := range pickers([]uint32{1, 2, 3}, busy{1, 2, 3}) {
		if n := testing.AllocsPerRun(100, func() { p.Pick(7, Tried{}.Add(p.Pick(7, Tried{}))) }); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func BenchmarkSplit(b *testing.B) {
	for _, weights := range [][]uint32{{1}, {90, 10}, {999_983, 17}} {
		b.Run(fmt.Sprint(weights), func(b *testing.B) {
			s := NewSplit(weights)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					s.Next()
				}
			})
		})
	}
}

func BenchmarkPick(b *testing.B) {
	for name, p := range pickers(Even(100), make(busy, 100)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Pick(0, Tried{})
			}
		})
	}
}
