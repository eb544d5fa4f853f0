package model

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/weirmesh/weir/test/edge"
)

// shadowed is what the services saw to which requests are mirrored, by the id of
// the request, and what they may have seen.
type shadowed struct {
	mu      sync.Mutex
	seen    map[string][]string
	allowed map[string][][]string
}

// start starts one of these services.
func (s *shadowed) start(t *testing.T, name string) (address string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		copied := fmt.Sprintf("%s: %s", name, asked(t, r))
		s.mu.Lock()
		defer s.mu.Unlock()
		id := r.Header.Get("X-Request-Id")
		s.seen[id] = append(s.seen[id], copied)
		slices.Sort(s.seen[id])
		w.WriteHeader(http.StatusTeapot) // nobody is told
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// await waits for the copies of a request, one of several sets of them, of which the
// least is surely sent.
func (s *shadowed) await(t *testing.T, id string, copies [][]string) bool {
	s.mu.Lock()
	s.allowed[id] = copies
	s.mu.Unlock()
	for end := time.Now().Add(edge.Patience); !s.isOne(id, copies); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%s was copied as %q, not as one of %q", id, s.of(id), copies)
			return false
		}
	}
	return true
}

func (s *shadowed) of(id string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen[id])
}

func (s *shadowed) isOne(id string, copies [][]string) bool {
	seen := s.of(id)
	return slices.ContainsFunc(copies, func(c []string) bool { return slices.Equal(c, seen) })
}

// check compares, once all has ended, what was copied with what might be.
func (s *shadowed) check(t *testing.T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	copied := 0
	for id, seen := range s.seen {
		copied += len(seen)
		if !slices.ContainsFunc(s.allowed[id], func(c []string) bool { return slices.Equal(c, seen) }) {
			t.Errorf("%s was copied as %q, not as one of %q", id, seen, s.allowed[id])
		}
	}
	t.Logf("%d copies", copied)
	clear(s.seen)
	clear(s.allowed)
}
