package store

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/quota/ledger"
	"github.com/weirmesh/weir/resource"
)

// model is what a store promises, written down as simply as can be: maps, and
// every rule checked over everything after every change.
type model struct {
	revision  uint64
	resources map[resource.Ref]*weirv1.Resource
	values    map[string]string
	blobs     map[string]bool // whole ones
	done      map[string]bool // ids of commands
}

func newModel() *model {
	return &model{resources: map[resource.Ref]*weirv1.Resource{}, values: map[string]string{}, blobs: map[string]bool{}, done: map[string]bool{}}
}

// apply says whether a command is accepted, and does it.
func (m *model) apply(index uint64, c *weirv1.Command) bool {
	if c.GetId() != "" && m.done[c.GetId()] {
		return true
	}
	ok := m.decide(index, c)
	if c.GetPutBlobChunk() == nil { // storing a chunk twice is harmless
		m.done[c.GetId()] = m.done[c.GetId()] || ok
	}
	return ok
}

func (m *model) decide(index uint64, c *weirv1.Command) bool {
	switch a := c.GetAction().(type) {
	case *weirv1.Command_PutValue:
		key := a.PutValue.Table + "/" + a.PutValue.Key
		if _, there := m.values[key]; there && a.PutValue.MustNotExist {
			return false
		}
		m.values[key] = string(a.PutValue.Value)
	case *weirv1.Command_DeleteValue:
		key := a.DeleteValue.Table + "/" + a.DeleteValue.Key
		if _, there := m.values[key]; !there && a.DeleteValue.MustExist {
			return false
		}
		delete(m.values, key)
	case *weirv1.Command_ChangeValues:
		return m.change(a.ChangeValues)
	case *weirv1.Command_PutBlobChunk: // one chunk is the whole here
		m.blobs[a.PutBlobChunk.Digest] = true
	case *weirv1.Command_Transact:
		return m.transact(index, a.Transact)
	case *weirv1.Command_Create:
		for _, r := range a.Create.Puts {
			if m.resources[resource.Of(r)] != nil {
				return false
			}
		}
		return m.transact(index, a.Create)
	}
	return true
}

func (m *model) change(c *weirv1.ChangeValues) bool {
	next, seen := maps.Clone(m.values), map[string]bool{}
	for _, c := range c.Changes {
		key := c.Table + "/" + c.Key
		now, there := m.values[key]
		if seen[key] || c.MustNotExist && there || c.MustBe != nil && (!there || now != string(c.MustBe)) {
			return false
		}
		seen[key] = true
		if next[key] = string(c.Value); c.Value == nil {
			delete(next, key)
		}
	}
	m.values = next
	return true
}

func (m *model) transact(index uint64, t *weirv1.Transact) bool {
	next, changed := maps.Clone(m.resources), false
	revision := max(index, m.revision+1)
	seen := map[resource.Ref]bool{}
	for _, r := range t.Puts {
		ref, old := resource.Of(r), m.resources[resource.Of(r)]
		if seen[ref] {
			return false
		}
		seen[ref] = true
		if old != nil && same(old, r) {
			continue
		}
		if want := resource.Meta(r).Revision; want != 0 && resource.Meta(old).GetRevision() != want {
			return false
		}
		changed = true
		now := proto.Clone(r).(*weirv1.Resource)
		resource.Meta(now).Revision = revision
		next[ref] = now
	}
	for _, d := range t.Deletes {
		ref := resource.RefOf(d)
		if m.resources[ref] == nil || seen[ref] {
			return false
		}
		seen[ref], changed = true, true
		delete(next, ref)
	}
	for _, r := range next {
		for to := range resource.References(r) {
			if to.To.Kind == resource.KindBlob && m.blobs[to.To.Name] {
				continue
			}
			target := next[to.To]
			if target == nil {
				return false
			}
			if _, _, lacks := to.Lack(target); lacks {
				return false
			}
		}
	}
	m.collect(next)
	m.resources = next
	if changed {
		m.revision = revision
	}
	return true
}

// collect drops the blobs that are referred to now and not next.
func (m *model) collect(next map[resource.Ref]*weirv1.Resource) {
	for _, old := range m.resources {
		digest := old.GetPlugin().GetSpec().GetDigest()
		used := false
		for _, r := range next {
			used = used || r.GetPlugin().GetSpec().GetDigest() == digest
		}
		if !used {
			delete(m.blobs, digest)
		}
	}
}

