// Package upstream is the services at work: the connections to their endpoints
// and the exchange of one request for one response over them. It outlives the
// swap of a configuration: pools are kept by the endpoint they lead to.
//
//	Registry ─▶ Pool (one endpoint) ─▶ Stream (one request, one response)
//
// # Promises
//
//   - A connection is used again only after its last response was read to its
//     end and nothing stood behind it; and nothing is sent on one that has
//     something to read by then, so that no answer is taken for another's.
//   - A connection that the endpoint has closed while it was kept is closed within
//     seconds, whether or not it is asked for.
//   - An error says how far the request came: [Error.Sent] and [Error.Stale] are
//     what a decision to try again rests on.
//   - A Stream that is opened is closed, and then holds nothing.
//   - Where connections begin with who the client is (PROXY protocol), each serves
//     that client's connection alone.
//   - What [Registry.Probe] and [Registry.Reach] do, nobody else notices.
//   - A pool with a maximum never has more connections. Who comes when all are in
//     use waits in turn, or finds the queue full and is told so at once. WebSocket to
//     sidecars has as many of its own.
//
// # Protocols
//
// HTTP/1.1 is spoken here: a connection carries one exchange at a time. Where
// several share one, as in HTTP/2, the connection is a [Conn] that a codec made
// ([Dial]), and the Stream has a [Lane] on it; all else is the same.
package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/proxy/proxyproto"
	"github.com/weirmesh/weir/proxy/wire"
)

// Protocol is what is spoken to an endpoint.
type Protocol uint8

// The protocols.
const (
	HTTP1 Protocol = iota
	HTTP2
	HTTP3
	// Mesh is HTTP/3 or HTTP/2, whichever gets through to a sidecar; and HTTP/1.1 where
	// WebSocket is to follow.
	Mesh
)

// String is as in a label: "h1", "h2".
func (p Protocol) String() string { return [...]string{"h1", "h2", "h3", "mesh"}[p] }

// Key names a pool: what must be equal for connections to be shared.
type Key struct {
	Address        string // host:port
	Protocol       Protocol
	TLS            TLS
	ConnectTimeout time.Duration
	MaxConnections int // 0: any number
	// Proxy is the PROXY protocol header that connections begin with.
	Proxy proxyproto.Version
}

func (k *Key) setDefaults() {
	if k.ConnectTimeout == 0 {
		k.ConnectTimeout = DefaultConnectTimeout
	}
}

// Defaults of a pool.
const (
	DefaultConnectTimeout = 5 * time.Second
	maxIdle               = 1024             // connections kept per endpoint
	idleTimeout           = 60 * time.Second // after which one is closed
	lookEvery             = time.Second      // for those that the endpoint has closed
	lookAtOnce            = 64               // while the pool is held
)

// Pool holds the connections to one endpoint.
type Pool struct {
	key      Key
	refs     int // under Registry.mu
	inFlight atomic.Int64

	mu     sync.Mutex
	idle   []*link // the last is the warmest
	closed bool
	gate   gate
	shared multiplex
	// tunnels is beside a pool of the protocol Mesh once WebSocket was asked for; see
	// forWebSocket.
	tunnels *Pool
	// peers are the connections to sidecars that carry one exchange each, with whom they
	// lead to; see Registry.Cut.
	peers map[*link]*x509.Certificate

	registry *Registry
	security *tls.Config // nil: none
	unusable error       // why no connection can be made

	dials, reuses, failures atomic.Uint64
}

// link is one connection to the endpoint.
type link struct {
	*wire.Conn
	idleSince time.Time
	pool      *Pool // whose place it has; nil when it has none
	who       ends  // whom it is for, in a personal pool
	noted     *Pool // whose peers have it; nil: none
}

// Address is the endpoint's, as declared.
func (p *Pool) Address() string { return p.key.Address }

// InFlight counts the exchanges under way; a balancer compares them.
func (p *Pool) InFlight() int64 { return p.inFlight.Load() }

// Stats counts what the pool has done.
type Stats struct {
	Address                 string
	Idle                    int
	InFlight                int64
	Dials, Reuses, Failures uint64
}

