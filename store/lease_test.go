package store

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/quota/ledger"
	"github.com/weirmesh/weir/resource"
)

func app(name string) *weirv1.Resource {
	return resource.Wrap(&weirv1.App{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.AppSpec{}})
}

// planOf is a plan with limits a minute.
func planOf(name string, requests uint64, limits ...string) *weirv1.Resource {
	spec := &weirv1.PlanSpec{}
	for _, l := range limits {
		spec.Limits = append(spec.Limits, &weirv1.PlanLimit{Name: l, Requests: requests, Window: durationpb.New(time.Minute), Exact: true})
	}
	return resource.Wrap(&weirv1.Plan{Metadata: &weirv1.Metadata{Name: name}, Spec: spec})
}

func subscription(name, plan string, state weirv1.SubscriptionSpec_State) *weirv1.Resource {
	return resource.Wrap(&weirv1.Subscription{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.SubscriptionSpec{App: "demo", Plan: plan, State: state}})
}

func leaseRef(limit string) LimitRef { return LimitRef{"default", "s", limit} }

// lease is a proxy's ask for more of limits, of which it holds nothing.
func lease(node string, sequence, want uint64, limits ...string) *weirv1.Command {
	m := &weirv1.LeaseTokensRequest{Epoch: 1, Sequence: sequence}
	for _, l := range limits {
		m.Asks = append(m.Asks, &weirv1.LeaseAsk{Tenant: "default", Subscription: "s", Limit: l, Want: want, Since: 1})
	}
	return &weirv1.Command{Action: &weirv1.Command_GrantLeases{GrantLeases: &weirv1.GrantLeases{Source: "one", Node: node, Request: m}}}
}

// granted are the tokens that an answer names.
func grantedBy(t failer, result any) (held []string) {
	t.Helper()
	answer, ok := result.(*weirv1.LeaseTokensResponse)
	if !ok {
		t.Fatalf("the result is %v", result)
	}
	for _, g := range answer.GetGrants() {
		if g.GetUnknown() {
			held = append(held, "unknown")
		} else {
			held = append(held, fmt.Sprint(g.GetHeld()))
		}
	}
	return held
}

func subscribed(t testing.TB) *bench {
	b := open(t)
	b.put(app("demo"), planOf("free", 100, "minute", "day"), subscription("s", "free", 0))
	return b
}

func (b *bench) lease(want string, c *weirv1.Command) {
	b.t.Helper()
	if got := fmt.Sprint(grantedBy(b.t, b.entry(c)[0])); got != want {
		b.t.Errorf("granted are %s, want %s", got, want)
	}
}

// Leases are part of the state: they are there after a restart and in a snapshot, and
// they are nothing that has a revision.
func TestLeasesAreKept(t *testing.T) {
	b := subscribed(t)
	revision := b.View().Revision()
	b.lease("[10 10 unknown]", lease("edge/a", 1, 10, "minute", "day", "year"))
	b.lease("[10]", lease("edge/a", 1, 10, "minute")) // again
	b.lease("[5]", lease("edge/b", 1, 5, "minute"))
	if got := b.View().Revision(); got != revision {
		t.Errorf("the revision went from %d to %d", revision, got)
	}
	check := func(v *View) {
		t.Helper()
		if got := ledger.Granted(v.Leases(leaseRef("minute"))); got != 15 {
			t.Errorf("%d are granted", got)
		}
		n := 0
		for ref, r := range v.AllLeases() {
			if n++; ref.Subscription != "s" || r.GetWindowSeconds() != 60 {
				t.Errorf("%v has %v", ref, r)
			}
		}
		if n != 2 || v.LeaseTime() != b.now.UnixNano() {
			t.Errorf("%d records at %d", n, v.LeaseTime())
		}
	}
	check(b.View())
	b.reopen()
	check(b.View())
	taken := snapshot(t, b.Store)
	twin := open(t)
	if err := twin.Restore(bytes.NewReader(taken)); err != nil {
		t.Fatal(err)
	}
	check(twin.View())
	if !bytes.Equal(taken, snapshot(t, twin.Store)) {
		t.Error("a restored state differs")
	}
	b.lease("[14]", lease("edge/c", 1, 20, "minute")) // half of a third of 85
}

