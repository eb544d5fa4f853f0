package ledger

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

var minute = Limit{Requests: 100, Window: time.Minute}

func ask(node string, sequence, held, used, want uint64) Ask {
	return Ask{Node: node, Epoch: 1, Sequence: sequence, LeaseAsk: &weirv1.LeaseAsk{WindowStart: 60, WindowSeconds: 60, Held: held, Used: used, Want: want}}
}

// at is a time in the window that begins after a minute.
func at(seconds float64) int64 { return int64((60 + seconds) * 1e9) }

// What is asked one after the other, in one window.
func TestGrant(t *testing.T) {
	type step struct {
		ask             Ask
		held, remaining uint64
		exhausted       bool
	}
	for name, steps := range map[string][]step{
		"a first ask gets what it wants": {
			{ask("a", 1, 0, 0, 10), 10, 90, false},
		},
		"one that wants all gets half of what remains": {
			{ask("a", 1, 0, 0, 1000), 50, 50, false},
			{ask("a", 2, 50, 50, 1000), 75, 25, false},
			{ask("b", 1, 0, 0, 1000), 6, 19, false},
		},
		"the last one goes to who asks": {
			{ask("a", 1, 99, 99, 5), 100, 0, true},
			{ask("b", 1, 0, 0, 5), 0, 0, false}, // a has not said that it has used the last
			{ask("a", 2, 100, 100, 5), 100, 0, true},
			{ask("b", 2, 0, 0, 5), 0, 0, true},
		},
		"what is given back others get": {
			{ask("a", 1, 100, 20, 0), 100, 0, true},
			{ask("b", 1, 0, 0, 5), 0, 0, false},
			{ask("a", 2, 30, 20, 0), 30, 70, false},
			{ask("b", 2, 0, 0, 5), 5, 65, false},
		},
		"an ask that comes twice changes nothing": {
			{ask("a", 1, 0, 0, 10), 10, 90, false},
			{ask("a", 1, 0, 0, 10), 10, 90, false},
		},
		"one that is overtaken changes nothing": {
			{ask("a", 2, 10, 3, 5), 15, 85, false},
			{ask("a", 1, 0, 0, 50), 15, 85, false},
		},
		"a grant that was lost is no one's": {
			{ask("a", 1, 0, 0, 10), 10, 90, false},
			{ask("a", 2, 0, 0, 10), 10, 90, false},
		},
		"a proxy that starts again holds nothing of what it held": {
			{ask("a", 1, 0, 0, 10), 10, 90, false},
			{Ask{Node: "a", Epoch: 2, Sequence: 1, LeaseAsk: &weirv1.LeaseAsk{Want: 10}}, 10, 80, false},
		},
		"what has passed already is counted": {
			{ask("a", 1, 120, 120, 0), 120, 0, true},
			{ask("b", 1, 0, 0, 1), 0, 0, true},
		},
		"what is held of another window is not": {
			{Ask{Node: "a", Epoch: 1, Sequence: 1, LeaseAsk: &weirv1.LeaseAsk{WindowSeconds: 60, Held: 40, Want: 1}}, 1, 99, false},
		},
		"what has passed since another window is": {
			{Ask{Node: "a", Epoch: 1, Sequence: 1, LeaseAsk: &weirv1.LeaseAsk{WindowSeconds: 60, Held: 40, Beyond: 7, Want: 1}}, 8, 92, false},
		},
		"and what has passed since this one, as the proxy thought": {
			{Ask{Node: "a", Epoch: 1, Sequence: 1, LeaseAsk: &weirv1.LeaseAsk{WindowStart: 60, WindowSeconds: 60, Held: 40, Beyond: 7}}, 47, 53, false},
		},
		"what a proxy has forgotten it has used": {
			{ask("a", 1, 30, 30, 0), 30, 70, false},
			{Ask{Node: "a", Epoch: 1, Sequence: 2, LeaseAsk: &weirv1.LeaseAsk{Since: 2, Want: 5}}, 5, 65, false},
			{Ask{Node: "a", Epoch: 1, Sequence: 3, LeaseAsk: &weirv1.LeaseAsk{Since: 2, Want: 5}}, 5, 65, false}, // the answer was lost
		},
	} {
		t.Run(name, func(t *testing.T) {
			var r *weirv1.LeaseRecord
			for i, s := range steps {
				var g *weirv1.LeaseGrant
				r, g = Grant(r, minute, at(10), s.ask)
				if g.GetHeld() != s.held || g.GetRemaining() != s.remaining || g.GetExhausted() != s.exhausted {
					t.Errorf("step %d: %v, want %+v", i, g, s)
				}
				if g.GetWindowStart() != 60 || g.GetWindowSeconds() != 60 || g.GetEnds().AsDuration() != 50*time.Second || g.GetLasts().AsDuration() > 49300*time.Millisecond || g.GetLasts().AsDuration() < 49*time.Second {
					t.Errorf("step %d: the window is %v", i, g)
				}
			}
		})
	}
}

