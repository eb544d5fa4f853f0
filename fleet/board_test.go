package fleet

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func report(proxies ...*weirv1.ProxyStatus) *weirv1.MemberReport {
	return &weirv1.MemberReport{Member: &weirv1.ClusterMember{Name: "b"}, Proxies: proxies}
}

// Whatever a status comes to tell of, a change of it is news.
func TestEveryFieldOfAStatusIsNews(t *testing.T) {
	fields := new(weirv1.ProxyStatus).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		a, b := new(weirv1.ProxyStatus), new(weirv1.ProxyStatus)
		field, r := fields.Get(i), b.ProtoReflect()
		switch {
		case field.IsMap():
			r.Mutable(field).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString("v"))
		case field.IsList():
			r.Mutable(field).List().AppendMutable()
		case field.Kind() == protoreflect.StringKind:
			r.Set(field, protoreflect.ValueOfString("x"))
		case field.Kind() == protoreflect.BoolKind:
			r.Set(field, protoreflect.ValueOfBool(true))
		case field.Kind() == protoreflect.Uint64Kind:
			r.Set(field, protoreflect.ValueOfUint64(1))
		default:
			b.LastSeen = timestamppb.New(time.Unix(1, 0))
			if field.Name() != "last_seen" {
				t.Fatalf("this test does not know how to fill %s", field.Name())
			}
		}
		if sameStatus(a, b) {
			t.Errorf("a change of %s is none", field.Name())
		}
		if !proto.Equal(b, sighting{status: b, connected: b.GetConnected(), seen: b.GetLastSeen().AsTime()}.asStatus()) && !b.GetConnected() {
			t.Errorf("%s gets lost", field.Name())
		}
		b.Connected = true
		if got := (sighting{status: b, connected: true, seen: b.GetLastSeen().AsTime()}).asStatus(); !sameStatus(got, b) {
			t.Errorf("%s of a connected proxy gets lost", field.Name())
		}
	}
}

func TestWhatIsMeasuredIsNoNews(t *testing.T) {
	b, now := newBoard(), time.Now()
	first := report(connected("e1", 1), away("e2", 1, now))
	if !b.post(first) {
		t.Fatal("the first report is no news")
	}
	second := report(connected("e1", 1), away("e2", 1, now))
	second.Member.LogSyncP99, second.DiskFree, second.Now = durationpb.New(time.Second), 7, timestamppb.Now()
	if b.post(second) {
		t.Error("it is news")
	}
	if got := b.answer(b.version, now); got.GetReport().GetDiskFree() != 7 {
		t.Errorf("got %v", got)
	}
	second = report(connected("e1", 1), away("e2", 1, now))
	second.Member.State = weirv1.ClusterMember_LEADER
	if !b.post(second) {
		t.Error("that it leads is no news")
	}
	// A name that two bear does not change without end.
	both := []*weirv1.ProxyStatus{connected("e1", 1), away("e1", 9, now)}
	b.post(report(both...))
	if slices.Reverse(both); b.post(report(both...)) {
		t.Error("the order of two of one name is news")
	}
}

// A board that forgets what was removed tells everything to who may not know.
func TestBoardForgetsWhatWasRemoved(t *testing.T) {
	b := newBoard()
	b.post(report(connected("e1", 1)))
	old := b.version
	for n := 0; n <= maxRemoved; n += 100 {
		var many []*weirv1.ProxyStatus
		for i := range 100 {
			many = append(many, connected(fmt.Sprint(n+i), 1))
		}
		b.post(report(append(many, connected("e1", 1))...))
	}
	b.post(report(connected("e1", 1)))
	if len(b.removed) > maxRemoved {
		t.Fatalf("it remembers %d", len(b.removed))
	}
	if m := b.answer(old, time.Now()); !m.GetFull() || len(m.GetReport().GetProxies()) != 1 {
		t.Errorf("got %v", m)
	}
	if m := b.answer(b.version, time.Now()); m.GetFull() {
		t.Errorf("got %v", m)
	}
}

