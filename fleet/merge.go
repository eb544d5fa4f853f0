package fleet

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Statuses returns the proxies of all members, this one included, by name, and
// a channel that is closed when one of them has changed since. What is returned
// is not to be changed. It is as of now while the fleet runs.
func (f *Fleet) Statuses() ([]*weirv1.ProxyStatus, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	best := make(map[string]sighting, f.most())
	f.board.sight(best, time.Now())
	for _, name := range slices.Sorted(maps.Keys(f.peers)) {
		p := f.peers[name]
		for _, status := range p.proxies {
			sight(best, status, p.live, p.heard)
		}
	}
	statuses := make([]*weirv1.ProxyStatus, 0, len(best))
	for _, s := range best {
		statuses = append(statuses, s.asStatus())
	}
	slices.SortFunc(statuses, func(a, b *weirv1.ProxyStatus) int { return cmp.Compare(a.GetName(), b.GetName()) })
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return statuses, f.changed
}

// most is as many proxies as there may be, by all members. The lock is held.
func (f *Fleet) most() int {
	n := f.board.size()
	for _, p := range f.peers {
		n += len(p.proxies)
	}
	return n
}

func (b *board) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.proxies)
}

// sighting is a proxy as one member tells of it, corrected by how that member is.
type sighting struct {
	status    *weirv1.ProxyStatus
	connected bool
	seen      time.Time
}

func (b *board) sight(best map[string]sighting, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.proxies {
		sight(best, p.status, true, now)
	}
}

func sight(best map[string]sighting, status *weirv1.ProxyStatus, live bool, heard time.Time) {
	s := sighted(status, live, heard)
	if other, told := best[status.GetName()]; !told || s.betterThan(other) {
		best[status.GetName()] = s
	}
}

// sighted: a connected proxy was last seen when its member was, and is connected
// while that is not silent.
func sighted(status *weirv1.ProxyStatus, live bool, heard time.Time) sighting {
	if !status.GetConnected() {
		return sighting{status: status, seen: status.GetLastSeen().AsTime()}
	}
	return sighting{status: status, connected: live, seen: heard}
}

// betterThan decides between two members that tell of the same proxy. Where it
// is connected to both, one has not noticed yet that it left: that is the one
// that knows of fewer answers of it.
func (s sighting) betterThan(other sighting) bool {
	switch {
	case s.connected != other.connected:
		return s.connected
	case s.connected && s.answered() != other.answered():
		return s.answered() > other.answered()
	}
	return s.seen.After(other.seen)
}

// answered is the newest revision that the proxy had something to say to.
func (s sighting) answered() uint64 {
	return max(s.status.GetRevision(), s.status.GetRefusedRevision())
}

func (s sighting) asStatus() *weirv1.ProxyStatus {
	m := s.status
	if !m.GetConnected() {
		return m
	}
	return &weirv1.ProxyStatus{
		Name: m.GetName(), Labels: m.GetLabels(), Connected: s.connected, Revision: m.GetRevision(),
		RefusedRevision: m.GetRefusedRevision(), RefusedReason: m.GetRefusedReason(), Problem: m.GetProblem(),
		Version: m.GetVersion(), Address: m.GetAddress(), LastSeen: timestamppb.New(s.seen), Plugins: m.GetPlugins(),
		Service: m.GetService(),
	}
}
