package health_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirmesh/weir/proxy/health"
)

// ward is a registry whose probes are answered by the test.
type ward struct {
	*health.Registry
	t      *testing.T
	probes atomic.Int64
	told   atomic.Int64
	mu     sync.Mutex
	ill    map[string]bool
	log    bytes.Buffer
}

func newWard(t *testing.T) *ward {
	w := &ward{t: t, ill: map[string]bool{}}
	w.Registry = health.NewRegistry(health.Config{Logger: slog.New(slog.NewTextHandler(w, nil))})
	return w
}

func (w *ward) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(line)
}

// Ask implements health.Question.
func (w *ward) Ask(_ context.Context, address string) error {
	w.probes.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ill[address] {
		return errors.New("ill")
	}
	return nil
}

// Equal implements health.Question.
func (w *ward) Equal(other health.Question) bool { return other == w }

func (w *ward) set(address string, ill bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ill[address] = ill
}

func (w *ward) join(s health.Settings) *health.Seat {
	return w.Join("shop/books", s, func() { w.told.Add(1) })
}

// expect is about members after all that is due has happened.
func (w *ward) expect(when string, m *health.Member, healthy bool) {
	w.t.Helper()
	synctest.Wait()
	if got, _ := m.Health(); got != healthy {
		w.t.Errorf("%s: healthy is %v", when, got)
	}
}

// events counts log lines.
func (w *ward) events(msg string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.log.String(), fmt.Sprintf("msg=%q", msg))
}

func (w *ward) every(d time.Duration) *health.Check {
	return &health.Check{Interval: d, Timeout: d, Unhealthy: 3, Healthy: 2, Question: w}
}

func TestChecksTurnByTheThresholds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t)
		defer w.Close()
		seat := w.join(health.Settings{Check: w.every(time.Second)})
		defer seat.Leave()
		m := seat.Add("a")
		defer seat.Remove(m)
		if healthy, _ := m.Health(); healthy {
			t.Error("it is healthy before it was asked")
		}
		w.expect("the first check decides", m, true)
		time.Sleep(time.Second / 2) // from now on between two checks
		w.set("a", true)
		time.Sleep(2 * time.Second)
		w.expect("two failures are not three", m, true)
		w.set("a", false)
		time.Sleep(time.Second)
		w.set("a", true)
		time.Sleep(2 * time.Second)
		w.expect("a success between begins anew", m, true)
		time.Sleep(time.Second)
		w.expect("three failures", m, false)
		time.Sleep(time.Minute)
		w.set("a", false)
		time.Sleep(time.Second)
		w.expect("one success is not two", m, false)
		time.Sleep(time.Second)
		w.expect("two successes", m, true)
		if _, since := m.Health(); time.Since(since) != time.Second/2 {
			t.Errorf("healthy since %v ago", time.Since(since))
		}
		if h, u := w.events("endpoint healthy"), w.events("endpoint unhealthy"); h != 2 || u != 1 {
			t.Errorf("logged %d times healthy and %d times unhealthy", h, u)
		}
	})
}

func TestChecksAreSpreadByJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t)
		defer w.Close()
		seat := w.join(health.Settings{Check: &health.Check{Interval: time.Second, Timeout: time.Second, Jitter: 0.5, Unhealthy: 1, Healthy: 1, Question: w}})
		defer seat.Leave()
		defer seat.Remove(seat.Add("a"))
		time.Sleep(1000 * time.Second)
		if n := w.probes.Load(); n < 900 || n > 1150 {
			t.Errorf("%d checks in 1,000 intervals", n)
		}
	})
}

// hanging is a question that is never answered.
type hanging struct{}

// Ask implements health.Question.
func (hanging) Ask(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }

// Equal implements health.Question.
func (hanging) Equal(other health.Question) bool { return other == hanging{} }

// A question that is not answered is ended by the timeout.
func TestAHangingEndpointIsUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t)
		defer w.Close()
		seat := w.join(health.Settings{Check: &health.Check{Interval: time.Hour, Timeout: time.Second, Unhealthy: 1, Healthy: 1, Question: hanging{}}})
		defer seat.Leave()
		m := seat.Add("a")
		defer seat.Remove(m)
		time.Sleep(time.Second)
		w.expect("after the timeout", m, false)
		if s := w.States(); len(s) != 1 || s[0].Failed != 1 || !strings.Contains(s[0].Reason, "deadline") {
			t.Errorf("states %+v", s)
		}
	})
}

// What is known of an endpoint outlives the seats of one generation.
func TestANewGenerationKnowsWhatTheOldOneDid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t)
		defer w.Close()
		w.set("a", true)
		first := w.join(health.Settings{Check: w.every(time.Second)})
		m := first.Add("a")
		w.expect("it is ill", m, false)
		second := w.join(health.Settings{Check: w.every(time.Minute)})
		if again := second.Add("a"); again != m {
			t.Error("it is another member")
		}
		first.Remove(m)
		first.Leave()
		w.expect("it still is", m, false)
		before := w.probes.Load()
		time.Sleep(10 * time.Minute)
		if n := w.probes.Load() - before; n < 9 || n > 12 {
			t.Errorf("%d checks in ten minutes: the new interval is not in force", n)
		}
		third := w.join(health.Settings{})
		w.expect("what is not asked is healthy", m, true)
		third.Leave() // as one that was compiled and refused
		w.expect("the second's settings are back", m, false)
		second.Remove(m)
		second.Leave()
		if s := w.States(); len(s) != 0 {
			t.Errorf("left behind: %+v", s)
		}
		before = w.probes.Load()
		time.Sleep(time.Hour)
		if w.probes.Load() != before {
			t.Error("it is still asked")
		}
	})
}