// Stats returns the pool's counters.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	idle := len(p.idle)
	for _, m := range p.shared.members {
		if m.inUse == 0 {
			idle++
		}
	}
	p.mu.Unlock()
	return Stats{p.key.Address, idle, p.inFlight.Load(), p.dials.Load(), p.reuses.Load(), p.failures.Load()}
}

// take returns a warm connection, nil when there is none. look: make sure that
// the peer has not closed it; otherwise [wire.Conn.Ask] finds out.
func (p *Pool) take(look bool) *link {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		l := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if look && !l.Alive() {
			discard(l)
			continue
		}
		p.reuses.Add(1)
		return l
	}
}

func (p *Pool) dial(ctx context.Context, who ends) (*link, error) {
	c, err := p.dialSocket(ctx, who)
	if err != nil {
		return nil, err
	}
	l := &link{Conn: wire.New(c), who: who}
	if p.key.MaxConnections > 0 {
		l.pool = p
	}
	if err := p.note(l); err != nil {
		discard(l)
		return nil, err
	}
	return l, nil
}

// dialSocket makes a connection on a place of the pool, which is given back when
// that fails.
func (p *Pool) dialSocket(ctx context.Context, who ends) (net.Conn, error) {
	p.dials.Add(1)
	if p.unusable != nil {
		p.failures.Add(1)
		p.vacate()
		return nil, p.unusable
	}
	if p.security != nil { // the handshake counts, too
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.key.ConnectTimeout)
		defer cancel()
	}
	d := net.Dialer{Timeout: p.key.ConnectTimeout}
	c, err := d.DialContext(ctx, "tcp", p.key.Address)
	if err == nil {
		if err = p.introduce(c, who); err != nil {
			c.Close()
		}
	}
	if err == nil && p.key.TLS.On {
		c, err = p.secure(ctx, c)
	}
	if err != nil {
		p.failures.Add(1)
		p.vacate()
		return nil, err
	}
	return c, nil
}

// put keeps a connection for the next exchange.
func (p *Pool) put(l *link, now time.Time) {
	l.Release()
	l.idleSince = now
	p.mu.Lock()
	if p.personal() {
		drop := p.keepPersonal(l)
		p.mu.Unlock()
		if drop != nil {
			discard(drop)
		}
		return
	}
	handed := p.hand(l)
	keep := handed || !p.closed && len(p.idle) < maxIdle
	if keep && !handed {
		p.idle = append(p.idle, l)
	}
	p.mu.Unlock()
	if !keep {
		discard(l)
	}
}

func discard(l *link) {
	l.vacate()
	l.forget()
	_ = l.Close()
	l.Free()
}

// expire closes connections that have been idle since before the given time.
// The coldest are at the front.
func (p *Pool) expire(before time.Time) {
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && p.idle[n].idleSince.Before(before) {
		n++
	}
	cold := append([]*link(nil), p.idle[:n]...)
	p.idle = append(p.idle[:0], p.idle[n:]...)
	p.mu.Unlock()
	for _, l := range cold {
		discard(l)
	}
	p.closeShared(func(m *member) bool { return m.inUse == 0 && m.idleSince.Before(before) })
	if t := p.beside(); t != nil {
		t.expire(before)
	}
}

// weed closes connections that the endpoint has closed, or spoken on unasked. To
// look is a system call: those that are in use all the time are passed over, for
// they are looked at when they are taken.
func (p *Pool) weed(before time.Time) {
	for at, more := 0, true; more; {
		var dead []*link
		p.mu.Lock()
		kept := p.idle[:min(at, len(p.idle))]
		rest := p.idle[len(kept):]
		for len(rest) > 0 && len(kept)+len(dead) < at+lookAtOnce {
			l := rest[0]
			if rest = rest[1:]; l.idleSince.Before(before) && !l.Alive() {
				dead = append(dead, l)
			} else {
				kept = append(kept, l)
			}
		}
		at, more = len(kept), len(rest) > 0
		if len(dead) > 0 {
			kept = append(kept, rest...)
			clear(p.idle[len(kept):])
			p.idle = kept
		}
		p.mu.Unlock()
		for _, l := range dead {
			discard(l)
		}
	}
	if t := p.beside(); t != nil {
		t.weed(before)
	}
}

