package store

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func epochOf(n byte) []byte { return bytes.Repeat([]byte{n}, epochSize) }

func usage(node string, segments ...*weirv1.UsageSegment) *weirv1.Command {
	return &weirv1.Command{Action: &weirv1.Command_ApplyUsage{ApplyUsage: &weirv1.ApplyUsage{Node: node, Segments: segments}}}
}

func ended(node string, epochs ...[]byte) *weirv1.Command {
	return &weirv1.Command{Action: &weirv1.Command_ApplyUsage{ApplyUsage: &weirv1.ApplyUsage{Node: node, Ended: epochs}}}
}

func segment(epoch byte, sequence, oldest uint64, counts ...*weirv1.UsageCount) *weirv1.UsageSegment {
	return &weirv1.UsageSegment{Epoch: epochOf(epoch), Sequence: sequence, Oldest: oldest, Counts: counts}
}

func calls(app, operation string, class uint32, hour int64, n uint64) *weirv1.UsageCount {
	return &weirv1.UsageCount{Tenant: "default", App: app, Subscription: app + "-free", Api: "books", Operation: operation,
		StatusClass: class, Hour: hour, Count: n}
}

func (b *bench) hour() int64 { return hourOf(b.now) }

// usageOf lists all pages of a query.
func (b *bench) usageOf(q UsageQuery) (all []UsageRow) {
	b.t.Helper()
	q.Limit = 2
	if q.Tenant == "" {
		q.Tenant = "default"
	}
	for more := true; more; {
		var page []UsageRow
		var err error
		if page, more, err = b.Usage(q); err != nil {
			b.t.Fatal(err)
		}
		if len(page) > q.Limit || more && len(page) == 0 {
			b.t.Fatalf("a page of %d, more: %v", len(page), more)
		}
		if all = append(all, page...); more {
			q.After = page[len(page)-1]
		}
	}
	return all
}

func lines(rows []UsageRow) (all []string) {
	for _, r := range rows {
		all = append(all, fmt.Sprintf("%d %s/%s %s %s %s %dxx %d", r.Hour, r.Tenant, r.App, r.Subscription, r.Api, r.Operation, r.Class, r.Count))
	}
	return all
}