// require: the store shows what the model holds.
func (m *model) require(t *rapid.T, s *Store) {
	v := s.View()
	if v.Revision() != m.revision || v.Len() != len(m.resources) {
		t.Fatalf("the store is at %d with %d resources, want %d with %d", v.Revision(), v.Len(), m.revision, len(m.resources))
	}
	for ref, want := range m.resources {
		got, _ := v.Get(ref)
		if got == nil || !same(want, got) || resource.Meta(got).Revision != resource.Meta(want).Revision {
			t.Fatalf("%s is %v, want %v", ref, got, want)
		}
	}
	got := map[string]string{}
	for _, table := range tables {
		for key, value := range v.Values(table) {
			got[table+"/"+key] = string(value)
		}
	}
	if !maps.Equal(got, m.values) {
		t.Fatalf("values are %v, want %v", got, m.values)
	}
	for _, content := range contents {
		if _, is := v.BlobSize(digestOf(content)); is != m.blobs[digestOf(content)] {
			t.Fatalf("blob %q: %v, want %v", content, is, !is)
		}
	}
}

// The small world in which commands meet often.
var (
	names    = []string{"a", "b", "c"}
	tables   = []string{"t", "u"}
	contents = []string{"module one", "module two", "module three"}
	subsets  = [][]string{nil, {"v1"}, {"v1", "v2"}}
)

func drawResource(t *rapid.T, revision uint64) *weirv1.Resource {
	name := rapid.SampledFrom(names).Draw(t, "name")
	other := rapid.SampledFrom(names).Draw(t, "other")
	var r *weirv1.Resource
	switch rapid.SampledFrom(resource.Kinds()).Draw(t, "kind") {
	case resource.KindGateway:
		r = gateway(name, rapid.SampledFrom(subsets).Draw(t, "listeners")...)
	case resource.KindService:
		r = service(name, rapid.SampledFrom(subsets).Draw(t, "subsets")...)
	case resource.KindRoute:
		r = route(name, other, to(rapid.SampledFrom(names).Draw(t, "service"), rapid.SampledFrom([]string{"", "v1", "v2"}).Draw(t, "subset")))
		r.GetRoute().Spec.ParentRefs[0].SectionName = rapid.SampledFrom([]string{"", "v1"}).Draw(t, "listener")
	case resource.KindApp:
		r = app("demo")
	case resource.KindPlan:
		r = planOf(name, mostRequests, rapid.SampledFrom(subsets).Draw(t, "limits")...)
	case resource.KindSubscription:
		r = subscription(name, other, rapid.SampledFrom([]weirv1.SubscriptionSpec_State{0, 1, 2}).Draw(t, "state"))
	case resource.KindPlugin:
		r = plugin(name, digestOf(rapid.SampledFrom(contents).Draw(t, "content")))
	default:
		r = policy(name, other, &weirv1.TargetRef{Kind: "Route", Name: rapid.SampledFrom(names).Draw(t, "target")})
	}
	resource.Meta(r).Tenant = resource.DefaultTenant
	if rapid.IntRange(0, 4).Draw(t, "compare") == 0 {
		at(uint64(rapid.IntRange(0, int(revision)).Draw(t, "expected")), r)
	}
	return r
}

func drawChange(t *rapid.T) *weirv1.ValueChange {
	change := &weirv1.ValueChange{Table: rapid.SampledFrom(tables).Draw(t, "table"), Key: rapid.SampledFrom(names).Draw(t, "key")}
	switch rapid.IntRange(0, 2).Draw(t, "condition") {
	case 0:
		change.MustNotExist = true
	case 1:
		change.MustBe = []byte(rapid.SampledFrom(names).Draw(t, "expected"))
	}
	if rapid.IntRange(0, 2).Draw(t, "what") > 0 {
		change.Value = []byte(rapid.SampledFrom(names).Draw(t, "value"))
	}
	return change
}

