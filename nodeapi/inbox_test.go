package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// What waits is taken as one change, however many it is made of.
func TestInbox(t *testing.T) {
	puts := func(names ...string) (rs []*weirv1.Resource) {
		for _, name := range names {
			rs = append(rs, service(name))
		}
		return rs
	}
	gone := []resource.Ref{ref("Service", "a")}
	for name, c := range map[string]struct {
		changes       []*received
		snapshot      bool
		from          uint64
		puts, deletes []string
		gap           bool
	}{
		"nothing":                    {},
		"one":                        {[]*received{{from: 1, revision: 2, puts: puts("a"), deletes: gone}}, false, 1, []string{"Service a"}, []string{"Service a"}, false},
		"put, then deleted":          {[]*received{{from: 1, revision: 2, puts: puts("a", "b")}, {from: 2, revision: 3, deletes: gone}}, false, 1, []string{"Service b"}, []string{"Service a"}, false},
		"deleted, then put":          {[]*received{{from: 1, revision: 2, deletes: gone}, {from: 2, revision: 3}, {from: 3, revision: 4, puts: puts("a")}}, false, 1, []string{"Service a"}, nil, false},
		"a snapshot in their place":  {[]*received{{from: 1, revision: 2, puts: puts("a")}, {snapshot: true, revision: 9, puts: puts("b")}}, true, 0, []string{"Service b"}, nil, false},
		"a snapshot, and a change":   {[]*received{{snapshot: true, revision: 9, puts: puts("a", "b")}, {from: 9, revision: 10, deletes: gone}}, true, 0, []string{"Service b"}, []string{"Service a"}, false},
		"one between them is missed": {[]*received{{from: 1, revision: 2, puts: puts("a")}, {from: 3, revision: 4}}, false, 1, []string{"Service a"}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			b, gap := newInbox(), false
			for _, change := range c.changes {
				if err := b.put(change); err != nil {
					gap = errors.Is(err, errGap)
				}
			}
			if gap != c.gap {
				t.Errorf("a gap was found: %v", gap)
			}
			got := b.take()
			if got == nil {
				if len(c.changes) > 0 {
					t.Fatal("there is nothing")
				}
				return
			}
			gotPuts, gotDeletes := refs(Update{Puts: got.puts, Deletes: got.deletes})
			if got.snapshot != c.snapshot || got.from != c.from || !slices.Equal(gotPuts, c.puts) || !slices.Equal(gotDeletes, c.deletes) {
				t.Errorf("got %v from %d, puts %v, deletes %v", got.snapshot, got.from, gotPuts, gotDeletes)
			}
			if b.take() != nil {
				t.Error("it is not empty now")
			}
		})
	}
}

// busy is a client that is applying revision 1, from begun until end is closed.
type busy struct {
	t             *testing.T
	told, applied chan Update
	begun, end    chan struct{}
	within        <-chan time.Time
}

func startBusy(t *testing.T, c *cluster) *busy {
	t.Helper()
	b := &busy{t: t, told: make(chan Update, 1000), applied: make(chan Update, 1000),
		begun: make(chan struct{}), end: make(chan struct{}), within: time.After(patience)}
	e := newEdge(t, c.enrol(identity.RoleEdge, "e1"), t.TempDir(), nil, c.address)
	e.client.cfg.Ahead = func(u Update) { b.told <- u }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- e.client.Run(ctx, func(_ context.Context, u Update) error {
			if u.Revision == 1 {
				close(b.begun)
				<-b.end
			}
			b.applied <- u
			return nil
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

// next returns the first update of a revision or a later one.
func (b *busy) next(from chan Update, revision uint64) (u Update) {
	b.t.Helper()
	for u.Revision < revision {
		select {
		case u = <-from:
		case <-b.within:
			b.t.Fatalf("nothing of %d came", revision)
		}
	}
	return u
}

// What comes while an update is being applied is told at once, however much that is,
// and is applied after it as one.
func TestToldAheadOfWhatIsBeingApplied(t *testing.T) {
	c := startCluster(t)
	b := startBusy(t, c)
	c.source.put(gateway("public", nil))
	<-b.begun
	const many = 300
	for i := range many {
		c.source.put(gateway(fmt.Sprintf("g%03d", i), nil))
	}
	last := c.source.remove(ref("Gateway", "g000"))
	b.next(b.told, last)
	close(b.end)
	if u := b.next(b.applied, 1); u.Revision != 1 {
		t.Fatalf("the first is %d", u.Revision)
	}
	if u := b.next(b.applied, 1); u.Revision != last || len(u.Puts) != many-1 || len(u.Deletes) != 1 {
		t.Errorf("then come %d puts and %d deletes to %d, want %d and 1 to %d", len(u.Puts), len(u.Deletes), u.Revision, many-1, last)
	}
	c.awaitAccepted("e1", last)
}

// So is what comes after the server has gone meanwhile, and come back: a revoked key waits
// for no compiler, and it is taken in once.
func TestToldAheadThoughTheStreamHasBroken(t *testing.T) {
	c := startCluster(t)
	b := startBusy(t, c)
	c.source.put(gateway("public", nil), gateway("inner", nil))
	<-b.begun
	for range 2 {
		c.stop()
		c.start()
		gone := c.source.remove(ref("Gateway", "inner"))
		if u := b.next(b.told, gone); len(u.Deletes) != 1 && !u.Snapshot {
			t.Errorf("told %+v", u)
		}
		c.source.put(gateway("inner", nil))
		c.await("e1", func(s *weirv1.ProxyStatus) bool { return s.GetConnected() && s.GetRevision() == 0 })
	}
	last := c.source.put(gateway("last", nil))
	close(b.end)
	if u := b.next(b.applied, 1); u.Revision != 1 {
		t.Fatalf("the first is %d", u.Revision)
	}
	b.next(b.applied, last)
	c.awaitAccepted("e1", last)
}
