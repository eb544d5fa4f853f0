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
	best := map[string]sighting{}
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

// sight takes the status of a proxy into account. A connected proxy was last
// seen when its member was, and is connected while that is not silent.
func sight(best map[string]sighting, status *weirv1.ProxyStatus, live bool, heard time.Time) {
	s := sighting{status: status, connected: status.GetConnected() && live, seen: status.GetLastSeen().AsTime()}
	if status.GetConnected() {
		s.seen = heard
	}
	if other, told := best[status.GetName()]; !told || s.betterThan(other) {
		best[status.GetName()] = s
	}
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
		RefusedRevision: m.GetRefusedRevision(), RefusedReason: m.GetRefusedReason(),
		Version: m.GetVersion(), Address: m.GetAddress(), LastSeen: timestamppb.New(s.seen),
	}
}

// byName is a list of statuses. A name that two bear, an edge and a sidecar, is
// decided as between two members.
func byName(list []*weirv1.ProxyStatus) map[string]*weirv1.ProxyStatus {
	best := make(map[string]sighting, len(list))
	for _, status := range list {
		sight(best, status, true, time.Time{})
	}
	statuses := make(map[string]*weirv1.ProxyStatus, len(best))
	for name, s := range best {
		statuses[name] = s.status
	}
	return statuses
}