func testFleet(t testing.TB) (*Fleet, *peer, *diary) {
	log := &diary{out: t.Output()}
	f := New(Config{Name: "a", Logger: slog.New(slog.NewTextHandler(log, nil))})
	p := newPeer(t.Context(), f, Member{Name: "b"})
	t.Cleanup(f.end)
	t.Cleanup(p.stop)
	f.peers["b"] = p
	return f, p, log
}

// And not at all where they are over soon, as when members start at the same time.
func TestFailuresAreLoggedOnce(t *testing.T) {
	f, p, log := testFleet(t)
	p.failed(errors.New("it is starting"))
	p.hear(new(weirv1.ReportResponse), time.Now(), time.Now())
	if log.count("member") != 0 {
		t.Error("a short failure is logged")
	}
	for range 2 {
		p.failed(errors.New("first"))
		p.since = p.since.Add(-mayLag)
		p.failed(errors.New("still first"))
		p.failed(errors.New("second"))
		if r := f.Reports()[0]; r.Err == nil || r.Err.Error() != "second" {
			t.Errorf("got %+v", r)
		}
		p.hear(new(weirv1.ReportResponse), time.Now(), time.Now())
	}
	if lost, back := log.count("member does not answer"), log.count("member answers again"); lost != 2 || back != 2 {
		t.Errorf("%d failures and %d returns in the log", lost, back)
	}
}

func TestSilentMember(t *testing.T) {
	f, p, _ := testFleet(t)
	heard := time.Now()
	p.hear(&weirv1.ReportResponse{Version: 1, Full: true, Report: report(connected("e1", 1), away("e2", 2, heard))}, heard, heard)
	if again := f.markSilent(heard.Add(silentAfter - time.Millisecond)); again != time.Millisecond {
		t.Errorf("the next look is in %s", again)
	}
	statuses, changed := f.Statuses()
	if got := texts(statuses); !slices.Equal(got, []string{"e1@1", "-e2@2"}) {
		t.Fatalf("got %q", got)
	}
	f.markSilent(heard.Add(silentAfter))
	select {
	case <-changed:
	default:
		t.Error("that it is silent is no change")
	}
	statuses, changed = f.Statuses()
	if got := texts(statuses); !slices.Equal(got, []string{"-e1@1", "-e2@2"}) || !statuses[0].GetLastSeen().AsTime().Equal(heard) {
		t.Fatalf("got %v", statuses)
	}
	p.hear(&weirv1.ReportResponse{Version: 1}, heard, heard)
	select {
	case <-changed:
	default:
		t.Error("that it speaks is no change")
	}
	statuses, _ = f.Statuses()
	if got := texts(statuses); !slices.Equal(got, []string{"e1@1", "-e2@2"}) {
		t.Fatalf("got %q", got)
	}
}

