package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

const (
	// sendTimeout is how long one message may wait for a proxy to make room.
	sendTimeout = 30 * time.Second
	// catchUp is how long a proxy that knows more than this server waits for it
	// to learn the rest, before it is sent what the server has.
	catchUp = 5 * time.Second

	// A rotation of the root has proxies renew, one in so long.
	renewEvery = 10 * time.Millisecond
	renewMin   = time.Second
	renewMax   = 5 * time.Minute

	maxLabels = 64
	maxLabel  = 256
	maxReason = 2 << 10
	// maxReports of canaries, of one proxy.
	maxReports = 64
)

type configStream = weirv1connect.NodeServiceStreamConfigServerStream

// Why a stream ended, when it was not the proxy that ended it. A proxy that
// reads one of these connects again.
var (
	errStopping   = connect.NewError(connect.CodeUnavailable, "the server is stopping")
	errSuperseded = connect.NewError(connect.CodeAborted, "the same proxy has opened a newer stream")
	errNoServer   = connect.NewError(connect.CodeUnavailable, "this server was removed from the cluster; try another")
	errRenew      = connect.NewError(connect.CodeUnauthenticated, "the certificate that the stream began with has expired")
)

// StreamConfig sends a proxy what it must know for as long as it stays.
func (s *Server) StreamConfig(ctx context.Context, stream configStream) error {
	c, err := s.liveProxy(ctx)
	if err != nil {
		return err
	}
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	sub := first.GetSubscribe()
	if err := checkSubscribe(sub); err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err.Error())
	}
	if err := s.turnsAway(sub); err != nil {
		return err
	}
	if err := s.hubReady(ctx); err != nil {
		return err
	}
	return s.attend(ctx, c, sub, stream)
}

func checkSubscribe(sub *weirv1.Subscribe) error {
	switch {
	case sub == nil:
		return errors.New("the first message must be Subscribe")
	case len(sub.GetLabels()) > maxLabels:
		return fmt.Errorf("%d labels are more than %d", len(sub.GetLabels()), maxLabels)
	case len(sub.GetKinds()) > maxLabels:
		return fmt.Errorf("%d kinds are more than %d", len(sub.GetKinds()), maxLabels)
	case len(sub.GetVersion()) > maxLabel:
		return errors.New("the version is too long")
	case len(sub.GetDigest()) != 0 && len(sub.GetDigest()) != len(digest{}):
		return fmt.Errorf("a digest has %d bytes, this one %d", len(digest{}), len(sub.GetDigest()))
	}
	for k, v := range sub.GetLabels() {
		if k == "" || len(k) > maxLabel || len(v) > maxLabel || strings.ContainsAny(k+v, "\n=\x00") {
			return fmt.Errorf("label %q is empty, too long, or holds a character that no label holds", truncate(k, maxLabel))
		}
	}
	return nil
}

func (s *Server) hubReady(ctx context.Context) error {
	select {
	case <-s.hub.ready:
		return nil
	case <-s.life.Done():
		return errStopping
	case <-ctx.Done():
		return ctx.Err()
	}
}

