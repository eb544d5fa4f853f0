package overload

import (
	"log/slog"
	"runtime/debug"
	"testing"
	"time"
)

func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// What is alive counts, and only that: garbage does not, however much of it there
// is; and when it is let go of, that is noticed.
func TestWhatIsAliveCounts(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	limit := (&Monitor{samples: newSamples()}).measure() + 200<<20
	m := Start(limit, slog.New(slog.NewTextHandler(t.Output(), nil)))
	defer m.Close()
	for range 500 {
		garbage = make([]byte, 4<<20) // 2 GB in all
	}
	garbage = nil
	if s := m.Stats(); s.Shedding || s.Times > 0 {
		t.Fatalf("garbage counts: %+v", s)
	}
	for n := 0; !m.Shedding() && n < 190; n++ {
		kept = append(kept, make([]byte, 1<<20))
		time.Sleep(time.Millisecond)
	}
	waitFor(t, "it does not shed", m.Shedding)
	kept = nil
	waitFor(t, "it sheds for ever", func() bool { return !m.Shedding() })
	if s := m.Stats(); s.Times != 1 || s.Limit != limit {
		t.Errorf("got %+v", s)
	}
}

var (
	garbage []byte
	kept    [][]byte
)

func TestNoMonitorNeverSheds(t *testing.T) {
	var m *Monitor
	m.Close()
	if m.Shedding() || m.Stats() != (Stats{}) {
		t.Error("it sheds")
	}
}