// A limit that is gone leaves nothing behind; one that is kept goes on.
func TestLeasesOfLimitsThatGo(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*bench)
		minute  uint64 // still granted
		records int
		next    string
	}{
		"nothing":                  {func(b *bench) { b.put(planOf("other", 1, "x")) }, 30, 2, "[5 5]"},
		"the plan has more":        {func(b *bench) { b.put(planOf("free", 200, "minute", "day")) }, 30, 2, "[5 5]"},
		"the plan has less":        {func(b *bench) { b.put(planOf("free", 32, "minute", "day")) }, 30, 2, "[1 1]"},
		"the plan loses a limit":   {func(b *bench) { b.put(planOf("free", 100, "minute")) }, 30, 1, "[5 unknown]"},
		"the plan renames a limit": {func(b *bench) { b.put(planOf("free", 100, "minute", "week")) }, 30, 1, "[5 unknown]"},
		"another plan":             {func(b *bench) { b.put(planOf("gold", 100, "day")); b.put(subscription("s", "gold", 0)) }, 0, 1, "[unknown 5]"},
		"suspended":                {func(b *bench) { b.put(subscription("s", "free", weirv1.SubscriptionSpec_SUSPENDED)) }, 30, 2, "[unknown unknown]"},
		"deleted":                  {func(b *bench) { b.delete(ref(resource.KindSubscription, "s")) }, 0, 0, "[unknown unknown]"},
		"all of it deleted": {func(b *bench) {
			b.delete(ref(resource.KindSubscription, "s"), ref(resource.KindPlan, "free"), ref(resource.KindApp, "demo"))
		}, 0, 0, "[unknown unknown]"},
		"one whose name begins alike": {func(b *bench) { b.put(subscription("s2", "free", 0)); b.delete(ref(resource.KindSubscription, "s2")) }, 30, 2, "[5 5]"},
		"suspended and active again": {func(b *bench) {
			b.put(subscription("s", "free", weirv1.SubscriptionSpec_SUSPENDED))
			b.put(subscription("s", "free", 0))
		}, 30, 2, "[5 5]"},
		"a command that makes no sense": {func(b *bench) {
			_ = b.entry(&weirv1.Command{Action: &weirv1.Command_GrantLeases{GrantLeases: &weirv1.GrantLeases{}}})[0].(*RefusedError)
		}, 30, 2, "[5 5]"},
	} {
		t.Run(name, func(t *testing.T) {
			b := subscribed(t)
			b.lease("[30 30]", lease("edge/a", 1, 30, "minute", "day"))
			c.change(b)
			for range 2 {
				n := 0
				for range b.View().AllLeases() {
					n++
				}
				if got := ledger.Granted(b.View().Leases(leaseRef("minute"))); got != c.minute || n != c.records {
					t.Errorf("%d are granted in %d records, want %d in %d", got, n, c.minute, c.records)
				}
				b.reopen()
			}
			b.lease(c.next, lease("edge/b", 1, 5, "minute", "day"))
		})
	}
}

// Windows follow the clocks of those who propose, and no clock turns them back.
func TestLeasesFollowTheClocks(t *testing.T) {
	b := subscribed(t)
	at := func(source string, wall, elapsed time.Duration, sequence uint64) *weirv1.Command {
		c := lease("edge/a", sequence, 100, "minute")
		c.Time = timestamppb.New(b.now.Add(wall))
		c.GetGrantLeases().Source, c.GetGrantLeases().Elapsed = source, durationpb.New(elapsed)
		return c
	}
	b.lease("[50]", at("one", 0, 0, 1))
	first := b.View().Leases(leaseRef("minute")).GetWindowStart()
	b.lease("[50]", at("one", -time.Hour, time.Second, 2)) // half of what is there again
	b.lease("[50]", at("two", -time.Hour, time.Second, 3))
	if start := b.View().Leases(leaseRef("minute")).GetWindowStart(); start != first {
		t.Errorf("an hour behind, the window is that of %d, it was %d", start, first)
	}
	b.lease("[50]", at("two", -time.Hour+time.Minute, time.Second+80*time.Second, 4))
	if start := b.View().Leases(leaseRef("minute")).GetWindowStart(); start != first+60 {
		t.Errorf("80 seconds later the window is that of %d, it was %d", start, first)
	}
}

// A file that an earlier version has left has no leases, and gets a place for them.
func TestFilesWithoutLeases(t *testing.T) {
	b := subscribed(t)
	b.push("content") // so that all is in the file
	b.reopen()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	removeBucket(t, b.dir, bucketLeases)
	b.open()
	if b.Applied() != b.index {
		t.Errorf("the state is at %d, want %d", b.Applied(), b.index)
	}
	b.lease("[10]", lease("edge/a", 1, 10, "minute"))
}

// A snapshot without leases is one that an earlier version reads.
func TestSnapshotsWithoutLeases(t *testing.T) {
	b := subscribed(t)
	r := newRecordReader(bytes.NewReader(snapshot(t, b.Store)))
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	for {
		bucket, key, _, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		if bucket == bucketEnd {
			return
		}
		if int(bucket) >= len(buckets)-1 {
			t.Errorf("a record %q of bucket %d", key, bucket)
		}
	}
}

func TestLeaseCommandsAreBounded(t *testing.T) {
	b := subscribed(t)
	c := lease("edge/a", 1, 1)
	for range maxAsks + 1 {
		c.GetGrantLeases().Request.Asks = append(c.GetGrantLeases().Request.Asks, &weirv1.LeaseAsk{})
	}
	if refused, ok := b.entry(proto.CloneOf(c))[0].(*RefusedError); !ok {
		t.Errorf("got %v", refused)
	}
}

// removeBucket leaves a closed state without a bucket.
func removeBucket(t testing.TB, dir string, name []byte) {
	t.Helper()
	db, err := openBolt(filepath.Join(dir, stateName))
	if err != nil {
		t.Fatal(err)
	}
	var applied uint64
	err = db.Update(func(tx *bolt.Tx) (err error) {
		if applied, err = number(tx, keyApplied); err != nil {
			return err
		}
		return tx.DeleteBucket(name)
	})
	if err := errors.Join(err, db.Sync(), db.Close(), noteClosed(dir, applied)); err != nil {
		t.Fatal(err)
	}
}