func TestUsageIsAddedUp(t *testing.T) {
	b := open(t)
	h := b.hour() - 30
	other := calls("demo", "getBook", 2, h, 1000)
	other.Tenant = "other"
	accepted(t, b.entry(usage("edge/a", segment(1, 1, 1, calls("demo", "getBook", 2, h, 5), calls("demo", "getBook", 4, h, 1), calls("shop", "-", 2, h, 7), other)))[0])
	accepted(t, b.entry(usage("edge/a", segment(1, 2, 2, calls("demo", "getBook", 2, h+1, 10))), usage("edge/b", segment(2, 1, 1, calls("demo", "listBooks", 2, h+25, 3))))[0])
	day := h / 24 * 24
	for what, c := range map[string]struct {
		query UsageQuery
		want  []string
	}{
		"all of a tenant": {UsageQuery{}, []string{
			"0 default/demo demo-free books getBook 2xx 15", "0 default/demo demo-free books getBook 4xx 1",
			"0 default/demo demo-free books listBooks 2xx 3", "0 default/shop shop-free books - 2xx 7"}},
		"of an app": {UsageQuery{App: "shop"}, []string{"0 default/shop shop-free books - 2xx 7"}},
		"by hour": {UsageQuery{App: "demo", Hours: 1}, []string{
			fmt.Sprintf("%d default/demo demo-free books getBook 2xx 5", h), fmt.Sprintf("%d default/demo demo-free books getBook 4xx 1", h),
			fmt.Sprintf("%d default/demo demo-free books getBook 2xx 10", h+1), fmt.Sprintf("%d default/demo demo-free books listBooks 2xx 3", h+25)}},
		"by day, of a subscription": {UsageQuery{Subscription: "demo-free", Hours: 24}, []string{
			fmt.Sprintf("%d default/demo demo-free books getBook 2xx 15", day), fmt.Sprintf("%d default/demo demo-free books getBook 4xx 1", day),
			fmt.Sprintf("%d default/demo demo-free books listBooks 2xx 3", (h+25)/24*24)}},
		"since an hour, to another": {UsageQuery{Since: h + 1, Until: h + 25}, []string{"0 default/demo demo-free books getBook 2xx 10"}},
		"of an Api":                 {UsageQuery{Api: "songs"}, nil},
		"of all tenants": {UsageQuery{Tenant: AllTenants, App: "demo", Until: h + 1}, []string{
			"0 default/demo demo-free books getBook 2xx 5", "0 default/demo demo-free books getBook 4xx 1", "0 other/demo demo-free books getBook 2xx 1000"}},
		"of nobody": {UsageQuery{Tenant: "nobody"}, nil},
	} {
		if diff := cmp.Diff(c.want, lines(b.usageOf(c.query))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
}

// Reports come late, twice, in any order, and of several epochs of several nodes. What is
// there is the sum over the segments that have come, each once.
func TestUsageIsAddedOnce(t *testing.T) {
	b := open(t)
	random := rand.New(rand.NewPCG(3, 4))
	type id struct {
		node     string
		epoch    byte
		sequence uint64
	}
	const sequences = 60
	done := map[id]bool{}
	oldest := map[id]uint64{} // by node and epoch
	want := map[string]uint64{}
	for range 1500 {
		n := id{node: fmt.Sprintf("edge/%d", random.IntN(2)), epoch: byte(random.IntN(2))}
		var segments []*weirv1.UsageSegment
		for range 1 + random.IntN(3) {
			n.sequence = oldest[id{node: n.node, epoch: n.epoch}] + 1 + uint64(random.IntN(8))
			if random.IntN(4) == 0 {
				n.sequence = 1 + uint64(random.IntN(sequences)) // a replay, mostly
			}
			mark := id{node: n.node, epoch: n.epoch}
			// What comes below the mark was there, so it is not sent for the first time.
			if n.sequence > sequences || n.sequence <= oldest[mark] && !done[n] {
				continue
			}
			segments = append(segments, segment(n.epoch, n.sequence, min(n.sequence, oldest[mark]+1), calls("demo", fmt.Sprint(n.sequence), 2, b.hour(), 1+n.sequence)))
			if !done[n] {
				done[n] = true
				want[fmt.Sprint(n.sequence)] += 1 + n.sequence
			}
			for done[id{n.node, n.epoch, oldest[mark] + 1}] {
				oldest[mark]++
			}
		}
		accepted(t, b.entry(usage(n.node, segments...))[0])
		switch random.IntN(300) {
		case 0:
			b.reopen()
		case 1:
			if err := b.Restore(bytes.NewReader(snapshot(t, b.Store))); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := map[string]uint64{}
	for _, row := range b.usageOf(UsageQuery{}) {
		got[row.Operation] = row.Count
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(done) < 2*sequences {
		t.Errorf("only %d segments were sent", len(done))
	}
}

// epochs are those that the store remembers, with how many sequences it does for each.
func (b *bench) epochs() map[string]int {
	b.t.Helper()
	all := map[string]int{}
	err := b.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketReported).ForEach(func(key, value []byte) error {
			r, err := readReported(value)
			all[fmt.Sprintf("%s %d", key[:len(key)-epochSize-1], key[len(key)-1])] = len(r.above)
			return err
		})
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	b := open(t)
	for n := uint64(1); n <= 100; n++ { // 1 to 10 never come
		accepted(t, b.entry(usage("edge/a", segment(1, n+10, 1, calls("demo", "o", 2, b.hour(), 1))))[0])
	}
	if got := b.epochs()["edge/a 1"]; got != 100 {
		t.Errorf("%d sequences are remembered, want 100", got)
	}
	accepted(t, b.entry(usage("edge/a", segment(1, 111, 111, calls("demo", "o", 2, b.hour(), 1))))[0])
	if got := b.epochs()["edge/a 1"]; got != 0 {
		t.Errorf("%d sequences are remembered though all before have come", got)
	}
	accepted(t, b.entry(usage("edge/a", segment(1, 50, 1, calls("demo", "o", 2, b.hour(), 1))))[0])
	if rows := b.usageOf(UsageQuery{}); rows[0].Count != 101 {
		t.Errorf("a replay was added: %v", rows)
	}
}

func TestEpochsAreForgotten(t *testing.T) {
	b := open(t)
	report := func(node string, epoch byte, sequence uint64) {
		t.Helper()
		accepted(t, b.entry(usage(node, segment(epoch, sequence, sequence, calls("demo", "o", 2, b.hour(), 1))))[0])
	}
	report("edge/a", 1, 1)
	report("edge/gone", 9, 1)
	accepted(t, b.entry(ended("edge/a", epochOf(1), epochOf(7)))[0])
	report("edge/a", 2, 1)
	b.now = b.now.Add(2 * endedEpoch)
	report("edge/a", 2, 2)
	if got, want := slices.Sorted(maps.Keys(b.epochs())), []string{"edge/a 2", "edge/gone 9"}; !slices.Equal(got, want) {
		t.Errorf("remembered: %v, want %v", got, want)
	}
	b.now = b.now.Add(silentEpoch)
	report("edge/a", 2, 3)
	report("edge/a", 2, 4)
	if got, want := slices.Sorted(maps.Keys(b.epochs())), []string{"edge/a 2"}; !slices.Equal(got, want) {
		t.Errorf("remembered: %v, want %v", got, want)
	}
}

func TestOldUsageIsDropped(t *testing.T) {
	b := open(t)
	b.now = time.Unix(2_000_000_000, 0)
	first := b.hour() - 24
	accepted(t, b.entry(usage("edge/a", segment(1, 1, 1, calls("demo", "old", 2, first, 1), calls("demo", "newer", 2, first+24, 1))))[0])
	if n := len(b.usageOf(UsageQuery{})); n != 1+1 {
		t.Fatalf("%d rows", n)
	}
	jump := b.now
	b.now = b.now.Add(2 * UsageRetention) // one member's clock alone
	accepted(t, b.entry(usage("edge/a", segment(1, 2, 2, calls("demo", "now", 2, hourOf(jump), 1))))[0])
	if n := len(b.usageOf(UsageQuery{})); n != 3 {
		t.Errorf("%d rows: a clock that jumped has dropped some", n)
	}
	b.now = jump.Add(UsageRetention - 20*time.Hour)
	accepted(t, b.entry(usage("edge/a", segment(1, 3, 3, calls("demo", "now", 2, b.hour(), 1))))[0])
	var left []string
	for _, row := range b.usageOf(UsageQuery{}) {
		left = append(left, row.Operation)
	}
	if !slices.Equal(left, []string{"newer", "now"}) {
		t.Errorf("left: %v", left)
	}
}

func TestClocksThatAreWrong(t *testing.T) {
	b := open(t)
	b.now = time.Unix(2_000_000_000, 0)
	accepted(t, b.entry(usage("edge/a", segment(1, 1, 1, calls("demo", "ahead", 2, b.hour()+999, 1), calls("demo", "1970", 2, 0, 1))))[0])
	want := []string{fmt.Sprintf("%d default/demo demo-free books 1970 2xx 1", b.hour()), fmt.Sprintf("%d default/demo demo-free books ahead 2xx 1", b.hour())}
	if diff := cmp.Diff(want, lines(b.usageOf(UsageQuery{Hours: 1}))); diff != "" {
		t.Errorf("what was counted counts, in the hour that it came (-want +got):\n%s", diff)
	}
}

func TestUsageThatIsRefused(t *testing.T) {
	b := open(t)
	good := func() *weirv1.UsageCount { return calls("demo", "o", 2, b.hour(), 1) }
	bad := func(change func(*weirv1.UsageCount)) *weirv1.Command {
		c := good()
		change(c)
		return usage("edge/a", segment(1, 1, 1, good(), c))
	}
	far := usage("edge/a")
	for n := range uint64(maxSegments) {
		far.GetApplyUsage().Segments = append(far.GetApplyUsage().Segments, segment(1, 2+n, 1, good()))
	}
	for what, c := range map[string]struct {
		command *weirv1.Command
		want    string
	}{
		"no node":        {usage("", segment(1, 1, 1, good())), "INVALID Usage : a node has a name of 1 to 512 bytes, none of them zero"},
		"a short epoch":  {usage("edge/a", &weirv1.UsageSegment{Epoch: []byte{1}, Sequence: 1}), "INVALID Usage edge/a: segments[0]: an epoch has 16 bytes"},
		"sequence 0":     {usage("edge/a", segment(1, 0, 0, good())), "INVALID Usage edge/a: segments[0]: a sequence is between 0 and the biggest number"},
		"an odd oldest":  {usage("edge/a", segment(1, 1, 2, good())), "INVALID Usage edge/a: segments[0]: the oldest segment comes after this one"},
		"no name":        {bad(func(c *weirv1.UsageCount) { c.App = "" }), "INVALID Usage edge/a: segments[0]: counts[1]: a name has 1 to 512 bytes of UTF-8, none of them zero"},
		"a zero byte":    {bad(func(c *weirv1.UsageCount) { c.Operation = "a\x00b" }), "INVALID Usage edge/a: segments[0]: counts[1]: a name has 1 to 512 bytes of UTF-8, none of them zero"},
		"a strange code": {bad(func(c *weirv1.UsageCount) { c.StatusClass = 6 }), "INVALID Usage edge/a: segments[0]: counts[1]: there is no class of status 6"},
		"a count of 0":   {bad(func(c *weirv1.UsageCount) { c.Count = 0 }), "INVALID Usage edge/a: segments[0]: counts[1]: 0 is no count"},
		"a short end":    {ended("edge/a", []byte{1}), "INVALID Usage edge/a: ended[0]: an epoch has 16 bytes"},
	} {
		t.Run(what, func(t *testing.T) { requireRefused(t, b.entry(c.command)[0], c.want) })
	}
	if rows := b.usageOf(UsageQuery{}); len(rows) != 0 {
		t.Errorf("something of what was refused is there: %v", rows)
	}
	for range maxAhead / maxSegments {
		accepted(t, b.entry(far)[0])
		for _, s := range far.GetApplyUsage().GetSegments() {
			s.Sequence += maxSegments
		}
	}
	requireRefused(t, b.entry(far)[0], "INVALID Usage edge/a: segments[0]: 4096 segments are ahead of one that has not come")
}

func TestAStateFromBeforeThereWasUsage(t *testing.T) {
	b := open(t)
	b.put(service("books", "v1"))
	err := b.db.Update(func(tx *bolt.Tx) error {
		if err := tx.DeleteBucket(bucketUsage); err != nil {
			return err
		}
		return tx.DeleteBucket(bucketReported)
	})
	if err != nil {
		t.Fatal(err)
	}
	b.reopen()
	b.get(ref("Service", "books"))
	accepted(t, b.entry(usage("edge/a", segment(1, 1, 1, calls("demo", "o", 2, b.hour(), 1))))[0])
}