func detect(change func(*health.Outlier)) health.Settings {
	o := &health.Outlier{Consecutive5xx: 3, Interval: 10 * time.Second, Base: 30 * time.Second, Max: 70 * time.Second, MaxPercent: 10}
	if change != nil {
		change(o)
	}
	return health.Settings{Outlier: o}
}

func report(m *health.Member, statuses ...int) {
	for _, s := range statuses {
		m.Report(s)
	}
}

func TestWhatEjects(t *testing.T) {
	for _, c := range []struct {
		name     string
		settings health.Settings
		statuses []int
		ejected  bool
	}{
		{"three errors", detect(nil), []int{500, 503, 0}, true},
		{"two", detect(nil), []int{500, 503}, false},
		{"a success between", detect(nil), []int{500, 503, 404, 500, 500}, false},
		{"the client's errors", detect(nil), []int{400, 404, 429, 499}, false},
		{"gateway errors", detect(func(o *health.Outlier) { o.Consecutive5xx, o.ConsecutiveGatewayErrors = 0, 2 }), []int{502, 504}, true},
		{"another error between", detect(func(o *health.Outlier) { o.Consecutive5xx, o.ConsecutiveGatewayErrors = 0, 2 }), []int{502, 500, 503}, false},
		{"no detection", health.Settings{}, []int{500, 500, 500, 500, 500}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWard(t)
				defer w.Close()
				seat := w.join(c.settings)
				defer seat.Leave()
				m := seat.Add("a")
				defer seat.Remove(m)
				told := w.told.Load()
				report(m, c.statuses...)
				w.expect(c.name, m, !c.ejected)
				if c.ejected != (w.events("endpoint ejected") == 1) || c.ejected != (w.told.Load() > told) {
					t.Errorf("logged %d times, told %d times", w.events("endpoint ejected"), w.told.Load()-told)
				}
			})
		})
	}
}

// Each ejection is longer than the one before, until time forgives.
func TestEjectionsGrowAndAreForgiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t)
		defer w.Close()
		seat := w.join(detect(nil))
		defer seat.Leave()
		m := seat.Add("a")
		defer seat.Remove(m)
		for _, span := range []time.Duration{30 * time.Second, 60 * time.Second, 70 * time.Second, 70 * time.Second} {
			report(m, 500, 500, 500)
			time.Sleep(span - time.Second)
			w.expect("it is out", m, false)
			time.Sleep(time.Second)
			w.expect("it has returned", m, true)
		}
		time.Sleep(35 * time.Second) // three of four are forgiven
		report(m, 500, 500, 500)
		time.Sleep(59 * time.Second)
		w.expect("it is out as for the second time", m, false)
		time.Sleep(time.Second)
		w.expect("it has returned", m, true)
		if n := w.events("endpoint returned"); n != 5 {
			t.Errorf("logged %d returns", n)
		}
	})
}

func TestHowManyMayBeOut(t *testing.T) {
	for _, c := range []struct {
		members int
		percent uint32
		want    int
	}{{1, 10, 1}, {5, 0, 1}, {9, 10, 1}, {20, 10, 2}, {10, 50, 5}, {10, 100, 10}} {
		t.Run(fmt.Sprintf("%d of %d%%", c.members, c.percent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWard(t)
				defer w.Close()
				seat := w.join(detect(func(o *health.Outlier) { o.MaxPercent = c.percent }))
				defer seat.Leave()
				for i := range c.members {
					m := seat.Add(fmt.Sprint(i))
					defer seat.Remove(m)
				}
				for i := range c.members {
					m := seat.Add(fmt.Sprint(i))
					report(m, 0, 0, 0)
					seat.Remove(m)
				}
				if out := ejected(w.States()); out != c.want {
					t.Errorf("%d are out, want %d", out, c.want)
				}
			})
		})
	}
}

func ejected(states []health.State) (out int) {
	for _, s := range states {
		if s.Ejected {
			out++
		}
	}
	return out
}

// Whatever comes in whatever order, no more are out than may be, all return,
// and nothing is left behind.
func TestRandomRunsKeepTheBounds(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomRun(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func randomRun(t *testing.T, r *rand.Rand) {
	w := newWard(t)
	defer w.Close()
	percent := uint32(r.IntN(101))
	seat := w.join(detect(func(o *health.Outlier) { o.MaxPercent = percent }))
	var members []*health.Member
	for i := range 1 + r.IntN(30) {
		members = append(members, seat.Add(fmt.Sprint(i)))
	}
	allowed := max(1, len(members)*int(percent)/100)
	for range 2000 {
		m := members[r.IntN(len(members))]
		m.Report([]int{200, 404, 500, 503, 0}[r.IntN(5)])
		if out := ejected(w.States()); out > allowed {
			t.Fatalf("%d of %d are out; at most %d%% may", out, len(members), percent)
		}
		if r.IntN(10) == 0 {
			time.Sleep(time.Duration(r.IntN(20)) * time.Second)
		}
	}
	time.Sleep(time.Hour)
	synctest.Wait()
	if out := ejected(w.States()); out != 0 {
		t.Errorf("%d are still out", out)
	}
	for _, m := range members {
		seat.Remove(m)
	}
	seat.Leave()
	if s := w.States(); len(s) != 0 {
		t.Errorf("left behind: %+v", s)
	}
}

func TestReportAllocatesNothing(t *testing.T) {
	for name, settings := range map[string]health.Settings{"none": {}, "detection": detect(nil)} {
		w := newWard(t)
		seat := w.join(settings)
		m := seat.Add("a")
		if n := testing.AllocsPerRun(100, func() { report(m, 200, 500, 200) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		seat.Remove(m)
		seat.Leave()
		w.Close()
	}
}
