package listener

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Admission says how connections are taken in. It may change at any time, for
// those that are accepted from then on.
type Admission struct {
	// Closed: none are, for the time being.
	Closed bool
	// Streams: they carry no HTTP, and are the StreamHandler's.
	Streams bool
	// Proxy: they begin with a PROXY protocol header; nil: they do not.
	Proxy *Proxy
	// MaxConnections bounds those that are open, MaxPerClient those of one client:
	// an IPv4 address or an IPv6 network of 64 bits. 0: any number.
	MaxConnections, MaxPerClient int
}

// Proxy says who may put a PROXY protocol header before what a client says, and
// how long that may take.
type Proxy struct {
	Trusted []netip.Prefix
	Timeout time.Duration
}

func (p *Proxy) trusts(a netip.Addr) bool {
	for _, t := range p.Trusted {
		if t.Contains(a) {
			return true
		}
	}
	return false
}

// Budget bounds the connections of several listeners together. A nil one bounds
// nothing.
type Budget struct {
	max  int64
	open atomic.Int64
}

// NewBudget allows so many.
func NewBudget(max int64) *Budget { return &Budget{max: max} }

func (b *Budget) take() bool {
	if b == nil || b.open.Add(1) <= b.max {
		return true
	}
	b.open.Add(-1)
	return false
}

func (b *Budget) giveBack() {
	if b != nil {
		b.open.Add(-1)
	}
}

// Crowd counts the connections of one port, over TCP and UDP together, and those
// of each of its clients.
type Crowd struct {
	open    atomic.Int64
	mu      sync.Mutex
	clients map[netip.Addr]int
}

// take gives a place to one more connection, unless there are that many. 0: any
// number.
func (c *Crowd) take(most int) bool {
	if open := c.open.Add(1); most > 0 && open > int64(most) {
		c.open.Add(-1)
		return false
	}
	return true
}

// count adds a connection to those of its client, if that may have one more.
// counted is what leave is to be told; invalid: nothing was counted.
func (c *Crowd) count(client netip.Addr, most int) (counted netip.Addr, ok bool) {
	if client.Is6() {
		client = netip.PrefixFrom(client, 64).Masked().Addr().WithZone("")
	}
	if !client.IsValid() {
		return client, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if most > 0 && c.clients[client] >= most {
		return netip.Addr{}, false
	}
	if c.clients == nil {
		c.clients = map[netip.Addr]int{}
	}
	c.clients[client]++
	return client, true
}

// leave undoes take and count.
func (c *Crowd) leave(counted netip.Addr) {
	c.open.Add(-1)
	if !counted.IsValid() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clients[counted]--; c.clients[counted] == 0 {
		delete(c.clients, counted)
	}
}

// admission is what holds for a connection that comes now.
func (c *Config) admission() *Admission {
	if c.Admission == nil {
		return &Admission{}
	}
	return c.Admission()
}

// take finds out whether there is room for one more connection, and takes it.
// Config.leave gives it back.
func (c *Config) take(a *Admission) bool {
	if !c.Crowd.take(a.MaxConnections) {
		return false
	}
	if !c.Budget.take() {
		c.Crowd.leave(netip.Addr{})
		return false
	}
	return true
}

func (c *Config) leave(counted netip.Addr) {
	c.Crowd.leave(counted)
	c.Budget.giveBack()
}

// Refusal is why a connection was closed before anything was made of it.
type Refusal uint8

// The refusals.
const (
	RefusedClosed Refusal = iota // none are taken in
	RefusedTotal                 // there are too many
	RefusedClient                // too many of this client
	RefusedProxy                 // no PROXY protocol header, or from someone who may not send one
)

// String is a label's value.
func (r Refusal) String() string {
	return [...]string{"overload", "total", "client", "proxy_protocol"}[r]
}

// refusals count the connections that were refused, by why.
type refusals [4]atomic.Uint64

// Refused counts the connections that were refused, by why.
func (r *refusals) Refused() map[Refusal]uint64 {
	counts := map[Refusal]uint64{}
	for why := range r {
		counts[Refusal(why)] = r[why].Load()
	}
	return counts
}

func (r *refusals) refuse(why Refusal) bool {
	r[why].Add(1)
	return false
}

// entry is what all connections have in common: how they came in.
type entry struct {
	listener      *Listener
	id            uint64 // among the listener's connections
	socket        net.Conn
	client, local netip.AddrPort // the client is who the PROXY protocol says, where it is spoken
	admission     *Admission
	counted       netip.Addr // the client as it is counted; invalid: it is not yet
}

// tracked is a connection as Close sees it.
type tracked interface {
	closeIfIdle()
	isTold() bool // closeIfIdle tells the client that no more is served
	cut()
	serve()
	base() *entry
}

func (e *entry) base() *entry { return e }

// admit decides whether a socket becomes a connection.
func (l *Listener) admit(nc net.Conn) (entry, bool) {
	e := entry{listener: l, socket: nc, client: addrPort(nc.RemoteAddr()), local: addrPort(nc.LocalAddr())}
	e.admission = l.cfg.admission()
	a := e.admission
	switch {
	case a.Closed:
		return e, l.refuse(RefusedClosed)
	case a.Proxy != nil && !a.Proxy.trusts(e.client.Addr()):
		return e, l.refuse(RefusedProxy)
	case !l.cfg.take(a):
		return e, l.refuse(RefusedTotal)
	case a.Proxy == nil && !e.count():
		e.leave()
		return e, false
	}
	return e, true
}

// leave undoes admit.
func (e *entry) leave() { e.listener.cfg.leave(e.counted) }

// count adds the connection to those of its client, if it may have one more.
func (e *entry) count() (ok bool) {
	e.counted, ok = e.listener.cfg.Crowd.count(e.client.Addr(), e.admission.MaxPerClient)
	return ok || e.listener.refuse(RefusedClient)
}
