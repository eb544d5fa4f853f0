package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

const (
	retryMin = 100 * time.Millisecond
	retryMax = 2 * time.Second
	// pollWait is how long a member may have nothing to say. It is short enough
	// that one that lives is never silent.
	pollWait = 2 * time.Second
	// patience is how long a dial, or an answer that is due, may take.
	patience = 3 * time.Second
)

// peer is another member, as far as it has been heard of. All but the first
// block is held by the fleet's lock.
type peer struct {
	fleet *Fleet
	name  string
	ctx   context.Context
	stop  context.CancelFunc

	address string
	// place ends when the address changes.
	place context.Context
	leave context.CancelFunc

	version uint64
	head    *weirv1.MemberReport // nil: it was never heard of
	proxies map[string]*weirv1.ProxyStatus
	heard   time.Time // for one that never was: since when it is listened for
	live    bool      // heard of, and not silent
	err     error
	since   time.Time // with err: since when
	told    bool      // the log has been told
	skew    time.Duration
}

func newPeer(ctx context.Context, f *Fleet, m Member) *peer {
	p := &peer{fleet: f, name: m.Name, address: m.Address, heard: time.Now()}
	p.ctx, p.stop = context.WithCancel(ctx)
	p.place, p.leave = context.WithCancel(p.ctx)
	return p
}

// move is called with the lock held. What is under way at the old address ends.
func (p *peer) move(address string) {
	if p.address == address {
		return
	}
	p.leave()
	p.address = address
	p.place, p.leave = context.WithCancel(p.ctx)
}

func (p *peer) where() (address string, place context.Context) {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	return p.address, p.place
}

// errReturn: what was said over TCP can be said over QUIC again.
var errReturn = errors.New("UDP works again")

// run asks the member until it is stopped.
func (p *peer) run() {
	defer p.stop()
	wait := retryMin
	for p.ctx.Err() == nil {
		address, place := p.where()
		answered, err := p.ask(place, address)
		if answered {
			wait = retryMin
		}
		if place.Err() != nil {
			wait = retryMin // it has moved, or is no member any more
			continue
		}
		if !errors.Is(err, errReturn) {
			p.failed(err)
		}
		pause(place, wait/2+rand.N(wait), nil)
		wait = min(2*wait, retryMax)
	}
}

// ask asks again and again over one link, until that fails.
func (p *peer) ask(ctx context.Context, address string) (answered bool, err error) {
	link, err := p.dial(ctx, address)
	if err != nil {
		return false, err
	}
	defer link.Close()
	api := weirv1connect.NewPeerServiceClient(connect.NewClient(connecthttp.NewTransport(link, "https://"+address,
		connecthttp.WithReadMaxBytes(maxReport), fastGzip())))
	for {
		sent := time.Now()
		m, err := p.question(ctx, api)
		if err != nil {
			return answered, fmt.Errorf("ask %s at %s: %w", p.name, address, err)
		}
		answered = true
		p.hear(m, sent, time.Now())
		select {
		case <-link.Returned():
			return true, errReturn
		default:
		}
		pause(ctx, spacing-time.Since(sent), nil)
	}
}

func (p *peer) dial(ctx context.Context, address string) (*nodeport.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.fleet.cfg.Dialer.Link(ctx, address, nodeport.TrustMember(p.fleet.cfg.Identity, p.name))
}

func (p *peer) question(ctx context.Context, api weirv1connect.PeerServiceClient) (*weirv1.ReportResponse, error) {
	p.fleet.mu.Lock()
	after := p.version
	p.fleet.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, pollWait+patience)
	defer cancel()
	return api.Report(ctx, &weirv1.ReportRequest{After: after, Wait: durationpb.New(pollWait)})
}

// hear takes an answer.
func (p *peer) hear(m *weirv1.ReportResponse, sent, got time.Time) {
	f := p.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.GetFull() || p.proxies == nil {
		p.proxies = map[string]*weirv1.ProxyStatus{}
	}
	for _, status := range m.GetReport().GetProxies() {
		p.proxies[status.GetName()] = status
	}
	for _, name := range m.GetRemoved() {
		delete(p.proxies, name)
	}
	news := !p.live || p.version != m.GetVersion()
	p.version, p.head, p.heard, p.live = m.GetVersion(), headOf(m.GetReport()), got, true
	p.skew = skew(m, sent, got)
	if p.told {
		f.cfg.Logger.Info("member answers again", "member", p.name, "address", p.address)
	}
	p.err, p.told = nil, false
	if news {
		f.notify()
	}
}

// skew is how far the other clock is ahead, if that is more than what the way
// there and back leaves open.
func skew(m *weirv1.ReportResponse, sent, got time.Time) time.Duration {
	half := max(0, got.Sub(sent)-m.GetHeld().AsDuration()) / 2
	ahead := m.GetReport().GetNow().AsTime().Add(half).Sub(got)
	if ahead.Abs() <= half {
		return 0
	}
	return ahead
}

// mayLag is how long a member may not answer before that is told: those that start
// at the same time do not answer one another at once.
const mayLag = 5 * time.Second

// failed is logged once for all that follow without an answer.
func (p *peer) failed(err error) {
	f := p.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.err == nil {
		p.since = time.Now()
	}
	p.err = err
	if !p.told && time.Since(p.since) >= mayLag {
		p.told = true
		f.cfg.Logger.Warn("member does not answer", "member", p.name, "address", p.address, "error", err)
	}
}
