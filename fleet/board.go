package fleet

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// maxRemoved names of proxies that are no more are remembered. Who does not know
// of older ones is told everything.
const maxRemoved = 1024

// board is what this member says of itself, and since when.
type board struct {
	mu sync.Mutex
	// version is that of the newest change. What changed up to floor is not known
	// one by one: before the process began, or with too many proxies removed.
	floor, version uint64
	head           *weirv1.MemberReport // without proxies; nil: nothing was said yet
	proxies        map[string]posted
	removed        map[string]uint64
	changed        chan struct{} // closed at the next change; nil while nobody waits
}

type posted struct {
	status  *weirv1.ProxyStatus
	version uint64 // at which it changed
}

func newBoard() *board {
	start := rand.Uint64()>>1 | 1
	return &board{floor: start, version: start, proxies: map[string]posted{}, removed: map[string]uint64{}}
}

// post takes a new report, and tells whether there is news in it. What is merely
// measured is none.
func (b *board) post(r *weirv1.MemberReport) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.version + 1
	head := headOf(r)
	news := b.head == nil || !sameHead(b.head, head)
	proxies := byName(r.GetProxies())
	for name, now := range proxies {
		was, known := b.proxies[name]
		if !known || !sameStatus(was.status, now.status) {
			was, news = posted{now.status, next}, true
			delete(b.removed, name)
		}
		proxies[name] = was
	}
	for name := range b.proxies {
		if _, still := proxies[name]; !still {
			b.removed[name], news = next, true
		}
	}
	b.head, b.proxies = head, proxies
	if !news {
		return false
	}
	b.version = next
	if len(b.removed) > maxRemoved {
		clear(b.removed)
		b.floor = next
	}
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
	return true
}

// byName is a list of statuses. A name that two bear, an edge and a sidecar, is
// decided as between two members.
func byName(list []*weirv1.ProxyStatus) map[string]posted {
	proxies := make(map[string]posted, len(list))
	for _, status := range list {
		other, two := proxies[status.GetName()]
		if !two || sighted(status, true, time.Time{}).betterThan(sighted(other.status, true, time.Time{})) {
			proxies[status.GetName()] = posted{status: status}
		}
	}
	return proxies
}

// headOf is a report without its proxies.
func headOf(r *weirv1.MemberReport) *weirv1.MemberReport {
	return &weirv1.MemberReport{
		Member: r.GetMember(), AdminAddress: r.GetAdminAddress(), Now: r.GetNow(),
		DiskFree: r.GetDiskFree(), DiskSize: r.GetDiskSize(), NotAfter: r.GetNotAfter(),
	}
}

// sameHead leaves out what is measured, which always changes.
func sameHead(a, b *weirv1.MemberReport) bool {
	x, y := a.GetMember(), b.GetMember()
	return x.GetName() == y.GetName() && x.GetRole() == y.GetRole() && x.GetState() == y.GetState() &&
		x.GetAddress() == y.GetAddress() && x.GetVersion() == y.GetVersion() &&
		a.GetAdminAddress() == b.GetAdminAddress() && a.GetNotAfter().AsTime().Equal(b.GetNotAfter().AsTime())
}

// sameStatus leaves out when a connected proxy was last seen, which is now. It
// is called for every proxy at every change: that rules reflection out.
func sameStatus(a, b *weirv1.ProxyStatus) bool {
	return a.GetName() == b.GetName() && a.GetConnected() == b.GetConnected() && a.GetRevision() == b.GetRevision() &&
		a.GetRefusedRevision() == b.GetRefusedRevision() && a.GetRefusedReason() == b.GetRefusedReason() && a.GetProblem() == b.GetProblem() && a.GetService() == b.GetService() &&
		a.GetVersion() == b.GetVersion() && a.GetAddress() == b.GetAddress() && maps.Equal(a.GetLabels(), b.GetLabels()) &&
		(a.GetConnected() || a.GetLastSeen().AsTime().Equal(b.GetLastSeen().AsTime())) &&
		slices.EqualFunc(a.GetPlugins(), b.GetPlugins(), sameReport)
}

// sameReport looks closer only where there is a canary, and news of it.
func sameReport(a, b *weirv1.PluginReport) bool { return a == b || proto.Equal(a, b) }

// await returns what is new since a version, or what there is once the time is
// over. It is nil when nothing was said yet.
func (b *board) await(ctx context.Context, after uint64, wait time.Duration) *weirv1.ReportResponse {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		changed := b.news(after)
		if changed == nil {
			break
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
		}
		break
	}
	return b.answer(after, begun)
}

// news is nil when there is some.
func (b *board) news(after uint64) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.head != nil && b.version != after {
		return nil
	}
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.changed
}

func (b *board) answer(after uint64, begun time.Time) *weirv1.ReportResponse {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.head == nil {
		return nil
	}
	report := proto.CloneOf(b.head)
	m := &weirv1.ReportResponse{Version: b.version, Report: report, Full: after < b.floor || after > b.version}
	if m.GetFull() || after != b.version {
		for _, p := range b.proxies {
			if m.GetFull() || p.version > after {
				report.Proxies = append(report.Proxies, p.status)
			}
		}
		for name, version := range b.removed {
			if !m.GetFull() && version > after {
				m.Removed = append(m.Removed, name)
			}
		}
	}
	now := time.Now()
	report.Now, m.Held = timestamppb.New(now), durationpb.New(now.Sub(begun))
	return m
}
