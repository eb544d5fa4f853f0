package meter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// servers take reports, each segment once, as those of a cluster do.
type servers struct {
	mu    sync.Mutex
	seen  map[name]bool
	total map[series]uint64
	ended []string
	fail  func(n int) error // of the nth report; after it was taken, if taken
	taken bool
	n     int
}

func newServers() *servers { return &servers{seen: map[name]bool{}, total: map[series]uint64{}} }

func (s *servers) report(_ context.Context, m *weirv1.ReportUsageRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	var err error
	if s.fail != nil {
		if err = s.fail(s.n); err != nil && !s.taken {
			return err
		}
	}
	for _, segment := range m.GetSegments() {
		n := name{sequence: segment.GetSequence()}
		copy(n.epoch[:], segment.GetEpoch())
		if segment.GetOldest() > segment.GetSequence() {
			return fmt.Errorf("segment %d comes after the oldest, %d", n.sequence, segment.GetOldest())
		}
		if s.seen[n] {
			continue
		}
		s.seen[n] = true
		for _, c := range segment.GetCounts() {
			s.total[series{c.GetTenant(), c.GetApp(), c.GetSubscription(), c.GetApi(), c.GetOperation(), uint8(c.GetStatusClass()), c.GetHour()}] += c.GetCount()
		}
	}
	for _, e := range m.GetEnded() {
		s.ended = append(s.ended, fmt.Sprintf("%x", e))
	}
	return err
}

func (s *servers) sum() (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, count := range s.total {
		n += count
	}
	return n
}

func config(t testing.TB, dir string) Config {
	return Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Every: 20 * time.Millisecond}
}

func openJournal(t testing.TB, cfg Config, slots int) *Journal {
	t.Helper()
	j, err := open(cfg, slots)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// runs has the journal send until the function that it returns is called.
func (j *Journal) runs(report Report) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); j.Run(ctx, report) }()
	return func() { cancel(); <-done }
}

// answer is an exchange that is about to be answered.
func answer(subscription, operation string, status int) *exchange.Exchange {
	x := &exchange.Exchange{Start: time.Unix(3600*1000, 0), Api: "default/books", Operation: operation,
		Consumer: &exchange.Consumer{Tenant: "default", App: "demo", Subscription: subscription}}
	x.Response.Status = status
	return x
}

func files(t testing.TB, dir, suffix string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came to be: %s", what)
		}
	}
}

func TestWhatIsCountedAsWhat(t *testing.T) {
	of := func(change func(*exchange.Exchange)) *exchange.Exchange {
		x := answer("demo-free", "getBook", 200)
		change(x)
		return x
	}
	base := series{"default", "demo", "demo-free", "books", "getBook", 2, 1000}
	with := func(change func(*series)) *series {
		s := base
		change(&s)
		return &s
	}
	for what, c := range map[string]struct {
		x    *exchange.Exchange
		want *series
	}{
		"an answer of a service":     {of(func(*exchange.Exchange) {}), &base},
		"nobody asked":               {of(func(x *exchange.Exchange) { x.Consumer = nil }), nil},
		"a refusal by Weir":          {of(func(x *exchange.Exchange) { x.Response.Status = 429 }), with(func(s *series) { s.class = 4 })},
		"no operation":               {of(func(x *exchange.Exchange) { x.Operation = "" }), with(func(s *series) { s.operation = "-" })},
		"no Api":                     {of(func(x *exchange.Exchange) { x.Api = "" }), with(func(s *series) { s.api = "-" })},
		"another tenant's Api":       {of(func(x *exchange.Exchange) { x.Api = "other/books" }), with(func(s *series) { s.api = "other/books" })},
		"a tunnel":                   {of(func(x *exchange.Exchange) { x.Response.Status, x.Response.Tunnel = 101, tunnel{} }), with(func(s *series) { s.class = 1 })},
		"an interim answer as final": {of(func(x *exchange.Exchange) { x.Response.Status = 102 }), with(func(s *series) { s.class = 5 })},
		"a connection that is reset": {of(func(x *exchange.Exchange) { x.Response.Status, x.Response.Reset = 0, true }), nil},
	} {
		got, counts := seriesOf(c.x)
		if counts != (c.want != nil) || counts && got != *c.want {
			t.Errorf("%s is counted as %+v, %v; want %+v", what, got, counts, c.want)
		}
	}
}

