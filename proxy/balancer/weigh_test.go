package balancer

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// members reads a line of them: lower case is another zone, upper case the
// proxy's own; h is healthy, x is not. Each has the weight 1.
func members(line string) []Member {
	var all []Member
	for _, c := range line {
		all = append(all, Member{Weight: 1, Healthy: strings.ContainsRune("hH", c), Local: strings.ContainsRune("HX", c)})
	}
	return all
}

func TestWeigh(t *testing.T) {
	for _, c := range []struct {
		name, members string
		terms         Terms
		want          []float64 // shares of 100
		panic         bool
	}{
		{"all are well", "hhhh", Terms{PanicThreshold: 50}, []float64{25, 25, 25, 25}, false},
		{"the ill have nothing", "hhhx", Terms{PanicThreshold: 50}, []float64{100. / 3, 100. / 3, 100. / 3, 0}, false},
		{"half is no panic", "hhxx", Terms{PanicThreshold: 50}, []float64{50, 50, 0, 0}, false},
		{"less is", "hxxx", Terms{PanicThreshold: 50}, []float64{25, 25, 25, 25}, true},
		{"none is", "xx", Terms{PanicThreshold: 50}, []float64{50, 50}, true},
		{"unless it never is", "xx", Terms{}, []float64{0, 0}, false},
		{"nobody is no panic", "", Terms{PanicThreshold: 50}, nil, false},
		{"the own zone has all", "HHhh", Terms{PreferLocal: true}, []float64{50, 50, 0, 0}, false},
		{"also when it is smaller", "Hhhh", Terms{PreferLocal: true}, []float64{100, 0, 0, 0}, false},
		{"one of four down is made up for", "HHHXhh", Terms{PreferLocal: true}, []float64{100. / 3, 100. / 3, 100. / 3, 0, 0, 0}, false},
		{"half of it down is not", "HXhh", Terms{PreferLocal: true}, []float64{70, 0, 15, 15}, false},
		{"all of it down fails over", "XXhh", Terms{PreferLocal: true}, []float64{0, 0, 50, 50}, false},
		{"no other zone to go to", "HXxx", Terms{PreferLocal: true}, []float64{100, 0, 0, 0}, false},
		{"a zone where there is none of it", "hh", Terms{PreferLocal: true}, []float64{50, 50}, false},
		{"panic knows no zones", "HXxx", Terms{PreferLocal: true, PanicThreshold: 50}, []float64{25, 25, 25, 25}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			weights, panic := Weigh(members(c.members), c.terms)
			if panic != c.panic {
				t.Errorf("panic: %v", panic)
			}
			expectShares(t, weights, c.want)
		})
	}
}

func expectShares(t *testing.T, weights []uint32, want []float64) {
	t.Helper()
	total := 0.0
	for _, w := range weights {
		total += float64(w)
	}
	for i, w := range weights {
		if got := float64(w) / max(total, 1) * 100; math.Abs(got-want[i]) > 0.01 {
			t.Errorf("weights %v: share %d is %.2f, want %.2f", weights, i, got, want[i])
		}
	}
}

func TestWeightsThatAreWholeStayAsTheyAre(t *testing.T) {
	weights, _ := Weigh([]Member{{Weight: 90, Healthy: true}, {Weight: 10, Healthy: true}, {Weight: 0, Healthy: true}}, Terms{})
	if !slices.Equal(weights, []uint32{90, 10, 0}) {
		t.Errorf("got %v", weights)
	}
}

func TestNoShareIsRoundedToNothing(t *testing.T) {
	weights, _ := Weigh([]Member{{Weight: 1_000_000, Healthy: true}, {Weight: 1. / 3, Healthy: true}}, Terms{})
	if weights[1] == 0 {
		t.Errorf("got %v", weights)
	}
}

func TestWhatIsGrowing(t *testing.T) {
	weights, _ := Weigh([]Member{{Weight: 1, Healthy: true}, {Weight: 1, Healthy: true, Grown: 0.25}}, Terms{})
	expectShares(t, weights, []float64{80, 20})
	for _, c := range []struct{ part, aggression, least, want float64 }{
		{0, 1, 0.1, 0.1}, {-1, 1, 0.1, 0.1}, {0.05, 1, 0.1, 0.1}, {0.5, 1, 0.1, 0.5}, {1, 1, 0.1, 1}, {7, 1, 0.1, 1},
		{0.25, 2, 0.1, 0.5}, {0.25, 0.5, 0.01, 0.0625},
	} {
		if got := Grown(c.part, c.aggression, c.least); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("Grown(%v, %v, %v) is %v, want %v", c.part, c.aggression, c.least, got, c.want)
		}
	}
}
