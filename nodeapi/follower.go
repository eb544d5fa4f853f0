package nodeapi

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

const (
	// A refused revision is tried again by the proxy itself after a while.
	applyRetryMin = time.Second
	applyRetryMax = 30 * time.Second
	// heartbeat is how often a proxy repeats what it serves. It is what makes a
	// server that was killed and is back answer with a stateless reset: QUIC's
	// own keep-alives are too small for one.
	heartbeat = 2 * time.Second
	// firstTimeout is how long a server may take to send anything: more than it
	// waits itself to catch up with a proxy.
	firstTimeout = 2 * catchUp
	// returnSpread is within how long proxies come back to QUIC.
	returnSpread = 10 * time.Second
)

var (
	errSilent = errors.New("the server sends nothing")
	// errReturn ends a stream over TCP when there can be one over QUIC.
	errReturn = errors.New("UDP works again")
)

// follower takes in what the servers send, across the streams it comes by. One
// goroutine owns it.
type follower struct {
	client *Client
	apply  Apply
	held   *held
	retry  time.Duration
	// again is when what was refused is tried again; nil: never. It outlives the
	// stream, and the heartbeats in between.
	again  <-chan time.Time
	search search
	// quiet leaves what is on disk to others, once for all.
	quiet func()
	// lost is closed when the stream that is followed has ended; nil: there is none.
	lost <-chan struct{}
}

// mend tries again what was refused while there was no stream to say it to.
func (f *follower) mend(ctx context.Context) {
	if ctx.Err() != nil || f.held.reason == "" || !f.held.unsettled() {
		return
	}
	if u := f.held.update(); f.applyWatchfully(ctx, u) == nil {
		f.again = nil
		f.store(u)
		f.held.accept()
	}
}

// session follows one stream until it ends. good: what came by it was of use.
func (f *follower) session(run, work context.Context, l *link) (good bool, err error) {
	h, err := f.hear(run, l)
	if err != nil {
		return false, err
	}
	f.lost = h.ctx.Done()
	defer func() {
		f.lost = nil
		f.client.setLive(nil)
		h.end()
	}()
	good, err = f.attend(work, h.ctx, l, h.stream, h.changes)
	return good, reason(h.ctx, err)
}

// hearing is a stream that is read until it ends; with it ends its context, by that cause.
type hearing struct {
	ctx     context.Context
	stream  clientStream
	changes *inbox
	end     func()
}

// hear opens a stream, says by it what is held, and has it read. Whoever calls it calls
// end.
func (f *follower) hear(run context.Context, l *link) (*hearing, error) {
	ctx, cancel := context.WithCancelCause(run)
	stream, err := l.api.StreamConfig(ctx)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	if err := f.subscribe(stream); err != nil {
		err = verdict(stream, err)
		cancel(nil)
		stream.Close()
		return nil, err
	}
	changes := newInbox()
	var receiving sync.WaitGroup
	receiving.Go(func() { cancel(f.client.receive(stream, changes)) })
	return &hearing{ctx: ctx, stream: stream, changes: changes, end: func() {
		cancel(nil)
		stream.Close() // it ends a pending Receive
		receiving.Wait()
	}}, nil
}

// lastWord is how long a server that takes no more may need to say why.
const lastWord = time.Second

