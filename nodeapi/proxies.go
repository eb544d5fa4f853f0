package nodeapi

import (
	"cmp"
	"context"
	"crypto"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// forgetAfter is how long a proxy that is gone stays on the list.
const forgetAfter = 24 * time.Hour

// Proxies is what this server knows of the proxies: who is connected, and which
// revision each has accepted or refused.
type Proxies struct {
	most int // may be connected

	mu        sync.Mutex
	byID      map[identity.ID]*proxyState
	connected int
	changed   chan struct{} // closed at the next change; nil while nobody waits
}

type proxyState struct {
	session  *session // nil: not connected
	key      crypto.PublicKey
	shutOut  bool // it is not on the list any more once its stream has ended
	labels   map[string]string
	version  string
	address  string
	accepted uint64
	refused  uint64
	reason   string
	problem  string
	plugins  []*weirv1.PluginReport
	lastSeen time.Time
}

func newProxies(most int) *Proxies {
	return &Proxies{most: most, byID: map[identity.ID]*proxyState{}}
}

// Statuses returns all proxies by name, and a channel that is closed when one
// of them has changed since.
func (p *Proxies) Statuses() ([]*weirv1.ProxyStatus, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	statuses := make([]*weirv1.ProxyStatus, 0, len(p.byID))
	for id, state := range p.byID {
		statuses = append(statuses, state.status(id))
	}
	slices.SortFunc(statuses, func(a, b *weirv1.ProxyStatus) int { return cmp.Compare(a.GetName(), b.GetName()) })
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return statuses, p.changed
}

func (s *proxyState) status(id identity.ID) *weirv1.ProxyStatus {
	m := &weirv1.ProxyStatus{
		Name: id.Name, Labels: maps.Clone(s.labels), Connected: s.session != nil,
		Revision: s.accepted, RefusedRevision: s.refused, RefusedReason: s.reason, Problem: s.problem, Plugins: s.plugins,
		Version: s.version, Address: s.address, LastSeen: timestamppb.New(s.lastSeen),
	}
	if id.Service != "" {
		m.Service = id.Tenant + "/" + id.Service
	}
	if s.session != nil {
		m.LastSeen = timestamppb.Now()
	}
	return m
}

// session is one stream of one proxy.
type session struct {
	proxies *Proxies
	id      identity.ID
	// wantsLeader: it goes to another server where this one knows no leader.
	wantsLeader bool
	// end ends the stream, for the reason given.
	end context.CancelCauseFunc
}

// connect returns nil when there are as many proxies as there may be. One that
// is connected already always finds room.
func (p *Proxies) connect(id identity.ID, key crypto.PublicKey, sub *weirv1.Subscribe, address string, end context.CancelCauseFunc) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.byID[id]
	if old == nil || old.session == nil {
		if p.connected >= p.most {
			return nil
		}
		p.connected++
	}
	s := &session{proxies: p, id: id, wantsLeader: sub.GetWantsLeader(), end: end}
	state := p.byID[id]
	if state == nil {
		state = &proxyState{}
		p.byID[id] = state
		p.forget()
	}
	if state.session != nil {
		state.session.end(errSuperseded)
	}
	// What it has accepted it says itself, right after it subscribed.
	*state = proxyState{session: s, key: key, labels: sub.GetLabels(), version: sub.GetVersion(), address: address, lastSeen: time.Now()}
	p.notify()
	return s
}

// forget drops proxies that have been away for long. A new one brings this
// about, so the list is no longer than the proxies that came within the time.
func (p *Proxies) forget() {
	for id, state := range p.byID {
		if state.session == nil && !state.lastSeen.IsZero() && time.Since(state.lastSeen) > forgetAfter {
			delete(p.byID, id)
		}
	}
}

func (p *Proxies) notify() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// update changes the proxy's state, unless a newer session has taken over.
// Proxies repeat themselves: only what is news wakes anyone.
func (s *session) update(change func(*proxyState) (news bool)) {
	s.proxies.mu.Lock()
	defer s.proxies.mu.Unlock()
	state := s.proxies.byID[s.id]
	if state == nil || state.session != s {
		return
	}
	state.lastSeen = time.Now()
	if change(state) {
		s.proxies.notify()
	}
}

func (s *session) ack(revision uint64, problem string) {
	s.update(func(p *proxyState) bool {
		mended := p.reason != "" && p.refused <= revision
		news := mended || p.accepted != revision || p.problem != problem
		p.accepted, p.problem = revision, problem
		if mended {
			p.refused, p.reason = 0, ""
		}
		return news
	})
}

// told takes in how canaries fare at the proxy.
func (s *session) told(plugins []*weirv1.PluginReport) {
	s.update(func(p *proxyState) bool {
		news := !slices.EqualFunc(p.plugins, plugins, func(a, b *weirv1.PluginReport) bool { return proto.Equal(a, b) })
		if news {
			p.plugins = plugins
		}
		return news
	})
}

func (s *session) nack(revision uint64, reason string) {
	s.update(func(p *proxyState) bool {
		news := p.refused != revision || p.reason != reason
		p.refused, p.reason = revision, reason
		return news
	})
}

func (s *session) close() {
	s.update(func(p *proxyState) bool {
		p.session = nil
		s.proxies.connected-- // the lock is held
		if p.shutOut {
			delete(s.proxies.byID, s.id)
		}
		return true
	})
}

// end ends streams, for a reason.
func (p *Proxies) end(why error, which func(*session) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, state := range p.byID {
		if state.session != nil && which(state.session) {
			state.session.end(why)
		}
	}
}

// shutOut ends the streams of those for whom there is a reason, and takes them off the list.
func (p *Proxies) shutOut(why func(identity.ID, crypto.PublicKey) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, state := range p.byID {
		err := why(id, state.key)
		switch {
		case err == nil:
		case state.session != nil:
			state.shutOut = true
			state.session.end(err)
		default:
			delete(p.byID, id)
			p.notify()
		}
	}
}

// count is how many proxies are connected.
func (p *Proxies) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connected
}

// Connected tells whether a node has a stream open right now.
func (p *Proxies) Connected(id identity.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := p.byID[id]
	return state != nil && state.session != nil
}