func drawCommand(t *rapid.T, revision uint64) *weirv1.Command {
	table, key := rapid.SampledFrom(tables).Draw(t, "table"), rapid.SampledFrom(names).Draw(t, "key")
	var c *weirv1.Command
	switch rapid.IntRange(0, 12).Draw(t, "action") {
	case 11, 12:
		return drawLease(t)
	case 10:
		var changes []*weirv1.ValueChange
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			changes = append(changes, drawChange(t))
		}
		c = changeValues(changes...)
	case 0:
		c = putValue(table, key, rapid.SampledFrom(names).Draw(t, "value"))
		c.GetPutValue().MustNotExist = rapid.Bool().Draw(t, "only new")
	case 1:
		c = deleteValue(table, key, rapid.Bool().Draw(t, "must exist"))
	case 4:
		c = &weirv1.Command{Action: &weirv1.Command_Create{Create: drawTransact(t, revision)}}
	case 2, 3:
		c = chunk(rapid.SampledFrom(contents).Draw(t, "content"), 0, 99)
	default:
		c = &weirv1.Command{Action: &weirv1.Command_Transact{Transact: drawTransact(t, revision)}}
	}
	if rapid.IntRange(0, 3).Draw(t, "identified") == 0 && transactOf(c) == nil {
		c.Id = rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "id") + fmt.Sprintf("%T", c.Action)
	}
	return c
}

// mostRequests is what all limits have.
const mostRequests = 30

func drawLease(t *rapid.T) *weirv1.Command {
	m := &weirv1.LeaseTokensRequest{Epoch: rapid.Uint64Range(1, 2).Draw(t, "epoch"), Sequence: rapid.Uint64Range(1, 20).Draw(t, "sequence")}
	for range rapid.IntRange(0, 3).Draw(t, "asks") {
		held := rapid.Uint64Range(0, 2).Draw(t, "held")
		m.Asks = append(m.Asks, &weirv1.LeaseAsk{Tenant: resource.DefaultTenant, Subscription: rapid.SampledFrom(names).Draw(t, "subscription"),
			Limit: rapid.SampledFrom([]string{"v1", "v2", "v3"}).Draw(t, "limit"), Held: held, Used: held, Want: rapid.Uint64Range(0, 40).Draw(t, "want")})
	}
	return &weirv1.Command{Action: &weirv1.Command_GrantLeases{GrantLeases: &weirv1.GrantLeases{
		Source: rapid.SampledFrom(names).Draw(t, "source"), Elapsed: durationpb.New(time.Duration(rapid.IntRange(0, 100).Draw(t, "elapsed")) * time.Second),
		Node: rapid.SampledFrom(names).Draw(t, "node"), Request: m}}}
}

// requireGrants: each ask of an active limit has a grant and no other has, no more is
// granted than there is, and nothing is left of limits that are gone.
func requireGrants(t *rapid.T, s *Store, c *weirv1.GrantLeases, result any) {
	v := s.View()
	for i, held := range grantedBy(t, result) {
		a := c.GetRequest().GetAsks()[i]
		_, active := limitOf(v.resources.Get, LimitRef{a.GetTenant(), a.GetSubscription(), a.GetLimit()})
		if known := held != "unknown"; known != active {
			t.Fatalf("%v: granted are %s, the limit is active: %v", a, held, active)
		}
	}
	for ref, r := range v.AllLeases() {
		if got := ledger.Granted(r); got > mostRequests {
			t.Fatalf("%d are granted of %v", got, ref)
		}
		if !slices.ContainsFunc(limitsOf(v.resources.Get, ref.Tenant, ref.Subscription), func(l *weirv1.PlanLimit) bool { return l.GetName() == ref.Limit }) {
			t.Fatalf("there are leases of %v, which is not there", ref)
		}
	}
}

func drawTransact(t *rapid.T, revision uint64) *weirv1.Transact {
	out := &weirv1.Transact{}
	for range rapid.IntRange(0, 5).Draw(t, "puts") {
		out.Puts = append(out.Puts, drawResource(t, revision))
	}
	for range rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "deletes") {
		kind := rapid.SampledFrom(resource.Kinds()).Draw(t, "kind")
		out.Deletes = append(out.Deletes, ref(kind, rapid.SampledFrom(names).Draw(t, "name")).Proto())
	}
	return out
}

