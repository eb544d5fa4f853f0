package telemetry

import "sync"

// shared is what several hold by a key. It is forgotten once no one holds it any
// more, and with it what Prometheus is told of it. The zero value is ready.
type shared[K comparable, V any] struct {
	mu   sync.Mutex
	held map[K]*holding[V]
}

type holding[V any] struct {
	value V
	refs  int
}

// acquire returns what a key stands for; each acquire is undone by one release.
func (s *shared[K, V]) acquire(key K) *V {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = map[K]*holding[V]{}
	}
	h := s.held[key]
	if h == nil {
		h = new(holding[V])
		s.held[key] = h
	}
	h.refs++
	return &h.value
}

func (s *shared[K, V]) release(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[key]
	if h.refs--; h.refs == 0 {
		delete(s.held, key)
	}
}

// each shows all that is held, under the lock.
func (s *shared[K, V]) each(show func(K, *V)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, h := range s.held {
		show(key, &h.value)
	}
}