type tunnel struct{ exchange.Tunnel }

func TestLongAndStrangeNamesAreStored(t *testing.T) {
	long := strings.Repeat("é", 300)
	s := series{tenant: long, app: long, subscription: long + "x", api: long, operation: long, class: 2, hour: 5}
	slot := make([]byte, slotSize)
	stored := s.stored()
	putSeries(slot, &stored)
	got, ok := getSeries(slot)
	if !ok || got != stored {
		t.Errorf("read %+v, %v; stored %+v", got, ok, stored)
	}
	if got.subscription == got.app {
		t.Error("two long names that differ at the end are one")
	}
	if s := (series{operation: "a\xffb"}).stored(); s.operation != "a\ufffdb" {
		t.Errorf("stored %q", s.operation)
	}
}

func TestCountsArriveOnce(t *testing.T) {
	dir, s := t.TempDir(), newServers()
	j := openJournal(t, config(t, dir), slotsPerSegment)
	s.taken = true
	s.fail = func(n int) error { // the answer is lost, most of the time
		if n%4 != 0 {
			return errors.New("connection lost")
		}
		return nil
	}
	stop := j.runs(s.report)
	want := map[series]uint64{}
	random := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		x := answer(fmt.Sprint("s", random.IntN(3)), fmt.Sprint("o", random.IntN(5)), 200+100*random.IntN(4))
		j.Count(x)
		key, _ := seriesOf(x)
		want[key]++
		if random.IntN(500) == 0 {
			time.Sleep(10 * time.Millisecond) // so that there are several segments
		}
	}
	eventually(t, "all of it arrives", func() bool { return s.sum() == 5000 })
	s.mu.Lock()
	s.fail = nil
	s.mu.Unlock()
	stop()
	if diff := cmp.Diff(want, s.total, cmp.AllowUnexported(series{})); diff != "" {
		t.Errorf("other counts arrived (-counted +arrived):\n%s", diff)
	}
	if len(s.seen) < 2 {
		t.Errorf("%d segments: it was not rotated", len(s.seen))
	}
	eventually(t, "what has arrived is deleted", func() bool { return len(files(t, dir, segmentSuffix)) <= 1 })
}

func TestRotationUnderLoadLosesNothing(t *testing.T) {
	s := newServers()
	j := openJournal(t, config(t, t.TempDir()), slotsPerSegment)
	var counting sync.WaitGroup
	done := make(chan struct{})
	const goroutines, each = 8, 100_000
	for g := range goroutines {
		counting.Go(func() {
			x := answer("s", "o", 200)
			for i := range each {
				x.Operation = [...]string{"a", "b", "c", "d"}[(g+i)%4]
				j.Count(x)
			}
		})
	}
	go func() { defer close(done); counting.Wait() }()
	for rotating := true; rotating; { // far more often than it ever is
		select {
		case <-done:
			rotating = false
		default:
			j.rotate()
			j.pending.send(t.Context(), s.report)
		}
	}
	j.runs(s.report)() // which sends the rest
	if s.sum() != goroutines*each {
		t.Errorf("%d of %d arrived", s.sum(), goroutines*each)
	}
}

func TestMoreSeriesThanASegmentHas(t *testing.T) {
	s := newServers()
	cfg := config(t, t.TempDir())
	cfg.Every = time.Hour // only for want of room
	j := openJournal(t, cfg, slotsOverflow+10)
	const operations, each = 200, 5
	for range each {
		for o := range operations { // nobody rotates yet
			j.Count(answer("s", fmt.Sprint("o", o), 200))
		}
	}
	if got := j.overflow.Load(); got != (operations-10)*each {
		t.Errorf("%d answers lost their operation, want %d", got, (operations-10)*each)
	}
	stop := j.runs(s.report)
	stop()
	if s.sum() != operations*each {
		t.Errorf("%d arrived, want %d", s.sum(), operations*each)
	}
	coarse := series{"default", "demo", "s", "books", Overflow, 2, 1000}
	if got := s.total[coarse]; got != (operations-10)*each {
		t.Errorf("%d arrived without their operation", got)
	}
}

