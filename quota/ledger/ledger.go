// Package ledger decides who may admit how many requests of a limit: proxies ask for
// tokens, in blocks, and what one holds no other does. It is the servers' side of exact
// limits, and pure: state and a command in, state and an answer out, on every server
// the same.
//
//	clock, command ─▶ Tick ─▶ the ledger's time ─▶ Grant(record, limit, ask) ─▶ record, grant
//
// # Promises
//
//   - In one window all that is held and all that was lost is never more than the limit,
//     whatever is repeated, reordered, lost or replayed, unless a proxy says that it has
//     already let more pass, which one does only for a limit that is not exact.
//   - An ask is absolute: it says what the proxy holds, and the newest is the truth. So
//     an answer that was lost leaves nothing behind, and there is nothing to undo.
//   - What a proxy that died held is lost for that window alone.
//   - A record has one window and one entry for each proxy that has had to do with it,
//     of which there are at most [maxHolders].
//
// # Time
//
// Windows are aligned to the epoch of the ledger's time, which no clock can turn back.
// A process that proposes says what the wall clock is and how long it runs. While it is
// known, the ledger's time is its running time, bent towards its wall clock by 1/64 where
// that is ahead, and by 1/8 where it is behind: a clock that somebody sets opens no
// window early and stops none. A process that is new is believed as far as its wall
// clock is ahead; that is the one way by which time jumps
// (docs/decisions/leased-limits.md).
package ledger

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

const (
	// How far time is bent. What a grant says of how long its window lasts is shorter
	// by as much as time may run fast.
	bendForward = 64
	bendBack    = 8

	// maxSources bounds the processes whose running time is known.
	maxSources = 16
	// maxHolders bounds the proxies of one record. Beyond that what the one that has
	// asked least lately holds is lost.
	maxHolders = 16 << 10
	// maxTime is far in the future, and far from where times overflow.
	maxTime = int64(1) << 62
	// maxStep is the most that is believed of a running time at once.
	maxStep = 400 * 24 * time.Hour
)

// Tick is the clock after a command.
func Tick(c *weirv1.LeaseClock, source string, wall time.Time, elapsed time.Duration) *weirv1.LeaseClock {
	next := &weirv1.LeaseClock{Sources: slices.Clone(c.GetSources())}
	clock, now := sinceEpoch(wall), Now(c)
	elapsed = max(elapsed, 0)
	i := slices.IndexFunc(next.Sources, func(s *weirv1.LeaseSource) bool { return s.GetName() == source })
	if i < 0 {
		now = max(now, clock)
		if len(next.Sources) >= maxSources {
			oldest := slices.MinFunc(next.Sources, func(a, b *weirv1.LeaseSource) int { return cmp.Compare(nanos(a.GetAt()), nanos(b.GetAt())) })
			next.Sources = slices.DeleteFunc(next.Sources, func(s *weirv1.LeaseSource) bool { return s == oldest })
		}
		next.Sources = append(next.Sources, nil)
		i = len(next.Sources) - 1
	} else {
		known := next.Sources[i]
		step := between(0, int64(elapsed-known.GetElapsed().AsDuration()), int64(maxStep))
		now = max(now, bend(nanos(known.GetAt()), step, clock))
		elapsed = max(elapsed, known.GetElapsed().AsDuration())
	}
	now = min(now, maxTime)
	next.Now = stamp(now)
	next.Sources[i] = &weirv1.LeaseSource{Name: source, Elapsed: durationpb.New(elapsed), At: stamp(now)}
	return next
}

// bend is a time some steps later, on the way towards a clock.
func bend(from, step, clock int64) int64 {
	switch straight := from + step; {
	case straight < clock:
		return min(clock, straight+step/bendForward)
	default:
		return max(min(clock, straight), straight-step/bendBack)
	}
}

func between(low, n, high int64) int64 { return min(max(low, n), high) }

// Now is the ledger's time, in nanoseconds since the epoch.
func Now(c *weirv1.LeaseClock) int64 { return nanos(c.GetNow()) }

func nanos(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return sinceEpoch(t.AsTime())
}

func sinceEpoch(t time.Time) int64 {
	return between(0, t.Unix(), maxTime/1e9)*1e9 + int64(t.Nanosecond())
}

func stamp(n int64) *timestamppb.Timestamp {
	return &timestamppb.Timestamp{Seconds: n / 1e9, Nanos: int32(n % 1e9)}
}

// Limit is what is declared.
type Limit struct {
	Requests uint64
	// Window is in whole seconds.
	Window time.Duration
}

// StartOf is when the window begins that a time is in, in seconds since the epoch.
func (l Limit) StartOf(now int64) uint64 {
	length := int64(l.seconds())
	return uint64(now / 1e9 / length * length)
}

func (l Limit) seconds() uint64 { return uint64(max(l.Window/time.Second, 1)) }

// Ask is one proxy's, about one limit.
type Ask struct {
	Node            string
	Epoch, Sequence uint64
	*weirv1.LeaseAsk
}

// maxTokens is more than any limit has, and so little that no sum overflows.
const maxTokens = uint64(1) << 51