// attend runs the two halves of a stream: this one sends, the other hears what
// became of it. Whichever ends first ends both.
func (s *Server) attend(ctx context.Context, c *caller, sub *weirv1.Subscribe, stream configStream) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	session := s.proxies.connect(c.id, c.key, sub, c.address, cancel)
	if session == nil {
		return errFull()
	}
	defer session.close()
	// Both again: whoever turns proxies away, or shuts one out, ends those that are here.
	if err := s.turnsAway(sub); err != nil {
		return err
	}
	if err := s.check(ctx, c); err != nil {
		return err
	}
	scope := s.hub.join(audienceOf(c.id, sub))
	defer s.hub.leave(scope)
	log := s.cfg.Logger.With("proxy", c.id.String(), "address", c.address)
	log.Info("proxy connected", "revision", sub.GetRevision(), "version", sub.GetVersion())

	// Whatever else ends a stream: it costs no goroutine until it does.
	defer time.AfterFunc(time.Until(c.expires), func() { cancel(errRenew) }).Stop()
	defer context.AfterFunc(s.life, func() { cancel(errStopping) })()
	var hearing sync.WaitGroup
	hearing.Go(func() { cancel(session.hear(stream)) })

	sender := sender{hub: s.hub, scope: scope, stream: stream, caller: c, servers: s.cfg.Servers, renewal: s.renewal,
		limit: c.limit(s.sendTimeout)}
	if sub.GetTakesShutOut() {
		sender.outcast = &s.outcast
	}
	defer c.lastWords(s.sendTimeout)
	err := sender.run(ctx, position{sub.GetRevision(), digestOf(sub)})
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(err)
	c.hangUp()
	hearing.Wait()
	log.Info("proxy disconnected", "reason", err)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func digestOf(sub *weirv1.Subscribe) (d digest) {
	copy(d[:], sub.GetDigest())
	return d
}

// hear notes what the proxy says until it says no more.
func (s *session) hear(stream configStream) error {
	for {
		m, err := stream.Receive()
		if err != nil {
			return err
		}
		switch k := m.GetMessage().(type) {
		case *weirv1.StreamConfigRequest_Ack:
			s.ack(k.Ack.GetRevision(), truncate(k.Ack.GetProblem(), maxReason))
			s.told(readable(k.Ack.GetPlugins()))
		case *weirv1.StreamConfigRequest_Nack:
			s.nack(k.Nack.GetRevision(), truncate(k.Nack.GetReason(), maxReason))
		default:
			return connect.NewError(connect.CodeInvalidArgument, "want an Ack or a Nack")
		}
	}
}

// readable bounds what a proxy says of canaries.
func readable(reports []*weirv1.PluginReport) []*weirv1.PluginReport {
	reports = reports[:min(len(reports), maxReports)]
	for _, r := range reports {
		r.Tenant, r.Name, r.Aborted = truncate(r.GetTenant(), maxLabel), truncate(r.GetName(), maxLabel), truncate(r.GetAborted(), maxReason)
	}
	return reports
}

// sender walks a scope's history for one proxy.
type sender struct {
	hub    *hub
	scope  *scope
	stream configStream
	caller *caller
	// servers is the hook of the same name; moved is closed when what it said last
	// is no longer so.
	servers func() ([]string, <-chan struct{})
	moved   <-chan struct{}
	// renewal tells whether the proxy is to renew, and rotated is closed when it
	// may be to do so again.
	renewal func(context.Context, identity.ID) (*durationpb.Duration, <-chan struct{})
	rotated <-chan struct{}
	// outcast are the keys that the proxy is not to believe; nil: it would not understand.
	// More of them closes shutOut.
	outcast *notice
	shutOut <-chan struct{}
	// limit is how long the proxy may keep us from writing one message.
	limit *writeLimit
}

func (s *sender) run(ctx context.Context, at position) error {
	if err := s.stream.SendHeaders(); err != nil {
		return err
	}
	if err := errors.Join(s.sendNews(ctx), s.sendShutOut()); err != nil {
		return err
	}
	next, ok, err := s.resume(ctx, at)
	if err != nil {
		return err
	}
	for {
		if !ok {
			var f *frame
			f, next = s.hub.snapshot(s.scope)
			if err := s.send(f); err != nil {
				return err
			}
		}
		if next, err = s.walk(ctx, next); err != nil {
			return err
		}
		ok = false // it fell behind what the history keeps
	}
}