func TestMoreThanThereIsRoomFor(t *testing.T) {
	s := newServers()
	j := openJournal(t, config(t, t.TempDir()), slotsOverflow+100)
	for n := range 1000 { // beyond every room of a segment
		j.Count(answer(fmt.Sprint("s", n), "o", 200))
	}
	if j.unjournaled() == 0 {
		t.Fatal("nothing is held in memory: the test is about what is")
	}
	stop := j.runs(s.report)
	for range 100 {
		j.Count(answer("s1", "o", 200))
	}
	eventually(t, "all of it arrives", func() bool { return s.sum() == 1100 })
	stop()
}

func TestServersThatCannotBeReached(t *testing.T) {
	dir, s := t.TempDir(), newServers()
	s.fail = func(int) error { return errors.New("no route to host") }
	j := openJournal(t, config(t, dir), slotsPerSegment)
	stop := j.runs(s.report)
	for n := range uint64(400) {
		j.Count(answer("s", "o", 200))
		if n%20 == 0 {
			time.Sleep(20 * time.Millisecond) // a segment's time
		}
	}
	if n := len(files(t, dir, segmentSuffix)); n > ahead+1 {
		t.Errorf("%d segments gather: it grows with time", n)
	}
	s.mu.Lock()
	s.fail = nil
	s.mu.Unlock()
	eventually(t, "all of it arrives", func() bool { return s.sum() == 400 })
	stop()
}

func TestARefusedSegmentIsSetAside(t *testing.T) {
	dir, s := t.TempDir(), newServers()
	j := openJournal(t, config(t, dir), slotsPerSegment)
	for _, o := range []string{"good", "bad", "good"} {
		j.Count(answer("s", o, 200))
		j.rotate()
	}
	stop := j.runs(func(ctx context.Context, m *weirv1.ReportUsageRequest) error {
		for _, segment := range m.GetSegments() {
			for _, c := range segment.GetCounts() {
				if c.GetOperation() == "bad" {
					return fmt.Errorf("%w: bad", ErrRefused)
				}
			}
		}
		return s.report(ctx, m)
	})
	eventually(t, "the good arrives", func() bool { return s.sum() == 2 })
	stop()
	if len(files(t, dir, refusedSuffix)) != 1 {
		t.Error("the bad one is not kept for people to look at")
	}
}

// What a process leaves that ends without a word goes to the servers with the next one,
// and no sooner than it has ended.
func TestAnotherProcessTakesOver(t *testing.T) {
	dir, s := t.TempDir(), newServers()
	first := openJournal(t, config(t, dir), slotsPerSegment)
	first.Count(answer("s", "sealed", 200))
	first.rotate()
	first.Count(answer("s", "active", 200))

	second := openJournal(t, config(t, dir), slotsPerSegment)
	stop := second.runs(s.report)
	defer stop()
	second.Count(answer("s", "second", 200))
	eventually(t, "its own arrive", func() bool { return s.sum() == 1 })
	first.Count(answer("s", "active", 200)) // they overlap

	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "those of the first arrive", func() bool { return s.sum() == 4 })
	eventually(t, "nothing is left of the first", func() bool { return len(files(t, dir, lockSuffix)) == 1 })
	s.mu.Lock()
	defer s.mu.Unlock()
	if want := []string{first.epoch.String()}; !cmp.Equal(s.ended, want) {
		t.Errorf("ended: %v, want %v", s.ended, want)
	}
}