// TestStoreKeepsToTheModel drives a store and the model alike, then shows that
// other ways through the same log lead to the same bytes, and that whoever
// watched saw what happened.
func TestStoreKeepsToTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := openIn(rt, t)
		m := newModel()
		var log runLog
		seen := watchInto(rt, t, s)
		entries := rapid.IntRange(1, 20).Draw(rt, "entries")
		half := rapid.IntRange(0, entries-1).Draw(rt, "half")
		var taken []byte
		for i := range entries {
			if i == half {
				taken = snapshot(rt, s)
			}
			index := log.last() + 1 + rapid.SampledFrom([]uint64{0, 0, 1, 5}).Draw(rt, "gap")
			var commands []*weirv1.Command
			for range rapid.IntRange(0, 3).Draw(rt, "commands") {
				c := drawCommand(rt, m.revision)
				c.Time = timestamppb.New(time.Unix(int64(index), 0))
				commands = append(commands, c)
			}
			log.add(t, index, commands)
			for i, result := range log.apply(s, len(log.indexes)-1, len(log.indexes)) {
				_, accepted := result.(*weirv1.ApplyResponse)
				if commands[i].GetGrantLeases() != nil {
					requireGrants(rt, s, commands[i].GetGrantLeases(), result)
					continue
				}
				if want := m.apply(index, commands[i]); accepted != want {
					rt.Fatalf("entry %d: %v: result is %v, want accepted %v", index, commands[i], result, want)
				}
			}
			m.require(rt, s)
			if rapid.IntRange(0, 9).Draw(rt, "look") == 0 {
				seen.catchUp(rt, s)
			}
		}
		seen.catchUp(rt, s)

		batched := openIn(rt, t)
		log.apply(batched, 0, len(log.indexes))
		requireTwins(rt, s, batched)

		restored := openIn(rt, t)
		if err := restored.Restore(bytes.NewReader(taken)); err != nil {
			rt.Fatal(err)
		}
		log.apply(restored, max(0, half-3), len(log.indexes)) // the log overlaps
		requireTwins(rt, s, restored)
	})
}

func openIn(rt *rapid.T, t *testing.T) *Store {
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		rt.Fatal(err)
	}
	s, err := Open(Config{Dir: dir})
	if err != nil {
		rt.Fatal(err)
	}
	rt.Cleanup(func() {
		if err := s.Close(); err != nil {
			rt.Error(err)
		}
	})
	return s
}

type runLog struct {
	indexes []uint64
	entries [][]byte
}

func (l *runLog) last() uint64 {
	if len(l.indexes) == 0 {
		return 0
	}
	return l.indexes[len(l.indexes)-1]
}

func (l *runLog) add(t *testing.T, index uint64, commands []*weirv1.Command) {
	l.indexes = append(l.indexes, index)
	l.entries = append(l.entries, encode(t, commands...))
}

func (l *runLog) apply(s *Store, from, to int) []any {
	return slices.Concat(s.Apply(l.indexes[from:to], l.entries[from:to])...)
}

// follower keeps what it is told by Watch.
type follower struct {
	revision  uint64
	resources map[resource.Ref]*weirv1.Resource
}

func watchInto(rt *rapid.T, t *testing.T, s *Store) *follower {
	f := &follower{}
	f.catchUp(rt, s)
	return f
}

// catchUp watches from where it was until there is nothing more, and compares.
func (f *follower) catchUp(t *rapid.T, s *Store) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if f.revision == s.View().Revision() && f.resources != nil {
		return
	}
	for event, err := range s.Watch(ctx, f.revision) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Reset {
			f.resources = map[resource.Ref]*weirv1.Resource{}
		} else if event.Previous < f.revision || event.Revision <= event.Previous {
			t.Fatalf("%s follows %d", describe(event), f.revision)
		}
		for _, r := range event.Puts {
			f.resources[resource.Of(r)] = r
		}
		for _, ref := range event.Deletes {
			delete(f.resources, ref)
		}
		if f.revision = event.Revision; f.revision == s.View().Revision() {
			break
		}
	}
	if len(f.resources) != s.View().Len() {
		t.Fatalf("the watcher holds %d resources, want %d", len(f.resources), s.View().Len())
	}
	for r := range s.View().All() {
		if f.resources[resource.Of(r)] != r {
			t.Fatalf("the watcher has %v, want %v", f.resources[resource.Of(r)], r)
		}
	}
}