// shut closes what is idle; what is in use is closed when it comes back.
func (p *Pool) shut() {
	p.mu.Lock()
	p.closed = true
	idle, tunnels := p.idle, p.tunnels
	p.idle = nil
	p.mu.Unlock()
	for _, l := range idle {
		discard(l)
	}
	if tunnels != nil {
		tunnels.shut()
	}
	p.closeShared(func(m *member) bool { return m.inUse == 0 })
}

// Registry keeps pools by their key, counted by those who use them.
type Registry struct {
	mu    sync.Mutex
	pools map[Key]*Pool
	dials map[Protocol]Dial
	trust func(sidecarsOf string) *tls.Config // nil: there is no mesh
	// refuses tells that a sidecar was shut out since it was trusted; nil: none is.
	refuses func(*x509.Certificate) bool
	ctx     context.Context
	stop    context.CancelFunc
	done    sync.WaitGroup // the sweeper, and the connections that are shared
}

// NewRegistry returns a registry; Close ends it. dials make the connections of
// the protocols that share them.
func NewRegistry(dials map[Protocol]Dial) *Registry {
	ctx, stop := context.WithCancel(context.Background())
	r := &Registry{pools: map[Key]*Pool{}, dials: dials, ctx: ctx, stop: stop}
	r.done.Go(func() { r.sweep(ctx) })
	return r
}

// JoinMesh says how sidecars are spoken to: those of the service that an identity is
// of, and nobody else; and which of them are shut out by now (nil: none). It is called
// before there are pools.
func (r *Registry) JoinMesh(trust func(sidecarsOf string) *tls.Config, refuses func(*x509.Certificate) bool) {
	r.trust, r.refuses = trust, refuses
}

// Acquire returns the pool for a key; each Acquire is undone by one Release.
func (r *Registry) Acquire(k Key) *Pool {
	k.setDefaults()
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pools[k]
	if p == nil {
		p = r.newPool(k)
		r.pools[k] = p
	}
	p.refs++
	return p
}

func (r *Registry) newPool(k Key) *Pool {
	k.setDefaults()
	p := &Pool{key: k, registry: r, shared: multiplex{dial: r.dials[k.Protocol]}}
	switch {
	case k.Protocol != Mesh && k.TLS.SidecarsOf == "":
		p.security, p.unusable = k.TLS.Config(k.Address, k.Protocol)
	case r.trust == nil:
		p.unusable = errors.New("this proxy is in no mesh")
	default:
		p.security = r.trust(k.TLS.SidecarsOf)
		if offered := protocols[k.Protocol]; offered != nil {
			p.security = p.security.Clone()
			p.security.NextProtos = offered
		}
	}
	return p
}

// Release gives up a pool; the last one closes it.
func (r *Registry) Release(p *Pool) {
	r.mu.Lock()
	p.refs--
	last := p.refs == 0
	if last {
		delete(r.pools, p.key)
	}
	r.mu.Unlock()
	if last {
		p.shut()
	}
}

// Stats returns the counters of every pool.
func (r *Registry) Stats() []Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Stats, 0, len(r.pools))
	for _, p := range r.pools {
		all = append(all, p.Stats())
	}
	return all
}

// sweep closes connections that nobody has asked for, or whose endpoint is gone.
func (r *Registry) sweep(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var pools []*Pool
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			r.mu.Lock()
			for _, p := range r.pools {
				pools = append(pools, p)
			}
			r.mu.Unlock()
			for _, p := range pools {
				p.weed(now.Add(-lookEvery))
				p.expire(now.Add(-idleTimeout))
			}
			clear(pools)
			pools = pools[:0]
		}
	}
}

// Close closes every pool, after the last exchange.
func (r *Registry) Close() {
	r.mu.Lock()
	for _, p := range r.pools {
		p.end()
		p.shut()
	}
	r.mu.Unlock()
	r.stop()
	r.done.Wait()
}