// A window that ends leaves nothing but who has been there.
func TestWindowsFollow(t *testing.T) {
	r, _ := Grant(nil, minute, at(59), ask("a", 7, 90, 80, 10))
	r, g := Grant(r, minute, at(61), ask("b", 1, 5, 5, 10))
	if g.GetWindowStart() != 120 || g.GetHeld() != 10 || g.GetRemaining() != 90 {
		t.Errorf("the next window: %v", g)
	}
	if again, g := Grant(r, minute, at(62), ask("a", 7, 90, 80, 10)); g.GetHeld() != 0 || Granted(again) != 10 {
		t.Errorf("a late copy has got %v", g)
	}
	if later, g := Grant(r, minute, at(3600), ask("b", 2, 10, 10, 1)); g.GetHeld() != 1 || len(later.GetHolders()) != 1 {
		t.Errorf("after an hour there are %v", later)
	}
}

// Another length, declared while a window is open, does not give it twice.
func TestWindowsOfAnotherLength(t *testing.T) {
	r, _ := Grant(nil, minute, at(10), ask("a", 1, 60, 0, 0))
	_, g := Grant(r, Limit{Requests: 100, Window: time.Hour}, at(11), ask("a", 2, 60, 60, 100))
	if g.GetHeld() != 20 || g.GetRemaining() != 20 { // half of the 40 that are left
		t.Errorf("got %v", g)
	}
}

func TestHoldersAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("it asks some ten thousand times")
	}
	r := &weirv1.LeaseRecord{WindowStart: 60, WindowSeconds: 60}
	for i := range maxHolders {
		r.Holders = append(r.Holders, &weirv1.LeaseHolder{Node: fmt.Sprint(i), Held: 1})
	}
	limit := Limit{Requests: 2 * maxHolders, Window: time.Minute}
	r, _ = Grant(r, limit, at(0), ask("new", 1, 0, 0, 1))
	if len(r.GetHolders()) != maxHolders || r.GetLost() != 1 || Granted(r) != maxHolders+1 {
		t.Errorf("%d holders, %d lost, %d granted", len(r.GetHolders()), r.GetLost(), Granted(r))
	}
}

// hand is a proxy as the ledger's promise sees it: what it was told it may admit in a
// window, by the newest answer that reached it.
type hand struct {
	name       string
	epoch      uint64
	sequence   uint64
	start      uint64
	held, used uint64
	sent       []Ask // under way, perhaps for ever, perhaps more than once
}

// Proxies ask, admit, give back, die and start again; what they send is lost, doubled
// and reordered, and so are the answers; clocks jump and leaders change. In no window is
// more admitted than its limit.
func TestNeverMoreThanTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := Limit{Requests: rapid.Uint64Range(1, 60).Draw(t, "requests"), Window: time.Duration(rapid.IntRange(1, 30).Draw(t, "window")) * time.Second}
		var clock *weirv1.LeaseClock
		var record *weirv1.LeaseRecord
		hands := []*hand{{name: "a", epoch: 1}, {name: "b", epoch: 1}, {name: "c", epoch: 1}}
		servers := []*server{{name: "1"}, {name: "2", skew: time.Second}, {name: "3", skew: -time.Second}}
		admitted := map[uint64]uint64{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			h := rapid.SampledFrom(hands).Draw(t, "proxy")
			for _, s := range servers {
				s.runs += time.Duration(rapid.IntRange(0, 900).Draw(t, "ms")) * time.Millisecond
			}
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0, 1, 2, 3: // ask; a copy of it, or of an earlier one, is what comes
				want := rapid.Uint64Range(0, 40).Draw(t, "want")
				h.sequence++
				h.sent = append(h.sent, Ask{Node: h.name, Epoch: h.epoch, Sequence: h.sequence, LeaseAsk: &weirv1.LeaseAsk{
					WindowStart: h.start, WindowSeconds: limit.seconds(), Held: h.held, Used: h.used, Want: want}})
				comes := h.sent[len(h.sent)-1]
				if rapid.IntRange(0, 3).Draw(t, "late") == 0 {
					comes = rapid.SampledFrom(h.sent).Draw(t, "which")
				}
				s := rapid.SampledFrom(servers).Draw(t, "leader")
				before := Now(clock)
				clock = Tick(clock, s.name, s.wall(), s.runs)
				if Now(clock) < before {
					t.Fatalf("time runs back, from %d to %d", before, Now(clock))
				}
				was := proto.CloneOf(record)
				next, grant := Grant(record, limit, Now(clock), comes)
				if !proto.Equal(was, record) {
					t.Fatalf("the record before has changed: %v, it was %v", record, was)
				}
				record = next
				if granted := Granted(record); granted > limit.Requests {
					t.Fatalf("%d are granted of %d", granted, limit.Requests)
				}
				lost := rapid.IntRange(0, 3).Draw(t, "answer") == 0
				if !lost && comes.Sequence == h.sequence && comes.Epoch == h.epoch {
					if grant.GetWindowStart() != h.start {
						h.start, h.held, h.used = grant.GetWindowStart(), grant.GetHeld(), 0
					}
					h.held = grant.GetHeld()
				}
			case 4, 5, 6, 7: // admit
				n := min(rapid.Uint64Range(1, 30).Draw(t, "admit"), h.held-h.used)
				h.used += n
				admitted[h.start] += n
			case 8: // give back; that it does so may never be heard
				h.held -= rapid.Uint64Range(0, h.held-h.used).Draw(t, "back")
			case 9:
				switch s := rapid.SampledFrom(servers).Draw(t, "server"); rapid.IntRange(0, 3).Draw(t, "trouble") {
				case 0: // the proxy dies and starts again
					*h = hand{name: h.name, epoch: h.epoch + 1, sent: h.sent}
				case 1: // somebody sets a server's clock
					s.skew = time.Duration(rapid.IntRange(-7200, 7200).Draw(t, "skew")) * time.Second
				case 2: // a server starts again
					s.name, s.runs, s.began = s.name+"'", 0, s.began+s.runs
				}
			}
			for start, n := range admitted {
				if n > limit.Requests {
					t.Fatalf("%d were admitted of %d in the window from %d", n, limit.Requests, start)
				}
			}
		}
	})
}