// walk sends change after change until one that is due is gone.
func (s *sender) walk(ctx context.Context, next uint64) (uint64, error) {
	for {
		select {
		case <-s.shutOut: // however much else there is to send
			if err := s.sendShutOut(); err != nil {
				return next, err
			}
		default:
		}
		f, wait, ok := s.scope.history.at(next)
		if !ok {
			return next, nil
		}
		if f == nil {
			select {
			case <-wait:
				continue
			case <-s.moved:
				if err := s.sendNews(ctx); err != nil {
					return next, err
				}
				continue
			case <-s.rotated:
				if err := s.sendNews(ctx); err != nil {
					return next, err
				}
				continue
			case <-s.shutOut:
				continue
			case <-ctx.Done():
				return next, ctx.Err()
			}
		}
		if err := s.send(f); err != nil {
			return next, err
		}
		next++
	}
}

// resume finds where to go on from for a proxy that comes with some state, and
// tells whether there is such a place.
func (s *sender) resume(ctx context.Context, at position) (next uint64, ok bool, err error) {
	if at.revision == 0 {
		return 0, false, nil
	}
	if err := s.await(ctx, at.revision); err != nil {
		return 0, false, err
	}
	f, next, ok := comeback(s.scope.history, at)
	if !ok {
		return 0, false, nil
	}
	return next, true, s.send(f)
}

// comeback is what a proxy is sent first that is at some position, and the number to go
// on from; false: nothing leads from there.
func comeback(history *history, at position) (f *frame, next uint64, ok bool) {
	if next, ok := history.find(at); ok {
		// An empty change tells it that it is where it should be.
		return encodeChange(at, at, nil, nil), next, true
	}
	// Its revision is older than what is kept here, or than this server's start;
	// if nothing of its scope has changed since, it may stay as it is.
	next, end := history.next()
	if end.digest != at.digest || end.revision < at.revision {
		return nil, 0, false
	}
	return encodeChange(at, end, nil, nil), next, true
}

// await gives the scope some time to reach a revision: the proxy may come from
// a server that knew it first.
func (s *sender) await(ctx context.Context, revision uint64) error {
	limit := time.NewTimer(catchUp)
	defer limit.Stop()
	for {
		next, end := s.scope.history.next()
		if end.revision >= revision {
			return nil
		}
		_, wait, _ := s.scope.history.at(next)
		if wait == nil {
			continue // it has just been appended
		}
		select {
		case <-wait:
		case <-limit.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *sender) send(f *frame) error {
	for _, part := range f.parts {
		if err := s.sendPart(part); err != nil {
			return err
		}
	}
	return nil
}

func (s *sender) sendPart(m *weirv1.StreamConfigResponse) error {
	return s.limit.hold(func() error { return errors.Join(s.stream.Send(m), s.caller.written()) })
}

// sendNews tells the proxy where else it may go, and whether it is to renew.
func (s *sender) sendNews(ctx context.Context) error {
	m := new(weirv1.StreamConfigResponse)
	m.Servers, s.moved = s.servers()
	m.RenewWithin, s.rotated = s.renewal(ctx, s.caller.id)
	if len(m.GetServers()) == 0 && m.GetRenewWithin() == nil {
		return nil
	}
	return s.sendPart(m)
}

// sendShutOut tells the proxy whom not to believe.
func (s *sender) sendShutOut() (err error) {
	if s.outcast == nil {
		return nil
	}
	var m *weirv1.StreamConfigResponse
	if m, s.shutOut = s.outcast.get(); m != nil {
		err = s.sendPart(m)
	}
	return err
}

// renewal is within how long a proxy is to renew; nil: a rotation of the root
// does not wait for it. Each renewal is a write to the log, so many proxies are
// given longer.
func (s *Server) renewal(ctx context.Context, id identity.ID) (*durationpb.Duration, <-chan struct{}) {
	waits, changed, err := s.cfg.Registrar.Waits(ctx, id)
	if err != nil {
		s.cfg.Logger.Warn("proxy not asked to renew", "proxy", id.String(), "error", err)
	}
	if err != nil || !waits {
		return nil, changed
	}
	return durationpb.New(min(max(time.Duration(s.proxies.count())*renewEvery, renewMin), renewMax)), changed
}