// reason is what the server has said when it ended a stream of this context, where a
// write has only found that it has.
func reason(ctx context.Context, err error) error {
	if errors.Is(err, io.EOF) {
		select {
		case <-ctx.Done(): // whoever reads has heard it
		case <-time.After(lastWord):
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// attend answers for what comes by a stream, until the stream's context ends.
func (f *follower) attend(work, ctx context.Context, l *link, stream clientStream, changes *inbox) (good bool, err error) {
	beat := time.NewTicker(f.client.heartbeat)
	defer beat.Stop()
	silent := time.NewTimer(firstTimeout)
	defer silent.Stop()
	around := f.search.patience(f.client.lookAround)
	returned, move := l.Returned(), (<-chan time.Time)(nil)
	for live := false; ; {
		select {
		case <-ctx.Done():
			return good, context.Cause(ctx)
		case <-work.Done():
			err = context.Cause(work)
		case <-changes.news:
			c := changes.take()
			if c == nil {
				continue // it came while the last one was taken in, and was with it
			}
			if !live {
				live = true
				silent.Stop()
				f.client.setLive(l)
				f.client.cfg.Logger.Info("configuration streams", "server", l.address, "over", l.Over())
			}
			err = f.takeIn(work, stream, c, changes)
			good = good || err == nil
		case <-f.again:
			f.retry = min(2*f.retry, applyRetryMax)
			err = f.settle(work, stream)
		case <-beat.C:
			err = f.report(stream)
		case <-returned:
			returned, move = nil, time.After(rand.N(f.client.returnSpread))
		case <-move:
			err = errReturn
		case <-around:
			err = errLookAround
		case <-silent.C:
			err = errSilent
		}
		if errors.Is(err, errHeld) {
			return good, f.stay(ctx, stream, beat)
		}
		if err != nil {
			return good, err
		}
	}
}

type clientStream = weirv1connect.NodeServiceStreamConfigClientStream

// subscribe says what is held, and what became of it: the server may never have
// heard.
func (f *follower) subscribe(stream clientStream) error {
	h := f.held
	subscribe := &weirv1.Subscribe{
		Labels: f.client.cfg.Labels, Version: f.client.cfg.Version, Revision: h.at.revision, Digest: h.at.digest[:],
		Kinds: resource.NewerKinds, WantsLeader: f.search.wants(),
		TakesShutOut: f.client.cfg.ShutOut != nil,
	}
	if h.at == (position{}) {
		subscribe.Digest = nil
	}
	if err := stream.Send(&weirv1.StreamConfigRequest{Message: &weirv1.StreamConfigRequest_Subscribe{Subscribe: subscribe}}); err != nil {
		return err
	}
	return f.report(stream)
}

// verdict is what a server said when it ended a stream that was being written
// to: the write itself only finds the end.
func verdict(stream clientStream, err error) error {
	if errors.Is(err, io.EOF) {
		if _, said := stream.Receive(); said != nil {
			return said
		}
	}
	return err
}

// report says what became of what is held.
func (f *follower) report(stream clientStream) error {
	h := f.held
	if h.isAccepted {
		if err := f.ack(stream); err != nil {
			return err
		}
	}
	if h.reason != "" {
		return sendNack(stream, h.refused, h.reason)
	}
	return nil
}

// receive reads whole changes off a stream until it ends. It waits for nobody, so that
// what cannot wait for what is being applied need not.
func (c *Client) receive(stream clientStream, changes *inbox) error {
	for next := (&received{}); ; {
		m, err := stream.Receive()
		if err != nil {
			return err
		}
		if len(m.GetServers()) > 0 || m.GetRenewWithin() != nil {
			c.learn(m)
			continue
		}
		if m.GetShutOut() != nil {
			c.tellShutOut(m.GetShutOut())
			continue
		}
		whole, err := next.add(m)
		if err != nil {
			return err
		}
		if !whole {
			continue
		}
		if c.cfg.Ahead != nil {
			c.cfg.Ahead(Update{Snapshot: next.snapshot, Revision: next.revision, Puts: next.puts, Deletes: next.deletes})
		}
		if err := changes.put(next); err != nil {
			return err
		}
		next = &received{}
	}
}

// learn keeps what a server says of the others, and renews when it asks for
// that.
func (c *Client) learn(m *weirv1.StreamConfigResponse) {
	c.disk.Lock()
	defer c.disk.Unlock()
	if c.holding.Err() != nil {
		return // whoever goes on from here is told, too
	}
	if m.GetRenewWithin() != nil {
		c.renewWithin(m.GetRenewWithin().AsDuration())
	}
	servers := m.GetServers()
	if len(servers) == 0 {
		return
	}
	news, err := c.roster.learn(servers)
	if err != nil {
		c.cfg.Logger.Warn("list of servers not kept", "error", err)
	}
	if news {
		c.cfg.Logger.Info("servers of the cluster", "addresses", servers)
	}
}

// tellShutOut passes on which keys are not to be believed, held or not.
func (c *Client) tellShutOut(keys *weirv1.ShutOut) {
	if c.cfg.ShutOut == nil {
		return
	}
	c.disk.Lock()
	defer c.disk.Unlock()
	c.cfg.ShutOut(keys, c.holding.Err() == nil)
}

// maxRenewWithin bounds what a server may ask for.
const maxRenewWithin = 10 * time.Minute

// renewWithin has the certificate renewed at a moment of this proxy's own.
func (c *Client) renewWithin(within time.Duration) {
	within = min(max(within, 1), maxRenewWithin)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.renewal != nil {
		c.renewal.Stop()
	}
	if !c.ended {
		c.renewal = time.AfterFunc(rand.N(within), c.cfg.Identity.RenewSoon)
	}
}

// takeIn applies a change, and with it those that came meanwhile.
func (f *follower) takeIn(ctx context.Context, stream clientStream, c *received, more *inbox) error {
	for ; c != nil; c = more.take() {
		if err := f.held.receive(c); err != nil {
			f.again = nil // what is held is no revision any more
			return err
		}
	}
	f.retry = f.client.retryMin
	return f.settle(ctx, stream)
}

// settle applies what is pending and answers for it. The context is that of the work,
// not the stream's: what is being applied outlives the stream that brought it.
func (f *follower) settle(ctx context.Context, stream clientStream) error {
	h := f.held
	f.again = nil
	if h.settled() {
		return f.ack(stream)
	}
	u := h.update()
	// A revision that changed nothing here needs nothing but a yes.
	if h.unsettled() || !h.isAccepted {
		if err := f.applyWatchfully(ctx, u); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			h.refuse(err.Error())
			f.again = time.After(f.retry)
			f.client.cfg.Logger.Warn("configuration refused", "revision", u.Revision, "error", err)
			return sendNack(stream, h.refused, h.reason)
		}
		f.store(u)
	}
	h.accept()
	return f.ack(stream)
}

// store writes what is in force to disk. What fails there must not keep the
// proxy from serving.
func (f *follower) store(u Update) {
	log := f.client.cfg.Logger
	if err := f.client.journal.write(f.held, u); err != nil {
		log.Error("configuration in force is not on disk: a restart without servers would serve an older one", "error", err)
	}
	if !u.Snapshot && !touchesPlugins(u) {
		return
	}
	used := map[string]struct{}{}
	for _, r := range f.held.resources {
		if p := r.GetPlugin(); p != nil {
			used[p.GetSpec().GetDigest()] = struct{}{}
			used[p.GetSpec().GetCanary().GetDigest()] = struct{}{}
		}
	}
	if err := f.client.blobs.keepOnly(used); err != nil {
		log.Warn("old blobs not removed", "error", err)
	}
}

func touchesPlugins(u Update) bool {
	for _, r := range u.Puts {
		if r.GetPlugin() != nil {
			return true
		}
	}
	return len(u.Deletes) > 0
}

// ack says what is accepted, and what of it is not so.
func (f *follower) ack(stream clientStream) error {
	m := &weirv1.Ack{Revision: f.held.accepted}
	if f.client.cfg.Problem != nil {
		m.Problem = truncate(f.client.cfg.Problem(), maxReason)
	}
	if f.client.cfg.Canaries != nil {
		all := f.client.cfg.Canaries()
		m.Plugins = all[:min(len(all), maxReports)]
	}
	return stream.Send(&weirv1.StreamConfigRequest{Message: &weirv1.StreamConfigRequest_Ack{Ack: m}})
}

func sendNack(stream clientStream, revision uint64, reason string) error {
	return stream.Send(&weirv1.StreamConfigRequest{Message: &weirv1.StreamConfigRequest_Nack{Nack: &weirv1.Nack{Revision: revision, Reason: reason}}})
}