func TestProxyThatTwoMembersKnow(t *testing.T) {
	early, late := time.Unix(100, 0), time.Unix(200, 0)
	for name, test := range map[string]struct{ ours, theirs, want *weirv1.ProxyStatus }{
		"it is connected here":            {connected("e", 1), away("e", 2, late), connected("e", 1)},
		"it is connected there":           {away("e", 2, late), connected("e", 1), connected("e", 1)},
		"it is gone, and was here last":   {away("e", 1, late), away("e", 2, early), away("e", 1, late)},
		"it is gone, and was there last":  {away("e", 1, early), away("e", 2, late), away("e", 2, late)},
		"it left, and we have not seen":   {connected("e", 1), connected("e", 2), connected("e", 2)},
		"it came, and they have not seen": {connected("e", 2), connected("e", 1), connected("e", 2)},
	} {
		f, p, _ := testFleet(t)
		f.board.post(report(test.ours))
		p.hear(&weirv1.ReportResponse{Version: 1, Full: true, Report: report(test.theirs)}, time.Now(), time.Now())
		statuses, _ := f.Statuses()
		if got := texts(statuses); !slices.Equal(got, []string{text(test.want)}) {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestSkew(t *testing.T) {
	sent := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return sent.Add(d) }
	for name, test := range map[string]struct {
		now  time.Time
		held time.Duration
		got  time.Time
		want time.Duration
	}{
		"the same":                  {at(10 * time.Millisecond), 0, at(20 * time.Millisecond), 0},
		"ahead":                     {at(5010 * time.Millisecond), 0, at(20 * time.Millisecond), 5 * time.Second},
		"behind":                    {at(-4990 * time.Millisecond), 0, at(20 * time.Millisecond), -5 * time.Second},
		"the answer was held back":  {at(2010 * time.Millisecond), 2 * time.Second, at(2020 * time.Millisecond), 0},
		"nobody can tell":           {at(5 * time.Second), 0, at(6 * time.Second), 0},
		"it says it held it longer": {at(time.Second), time.Hour, at(time.Second), 0},
	} {
		m := &weirv1.ReportResponse{Report: &weirv1.MemberReport{Now: timestamppb.New(test.now)}, Held: durationpb.New(test.held)}
		if got := skew(m, sent, test.got); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}

// What a server says is believed, but nothing that it says breaks another.
func FuzzHear(f *testing.F) {
	full, _ := proto.Marshal(&weirv1.ReportResponse{Version: 1, Full: true, Report: report(connected("e1", 1), connected("e1", 2))})
	news, _ := proto.Marshal(&weirv1.ReportResponse{Version: 2, Report: report(away("e2", 1, time.Now())), Removed: []string{"e1", "?"}})
	f.Add(full, news)
	f.Add([]byte{}, full)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		fleet, p, _ := testFleet(t)
		for _, data := range [][]byte{first, second} {
			m := new(weirv1.ReportResponse)
			if proto.Unmarshal(data, m) != nil {
				return
			}
			p.hear(m, time.Now(), time.Now())
			for _, name := range m.GetRemoved() {
				if _, there := p.proxies[name]; there {
					t.Fatalf("%q was removed", name)
				}
			}
			if statuses, _ := fleet.Statuses(); len(statuses) != len(p.proxies) || len(fleet.Reports()) != 1 {
				t.Fatalf("%d proxies make %d statuses", len(p.proxies), len(statuses))
			}
		}
	})
}

// What a change costs at a member with a thousand proxies: to notice it, and to
// tell of it.
func BenchmarkChangeAmongThousand(b *testing.B) {
	board := newBoard()
	proxies := make([]*weirv1.ProxyStatus, 1000)
	for i := range proxies {
		proxies[i] = connected(fmt.Sprintf("e%04d", i), 1)
	}
	board.post(report(proxies...))
	b.ReportAllocs()
	for n := uint64(2); b.Loop(); n++ {
		after := board.version
		proxies[n%1000] = connected(fmt.Sprintf("e%04d", n%1000), n)
		board.post(report(proxies...))
		if m := board.answer(after, time.Now()); len(m.GetReport().GetProxies()) != 1 {
			b.Fatal("more than one change is told")
		}
	}
}

func BenchmarkStatusesOfThreeThousand(b *testing.B) {
	f, _, _ := testFleet(b)
	for m := range 3 {
		p := newPeer(b.Context(), f, Member{Name: fmt.Sprint(m)})
		defer p.stop()
		p.live, p.proxies, f.peers[p.name] = true, map[string]*weirv1.ProxyStatus{}, p
		for i := range 1000 {
			s := connected(fmt.Sprintf("e%d-%04d", m, i), 1)
			p.proxies[s.GetName()] = s
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		f.Statuses()
	}
}

// From a change at one member to the other that hears of it, over a real port.
func BenchmarkChangeSeenByAnother(b *testing.B) {
	c := newCluster(b)
	here, there := c.start("a"), c.start("b")
	for n := uint64(1); b.Loop(); n++ {
		there.proxies.set([]*weirv1.ProxyStatus{connected("e", n)})
		here.awaitProxies(fmt.Sprintf("e@%d", n))
	}
}
