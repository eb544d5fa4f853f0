package nodeapi

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// Source is what is declared, as the server's own store knows it. What it
// yields belongs to all: it is not changed here.
type Source interface {
	// Watch yields what changed after a revision, for as long as the context
	// lasts. After 0, or a revision that is forgotten, the first change is a
	// Reset that holds everything, and it comes at once.
	Watch(ctx context.Context, after uint64) iter.Seq2[Change, error]
	// Blob returns a reader of content by its digest, or nil when there is none.
	// It may be left before its end.
	Blob(digest string) io.Reader
}

const (
	// A scope that nobody is subscribed to is kept for proxies that come back.
	idleScopes   = 256
	idleScopeAge = 10 * time.Minute
	watchRetry   = time.Second
)

// hub follows the source, once for all, and keeps the scopes up to date.
type hub struct {
	source Source
	log    *slog.Logger
	ready  chan struct{} // closed once the first reset is in

	mu     sync.Mutex
	graph  *graph
	scopes map[string]*scope
}

func newHub(source Source, log *slog.Logger) *hub {
	return &hub{source: source, log: log, ready: make(chan struct{}), graph: newGraph(), scopes: map[string]*scope{}}
}

// run follows the source until ctx ends.
func (h *hub) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := h.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		h.log.Error("watch of the store ended; watching again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
}

var errWatchEnded = errors.New("the watch ended by itself")

func (h *hub) follow(ctx context.Context) error {
	h.mu.Lock()
	after := h.graph.revision
	h.mu.Unlock()
	for c, err := range h.source.Watch(ctx, after) {
		if err != nil {
			return err
		}
		h.apply(c)
	}
	return errWatchEnded
}

func (h *hub) apply(c Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	touched := h.graph.apply(c)
	for _, s := range h.scopes {
		s.change(c.Revision, touched)
	}
	select {
	case <-h.ready:
	default:
		close(h.ready)
	}
}

// join enters the scope of an audience; leave undoes it.
func (h *hub) join(of audience) *scope {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := of.key()
	s := h.scopes[key]
	if s == nil {
		s = newScope(of, h.graph)
		h.scopes[key] = s
	}
	s.streams++
	return s
}

func (h *hub) leave(s *scope) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.streams--
	s.idleSince = time.Now()
	h.prune()
}

// prune forgets scopes that nobody has needed for long, and the longest idle
// ones when they are many.
func (h *hub) prune() {
	var idle []string
	for key, s := range h.scopes {
		if s.streams == 0 {
			idle = append(idle, key)
		}
	}
	slices.SortFunc(idle, func(a, b string) int { return h.scopes[a].idleSince.Compare(h.scopes[b].idleSince) })
	for i, key := range idle {
		if len(idle)-i > idleScopes || time.Since(h.scopes[key].idleSince) > idleScopeAge {
			delete(h.scopes, key)
		}
	}
}

// snapshot returns a scope's snapshot and the number of the change after it.
func (h *hub) snapshot(s *scope) (f *frame, next uint64) {
	s.snapshot.mu.Lock()
	defer s.snapshot.mu.Unlock()
	if s.snapshot.frame != nil {
		if _, _, ok := s.history.at(s.snapshot.next); ok {
			return s.snapshot.frame, s.snapshot.next
		}
	}
	h.mu.Lock()
	all := slices.Collect(maps.Values(s.members))
	next, at := s.history.next()
	h.mu.Unlock()

	sortResources(all)
	s.snapshot.frame, s.snapshot.next = encodeSnapshot(at, all), next
	return s.snapshot.frame, next
}

// revision is the newest one known here.
func (h *hub) revision() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.graph.revision
}