func TestDamagedFiles(t *testing.T) {
	dir, s := t.TempDir(), newServers()
	first := openJournal(t, config(t, dir), slotsPerSegment)
	paths := map[string]string{}
	for _, what := range []string{"whole", "torn key", "torn head", "no head", "cut", "renamed"} {
		first.Count(answer("s", what+" 1", 200))
		first.Count(answer("s", what+" 2", 200))
		paths[what] = first.active.Load().path
		first.rotate()
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	change := func(what string, how func([]byte) []byte) {
		data, err := os.ReadFile(paths[what])
		if err == nil {
			err = os.WriteFile(paths[what], how(data), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	change("torn key", func(b []byte) []byte { b[slotSize+slotText] ^= 1; return b })
	change("torn head", func(b []byte) []byte { b[9] ^= 1; return b })
	change("no head", func(b []byte) []byte { clear(b[:slotSize]); return b })
	change("cut", func(b []byte) []byte { return b[:2*slotSize+100] })
	if err := os.Rename(paths["renamed"], name{first.epoch, 99}.path(dir)); err != nil {
		t.Fatal(err)
	}

	second := openJournal(t, config(t, dir), slotsPerSegment)
	stop := second.runs(s.report)
	eventually(t, "the rest is taken", func() bool { return second.pending.len() == 0 })
	stop()
	got := map[string]uint64{}
	for key, n := range s.total {
		got[key.operation] = n
	}
	want := map[string]uint64{"whole 1": 1, "whole 2": 1, "torn key 2": 1, "no head 1": 1, "no head 2": 1, "cut 1": 1}
	if !maps.Equal(got, want) {
		t.Errorf("arrived: %v\nwant: %v", got, want)
	}
	if n := len(files(t, dir, damagedSuffix)); n != 2 {
		t.Errorf("%d files were set aside, want 2", n)
	}
	if second.pending.torn.Load() != 1 {
		t.Errorf("%d counters were torn", second.pending.torn.Load())
	}
}

// While no file can be made the ones that are there are counted in, and what they have no
// room for is counted in memory.
func TestNoFileCanBeMade(t *testing.T) {
	dir, s := filepath.Join(t.TempDir(), "usage"), newServers()
	cfg := config(t, dir)
	cfg.Every = time.Hour
	j := openJournal(t, cfg, slotsOverflow+10)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	count := func() {
		for n := range 200 {
			j.Count(answer(fmt.Sprint("s", n), "o", 200))
		}
	}
	count()
	j.rotate()
	count()
	if got, want := j.unjournaled(), uint64(2*(200-10-slotsOverflow)); got != want {
		t.Errorf("%d answers are in memory alone, want %d", got, want)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	for j.unjournaled() > 0 {
		j.rotate()
	}
	j.runs(s.report)()
	if s.sum() != 400 {
		t.Errorf("%d arrived of 400", s.sum())
	}
}

// FuzzReadSegment: whatever lies in the directory, it is read within bounds, and what is
// read can be written.
func FuzzReadSegment(f *testing.F) {
	data := make([]byte, 4*slotSize)
	writeHead(data, name{epoch{1, 2}, 7}, 3)
	key := series{"default", "demo", "demo-free", "books", "GET /books/{id}", 2, 490_000}
	putSeries(data[slotSize:], &key)
	data[slotSize] = 42
	f.Add(data)
	f.Add(data[:3*slotSize/2])
	f.Add(append(bytes.Repeat([]byte{0}, slotSize), data[slotSize:]...))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := readSegment(data)
		if err != nil {
			return
		}
		if len(c.counts)+c.torn > len(data)/slotSize {
			t.Fatalf("%d counters and %d torn in %d bytes", len(c.counts), c.torn, len(data))
		}
		for _, count := range c.counts {
			s := series{count.Tenant, count.App, count.Subscription, count.Api, count.Operation, uint8(count.StatusClass), count.Hour}
			slot := make([]byte, slotSize)
			putSeries(slot, &s)
			if again, ok := getSeries(slot); !ok || again != s || count.Count == 0 {
				t.Fatalf("%+v is read back as %+v", s, again)
			}
		}
	})
}

func TestCountingDoesNotAllocate(t *testing.T) {
	j := openJournal(t, config(t, t.TempDir()), slotsPerSegment)
	x := answer("s", "o", 200)
	j.Count(x)
	if n := testing.AllocsPerRun(1000, func() { j.Count(x) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// Figures of one run on two cores that had other work beside it (load 3):
//
//	Count             89 ns
//	CountContended   137 ns   all goroutines one series
func BenchmarkCount(b *testing.B) {
	j := openJournal(b, config(b, b.TempDir()), slotsPerSegment)
	x := answer("demo-free", "getBook", 200)
	b.ReportAllocs()
	for b.Loop() {
		j.Count(x)
	}
}

func BenchmarkCountContended(b *testing.B) {
	j := openJournal(b, config(b, b.TempDir()), slotsPerSegment)
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		x := answer("demo-free", "getBook", 200)
		for pb.Next() {
			j.Count(x)
		}
	})
}
