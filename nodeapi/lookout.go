package nodeapi

import (
	"context"
	"sync"
	"time"

	"github.com/weirmesh/weir/internal/pause"
)

// To apply an update may take seconds, and the stream that brought it may end meanwhile.
// Then another one is opened beside, for as long as that takes: by it comes what cannot
// wait (ClientConfig.Ahead, ShutOut), and the server sees that the proxy is there. What
// else comes by it comes again, by the stream that follows.

// grace is what an update may take without that: most take less.
const grace = 100 * time.Millisecond

// applyWatchfully applies, and has what cannot wait told meanwhile.
func (f *follower) applyWatchfully(ctx context.Context, u Update) error {
	looks, done := context.WithCancel(ctx)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer done()
	if f.client.cfg.Ahead != nil {
		lost := f.lost
		looking.Go(func() {
			if lost != nil {
				select {
				case <-lost:
				case <-looks.Done():
					return
				}
			}
			f.lookOut(looks)
		})
	}
	return f.apply(ctx, u)
}

// lookOut follows streams until ctx ends. Meanwhile whoever owns the follower applies what
// is held, and changes nothing of it.
func (f *follower) lookOut(ctx context.Context) {
	if !pause.For(ctx, grace) {
		return
	}
	for pace := (pace{spread: f.client.spread}); ctx.Err() == nil; {
		heard, err := f.lookOutOnce(ctx)
		if !pace.wait(ctx, heard, err, len(f.client.roster.all())) {
			return
		}
	}
}

func (f *follower) lookOutOnce(ctx context.Context) (heard bool, err error) {
	c := f.client
	l, err := dialAny(ctx, c.dialer, c.roster.all(), c.cfg.Identity.ClientTLS)
	if err != nil {
		return false, err
	}
	defer l.Close()
	h, err := f.hear(ctx, l)
	if err != nil {
		return false, err
	}
	defer h.end()
	c.cfg.Logger.Info("what cannot wait streams while an update is applied", "server", l.address, "over", l.Over())
	beat := time.NewTicker(c.heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return heard, context.Cause(h.ctx)
		case <-h.changes.news:
			heard = true
		case <-beat.C:
			if err := f.report(h.stream); err != nil {
				return heard, err
			}
		}
	}
}
