package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// watcher pulls from a Watch, step by step.
type watcher struct {
	t    *testing.T
	next func() (*Event, error, bool)
	stop func()
}

func watch(t *testing.T, b *bench, after uint64) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	next, stop := iter.Pull2(b.Watch(ctx, after))
	t.Cleanup(func() { cancel(); stop() })
	return &watcher{t: t, next: next, stop: stop}
}

// require compares the next events, each written as "previous→revision +puts -deletes"
// or "=revision +puts" for a reset.
func (w *watcher) require(want ...string) {
	w.t.Helper()
	var got []string
	for range want {
		event, err, _ := w.next()
		if err != nil {
			w.t.Fatal(err)
		}
		got = append(got, describe(event))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Fatalf("events (-want +got):\n%s", diff)
	}
}

func describe(e *Event) string {
	s := fmt.Sprintf("%d→%d", e.Previous, e.Revision)
	if e.Reset {
		s = fmt.Sprintf("=%d", e.Revision)
	}
	for _, r := range e.Puts {
		s += " +" + resource.Of(r).Name
	}
	for _, ref := range e.Deletes {
		s += " -" + ref.Name
	}
	return s
}

func TestWatchBeginsWithEverything(t *testing.T) {
	b := open(t)
	watch(t, b, 0).require("=0")
	b.put(service("b"), service("a"))
	w := watch(t, b, 0)
	w.require("=1 +a +b")
	b.put(service("c"))
	b.delete(ref("Service", "a"))
	w.require("1→2 +c", "2→3 -a")
}

func TestWatchGoesOnFromARevision(t *testing.T) {
	b := open(t)
	for _, name := range []string{"a", "b", "c"} {
		b.put(service(name))
	}
	b.index = 10
	b.entry(transact([]*weirv1.Resource{service("d")}), putValue("t", "k", "v"), transact([]*weirv1.Resource{service("d", "v1"), service("e")}, ref("Service", "a")))
	watch(t, b, 1).require("1→2 +b", "2→3 +c", "3→11 +d", "11→12 +d +e -a")
	watch(t, b, 3).require("3→11 +d", "11→12 +d +e -a")
	watch(t, b, 7).require("3→11 +d", "11→12 +d +e -a")
	w := watch(t, b, 12)
	b.put(service("d", "v1")) // as it was: no event
	b.put(service("f"))
	w.require("12→13 +f")
}

func TestWatchFromARevisionThatIsNotKnown(t *testing.T) {
	b := open(t)
	b.put(service("a"))
	b.put(service("b"))
	b.reopen()
	watch(t, b, 1).require("=2 +a +b") // too old
	watch(t, b, 9).require("=2 +a +b") // of another history
	w := watch(t, b, 2)
	b.put(service("c"))
	w.require("2→3 +c")
}

func TestSlowWatcherStartsAfresh(t *testing.T) {
	b := open(t)
	b.history.bound = 64
	b.put(service("a"))
	slow, quick := watch(t, b, 0), watch(t, b, 0)
	slow.require("=1 +a")
	quick.require("=1 +a")
	for i := 0; i <= b.history.bound; i += 2 {
		b.put(label(service("a"), "i", fmt.Sprint(i)))
		quick.require(fmt.Sprintf("%d→%d +a", b.index-1, b.index))
	}
	slow.require(fmt.Sprintf("=%d +a", b.index))
	b.put(service("b"))
	slow.require(fmt.Sprintf("%d→%d +b", b.index-1, b.index))
	if b.history.weight > b.history.bound {
		t.Errorf("the history weighs %d", b.history.weight)
	}
}

func TestChangeThatOutweighsTheHistory(t *testing.T) {
	b := open(t)
	b.history.bound = 64
	w := watch(t, b, 0)
	w.require("=0")
	var all []*weirv1.Resource
	for i := range b.history.bound + 1 {
		all = append(all, service(fmt.Sprintf("s%d", i)))
	}
	b.put(all...)
	event, err, _ := w.next()
	if err != nil || !event.Reset || len(event.Puts) != len(all) {
		t.Fatalf("event is %v, %v", event, err)
	}
	b.put(service("next"))
	w.require("1→2 +next")
}

func TestWatchWaitsAndEnds(t *testing.T) {
	b := &bench{t: t, dir: t.TempDir()}
	b.open()
	ended := errors.New("the caller is gone")
	synctest.Test(t, func(t *testing.T) {
		// A channel of a bubble must be made in it.
		b.closed = make(chan struct{})
		b.history = newHistory(b.View().Revision())
		ctx, cancel := context.WithCancelCause(t.Context())
		results := make(chan string, 8)
		run := func(ctx context.Context) {
			for event, err := range b.Watch(ctx, 0) {
				if err != nil {
					results <- err.Error()
					return
				}
				results <- describe(event)
			}
		}
		require := func(want string) {
			t.Helper()
			synctest.Wait()
			select {
			case got := <-results:
				if got != want {
					t.Fatalf("got %q, want %q", got, want)
				}
			default:
				t.Fatalf("got nothing, want %q", want)
			}
			if len(results) > 0 {
				t.Fatalf("and then %q", <-results)
			}
		}
		go run(ctx)
		require("=0")
		b.put(service("a"))
		require("0→1 +a")
		cancel(ended)
		require(ended.Error())

		go run(t.Context())
		require("=1 +a")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		require(ErrClosed.Error())
	})
}

func TestViewNeverChanges(t *testing.T) {
	b := open(t)
	b.put(service("a"), service("b"))
	view := b.View()
	b.put(service("a", "v1"), service("c"))
	b.delete(ref("Service", "b"))
	var names string
	for r := range view.All() {
		names += resource.Of(r).Name
	}
	a, _ := view.Get(ref("Service", "a"))
	if names != "ab" || len(a.GetService().Spec.Subsets) != 0 || view.Revision() != 1 {
		t.Errorf("an old view shows %q, %v", names, a)
	}
}

func TestList(t *testing.T) {
	b := open(t)
	press := service("a")
	resource.Meta(press).Tenant = "press"
	b.put(service("b"), service("a"), service("a-b"), press, gateway("a"), route("a", "a"))
	all := []string{"Gateway default/a", "Route default/a", "Service default/a", "Service default/a-b", "Service default/b", "Service press/a"}
	tests := map[string]struct {
		kind, tenant string
		want         []string
	}{
		"everything":           {"", "*", all},
		"a kind":               {"Service", "*", all[2:]},
		"a tenant":             {"", "default", all[:5]},
		"a kind of a tenant":   {"Service", "default", all[2:5]},
		"another tenant":       {"Service", "press", all[5:]},
		"a kind without any":   {"Policy", "default", nil},
		"no kind of that name": {"Serv", "*", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for limit := 1; limit < 8; limit++ {
				var got []string
				var after resource.Ref
				for more := true; more; {
					var page []*weirv1.Resource
					page, more = b.View().List(test.kind, test.tenant, after, limit)
					if len(page) > limit || more && len(page) < limit {
						t.Fatalf("a page of %d, limit %d, more %v", len(page), limit, more)
					}
					for _, r := range page {
						after = resource.Of(r)
						got = append(got, after.Kind+" "+after.Tenant+"/"+after.Name)
					}
				}
				requireSame(t, test.want, got)
			}
		})
	}
	requireSame(t, map[string]uint64{"Gateway": 1, "Route": 1, "Service": 4}, b.View().Counts())
}