// Grant answers an ask at a time. The record, which is nil where nothing was granted
// yet, stays as it is; the one that is returned takes its place.
func Grant(record *weirv1.LeaseRecord, limit Limit, now int64, ask Ask) (*weirv1.LeaseRecord, *weirv1.LeaseGrant) {
	next := InWindow(record, limit, now)
	i := slices.IndexFunc(next.Holders, func(h *weirv1.LeaseHolder) bool {
		return h.GetNode() == ask.Node && h.GetEpoch() == ask.Epoch
	})
	if i >= 0 && next.Holders[i].GetSequence() >= ask.Sequence {
		return next, answer(next, limit, now, next.Holders[i])
	}
	h := holderOf(ask, next)
	if i >= 0 {
		if was := next.Holders[i]; was.GetSequence() < ask.GetSince() {
			next.Lost = min(next.Lost+was.GetHeld(), maxTokens)
		}
		next.Holders = slices.Delete(next.Holders, i, i+1)
	}
	next.Holders = append(next.Holders, h) // the one that has asked last is the last
	if len(next.Holders) > maxHolders {
		next.Lost = min(next.Lost+next.Holders[0].GetHeld(), maxTokens)
		next.Holders = slices.Delete(next.Holders, 0, 1)
	}
	h.Held += share(next, limit, min(ask.GetWant(), maxTokens))
	if granted := Granted(next); granted > limit.Requests {
		next.Overshoot = max(next.Overshoot, granted-limit.Requests)
	}
	return next, answer(next, limit, now, h)
}

// holderOf is what a proxy says that it holds of the record's window.
func holderOf(ask Ask, r *weirv1.LeaseRecord) *weirv1.LeaseHolder {
	h := &weirv1.LeaseHolder{Node: ask.Node, Epoch: ask.Epoch, Sequence: ask.Sequence}
	if ask.GetWindowSeconds() == r.GetWindowSeconds() && ask.GetWindowStart() == r.GetWindowStart() {
		h.Held = min(ask.GetHeld(), maxTokens)
		h.Used = min(ask.GetUsed(), h.Held)
	}
	beyond := min(ask.GetBeyond(), maxTokens)
	h.Held, h.Used = h.Held+beyond, h.Used+beyond
	return h
}

// InWindow is a copy of the record in the window that is now.
func InWindow(r *weirv1.LeaseRecord, limit Limit, now int64) *weirv1.LeaseRecord {
	next := &weirv1.LeaseRecord{WindowStart: limit.StartOf(now), WindowSeconds: limit.seconds(), Overshoot: r.GetOvershoot()}
	switch {
	case r == nil:
	case r.GetWindowStart() == next.WindowStart && r.GetWindowSeconds() == next.WindowSeconds:
		next.Lost, next.Holders = r.GetLost(), slices.Clone(r.GetHolders())
	case int64(r.GetWindowStart()+r.GetWindowSeconds()) > now/1e9:
		// Another length was declared while the window was open: what was granted
		// of it may be in use until it ends.
		next.Lost = Granted(r)
	default:
		// A late copy of an old ask must not count as a first one.
		for _, h := range r.GetHolders() {
			if h.GetHeld() > 0 {
				next.Holders = append(next.Holders, &weirv1.LeaseHolder{Node: h.GetNode(), Epoch: h.GetEpoch(), Sequence: h.GetSequence()})
			}
		}
	}
	return next
}

// share is how much of what is wanted a proxy gets. Each gets half of an equal part
// of what remains, and at least one while there is one: the less there is, the smaller
// are the blocks that proxies hold while others wait.
func share(r *weirv1.LeaseRecord, limit Limit, want uint64) uint64 {
	remaining := Remaining(r, limit)
	if remaining == 0 || want == 0 {
		return 0
	}
	holders := uint64(1)
	for _, h := range r.GetHolders()[:len(r.GetHolders())-1] {
		if h.GetHeld() > 0 {
			holders++
		}
	}
	return min(want, max(1, remaining/(2*holders)))
}

// Granted is all that was granted in the record's window.
func Granted(r *weirv1.LeaseRecord) uint64 {
	granted := min(r.GetLost(), maxTokens)
	for _, h := range r.GetHolders() {
		granted = min(granted+min(h.GetHeld(), maxTokens), 2*maxTokens)
	}
	return granted
}

// Remaining is what nobody holds.
func Remaining(r *weirv1.LeaseRecord, limit Limit) uint64 {
	if granted := Granted(r); granted < limit.Requests {
		return limit.Requests - granted
	}
	return 0
}

func answer(r *weirv1.LeaseRecord, limit Limit, now int64, holder *weirv1.LeaseHolder) *weirv1.LeaseGrant {
	end := int64(r.GetWindowStart()+r.GetWindowSeconds()) * 1e9
	lasts := max(end-now, 0)
	g := &weirv1.LeaseGrant{
		WindowStart: r.GetWindowStart(), WindowSeconds: r.GetWindowSeconds(), Held: holder.GetHeld(),
		Lasts: durationpb.New(time.Duration(lasts - lasts/bendForward)), Ends: durationpb.New(time.Duration(lasts)),
		Requests: limit.Requests, Remaining: Remaining(r, limit), Holders: 1,
	}
	g.Exhausted = g.Remaining == 0
	for _, h := range r.GetHolders() {
		if h == holder || h.GetHeld() == 0 {
			continue
		}
		g.Holders++
		g.Exhausted = g.Exhausted && h.GetUsed() >= h.GetHeld()
	}
	if granted := Granted(r); granted > limit.Requests {
		g.Overshoot = granted - limit.Requests
	}
	return g
}
