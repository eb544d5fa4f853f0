package fleet

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

const (
	// spacing is the least time between two looks at the same thing.
	spacing = 2 * time.Millisecond
	// lookEvery is how long what nobody calls a change goes unseen.
	lookEvery = time.Second
	// silentAfter is how long a member may say nothing.
	silentAfter = 5 * time.Second
)

// Config is what a fleet is made of. All of it is required.
type Config struct {
	Identity *identity.Identity
	Dialer   *nodeport.Dialer
	// Name is this member's.
	Name string
	// Members are the others, and a channel that is closed when they have changed
	// since; nil: they are looked at every second.
	Members func() (others []Member, changed <-chan struct{})
	// Local is what this member says of itself, and a channel that is closed when
	// its proxies have changed since. A report that was returned is never changed.
	Local  func() (report *weirv1.MemberReport, changed <-chan struct{})
	Logger *slog.Logger
}

// Member is another server.
type Member struct{ Name, Address string }

// Fleet is this member's knowledge of all of them.
type Fleet struct {
	cfg   Config
	board *board
	life  context.Context // ends when questions must
	end   context.CancelFunc

	mu      sync.Mutex
	peers   map[string]*peer
	changed chan struct{} // closed at the next change; nil while nobody waits
}

// New makes a fleet; Run runs it.
func New(cfg Config) *Fleet {
	f := &Fleet{cfg: cfg, board: newBoard(), peers: map[string]*peer{}}
	f.life, f.end = context.WithCancel(context.Background())
	return f
}

// Run asks and answers until ctx ends, and waits for all that it has begun. It
// may be called once.
func (f *Fleet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	defer f.end()
	running.Go(func() { f.followLocal(ctx) })
	f.followMembers(ctx, &running)
	return nil
}

// followLocal puts on the board what this member says of itself. However much
// there is to say, it spends no more than a fifth of its time on it.
func (f *Fleet) followLocal(ctx context.Context) {
	for ctx.Err() == nil {
		begun := time.Now()
		report, changed := f.cfg.Local()
		if f.board.post(report) {
			f.mu.Lock()
			f.notify()
			f.mu.Unlock()
		}
		pause(ctx, max(spacing, 4*time.Since(begun)), nil)
		pause(ctx, lookEvery, changed)
	}
}

// followMembers keeps one peer for each other member, and notices who is silent.
func (f *Fleet) followMembers(ctx context.Context, running *sync.WaitGroup) {
	for ctx.Err() == nil {
		others, changed := f.cfg.Members()
		f.keep(ctx, running, others)
		wait := f.markSilent(time.Now())
		pause(ctx, spacing, nil)
		pause(ctx, wait, changed)
	}
}

func (f *Fleet) keep(ctx context.Context, running *sync.WaitGroup, others []Member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gone := make(map[string]*peer, len(f.peers))
	for name, p := range f.peers {
		gone[name] = p
	}
	for _, m := range others {
		delete(gone, m.Name)
		if m.Name == f.cfg.Name {
			continue
		}
		p := f.peers[m.Name]
		if p == nil {
			p = newPeer(ctx, f, m)
			f.peers[m.Name] = p
			running.Go(p.run)
		}
		p.move(m.Address)
	}
	for name, p := range gone {
		p.stop()
		delete(f.peers, name)
		f.notify()
	}
}

// markSilent returns when to look again.
func (f *Fleet) markSilent(now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	again := lookEvery
	for _, p := range f.peers {
		if !p.live {
			continue
		}
		left := silentAfter - now.Sub(p.heard)
		if left > 0 {
			again = min(again, left)
			continue
		}
		p.live = false
		f.notify()
	}
	return again
}

// notify is called with the lock held.
func (f *Fleet) notify() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// Report is what is known of another member.
type Report struct {
	Name string
	// Report is what it said last, without its proxies. It is not to be changed;
	// nil: it was never heard of.
	Report *weirv1.MemberReport
	// Age is how long ago that was, or how long it has not been heard of at all.
	Age time.Duration
	// Err is why it cannot be asked; nil: it can.
	Err error
	// Skew is how far its clock is ahead of ours. It is zero where the round trip
	// took too long to tell.
	Skew time.Duration
}

// Reports is what is known of the other members, by name.
func (f *Fleet) Reports() []Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	reports := make([]Report, 0, len(f.peers))
	for _, p := range f.peers {
		reports = append(reports, Report{Name: p.name, Report: p.head, Age: time.Since(p.heard), Err: p.err, Skew: p.skew})
	}
	slices.SortFunc(reports, func(a, b Report) int { return cmp.Compare(a.Name, b.Name) })
	return reports
}

// pause waits for a time, for news, or for the end of ctx.
func pause(ctx context.Context, d time.Duration, news <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-news:
	case <-ctx.Done():
	}
}