type server struct {
	name        string
	began, runs time.Duration
	skew        time.Duration
}

func (s *server) wall() time.Time { return time.Unix(100_000, 0).Add(s.began + s.runs + s.skew) }

// A clock that somebody sets opens no window early while its process goes on, and stops
// none; the two agree again some day.
func TestClocksThatAreSet(t *testing.T) {
	for name, skew := range map[string]time.Duration{"an hour ahead": time.Hour, "an hour behind": -time.Hour, "a second behind": -time.Second} {
		t.Run(name, func(t *testing.T) {
			s := &server{name: "1"}
			clock := Tick(nil, s.name, s.wall(), s.runs)
			s.skew = skew
			r := rand.New(rand.NewPCG(1, 2))
			for range 1000 {
				step := time.Duration(r.IntN(500)) * time.Millisecond
				s.runs += step
				before := Now(clock)
				clock = Tick(clock, s.name, s.wall(), s.runs)
				passed := time.Duration(Now(clock) - before)
				if passed > step+step/bendForward || passed < step-step/bendBack-1 {
					t.Fatalf("%s passed, and for the ledger %s", step, passed)
				}
			}
			apart := time.Duration(Now(clock) - s.wall().UnixNano()).Abs()
			if apart >= skew.Abs() || skew == -time.Second && apart != 0 {
				t.Errorf("they are %s apart", apart)
			}
		})
	}
}

// A server that takes over with a clock that is behind goes on where time is; one
// whose clock is ahead is believed.
func TestClocksOfOthers(t *testing.T) {
	clock := Tick(nil, "1", time.Unix(1000, 0), time.Second)
	clock = Tick(clock, "2", time.Unix(400, 0), time.Second)
	if now := Now(clock); now != 1000e9 {
		t.Errorf("behind: it is %d", now)
	}
	clock = Tick(clock, "2", time.Unix(408, 0), 9*time.Second)
	if now := Now(clock); now != 1007e9 {
		t.Errorf("eight seconds later it is %d", now)
	}
	clock = Tick(clock, "3", time.Unix(2000, 0), 0)
	if now := Now(clock); now != 2000e9 {
		t.Errorf("ahead: it is %d", now)
	}
	for i := range 100 {
		clock = Tick(clock, fmt.Sprint("n", i), time.Unix(2000, 0), 0)
	}
	if n := len(clock.GetSources()); n != maxSources {
		t.Errorf("%d sources are remembered", n)
	}
	for name, wall := range map[string]time.Time{"before the epoch": time.Unix(-1e10, 0), "the year 9999": time.Unix(253402300799, 0), "no time": {}} {
		after := Tick(clock, name, wall, -time.Hour)
		if Now(after) < Now(clock) || Now(after) > maxTime {
			t.Errorf("%s: it is %d", name, Now(after))
		}
	}
}
