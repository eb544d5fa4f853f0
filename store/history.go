package store

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Event is one change, or everything. It is shared by all who watch.
type Event struct {
	// Reset: forget all, Puts is everything as of Revision.
	Reset bool
	// Previous is the revision that the event leads on from; 0 with Reset.
	Previous, Revision uint64
	// Puts were created or changed.
	Puts []*weirv1.Resource
	// Deletes are gone.
	Deletes []resource.Ref
}

// maxHistory bounds what is kept for those who are behind. A changed resource
// counts one, and so does the event itself.
const maxHistory = 32 << 10

// history is a list of the last events, linked from the oldest to the newest:
//
//	link ─▶ link ─▶ link ─▶ (ready is open)
//	oldest    ▲      newest
//	          └ a watcher stands on the last event that it has seen
//
// A watcher needs no queue and no goroutine of its own: it walks the list at
// its own pace and waits at the end for ready to close. The writer never waits
// for anyone. It cuts what grows too old off from what follows, so that one
// who stands there pins that one event alone; he finds the end of his list
// where more should be, and starts afresh.
type history struct {
	mu sync.Mutex
	// oldest is only a place to stand: its own event is no longer offered.
	oldest, newest *link
	// weight is that of all events after oldest, bound the most it may be.
	weight, bound int
}

type link struct {
	// revision is the event's; the first link of a list has no event.
	revision uint64
	event    *Event
	// ready closes when next is set, or never will be.
	ready chan struct{}
	next  atomic.Pointer[link]
}

func newHistory(revision uint64) *history {
	first := &link{revision: revision, ready: make(chan struct{})}
	return &history{oldest: first, newest: first, bound: maxHistory}
}

func (l *link) weight() int {
	return 1 + len(l.event.Puts) + len(l.event.Deletes)
}

// add appends events and shows what they lead to, for every watcher at once.
func (h *history) add(events []*Event, show func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	show()
	for _, event := range events {
		l := &link{revision: event.Revision, event: event, ready: make(chan struct{})}
		h.weight += l.weight()
		h.newest.next.Store(l)
		close(h.newest.ready)
		h.newest = l
	}
	for h.weight > h.bound {
		h.oldest = h.oldest.next.Swap(nil)
		h.weight -= h.oldest.weight()
	}
}

// restart forgets all: whoever watches starts afresh.
func (h *history) restart(revision uint64, show func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	show()
	for l := h.oldest; l != nil; l = l.next.Swap(nil) {
		if l == h.newest {
			close(l.ready)
		}
	}
	first := &link{revision: revision, ready: make(chan struct{})}
	h.oldest, h.newest, h.weight = first, first, 0
}

// after returns where to stand for what follows a revision, or false when that
// is not known: it is too old, or of another history.
func (h *history) after(revision uint64) (*link, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if revision == 0 || revision < h.oldest.revision || revision > h.newest.revision {
		return nil, false
	}
	at := h.oldest
	for next := at.next.Load(); next != nil && next.revision <= revision; next = at.next.Load() {
		at = next
	}
	return at, true
}

// afresh returns the newest link and, taken at the same moment, what it led to.
func (h *history) afresh(view *atomic.Pointer[View]) (*link, *Event) {
	h.mu.Lock()
	at, v := h.newest, view.Load()
	h.mu.Unlock()
	return at, &Event{Reset: true, Revision: v.revision, Puts: v.listed()}
}

// Watch yields what changes after a revision, each change once and in order,
// for as long as the context lives. It begins with a Reset for revision 0, and
// for one that is too old or unknown; one who falls too far behind gets a
// Reset in between. The last pair holds the error that ended it: the context's
// or [ErrClosed].
func (s *Store) Watch(ctx context.Context, after uint64) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		at, known := s.history.after(after)
		for {
			if !known {
				var event *Event
				if at, event = s.history.afresh(&s.view); !yield(event, nil) {
					return
				}
			}
			select {
			case <-ctx.Done():
				yield(nil, context.Cause(ctx))
				return
			case <-s.closed:
				yield(nil, ErrClosed)
				return
			case <-at.ready:
			}
			next := at.next.Load()
			if known = next != nil; !known {
				continue
			}
			if at = next; !yield(at.event, nil) {
				return
			}
		}
	}
}
