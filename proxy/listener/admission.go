package listener

import (
	"net"
	"net/netip"
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

// Refusal is why a connection was closed before anything was made of it.
type Refusal uint8

// The refusals.
const (
	RefusedClosed Refusal = iota // none are taken in
	RefusedTotal                 // there are too many
	RefusedClient                // too many of this client
	RefusedProxy                 // no PROXY protocol header, or from someone who may not send one
	refusals
)

// String is a label's value.
func (r Refusal) String() string {
	return [...]string{"overload", "total", "client", "proxy_protocol"}[r]
}

// Refused counts the connections that were refused, by why.
func (l *Listener) Refused() map[Refusal]uint64 {
	counts := map[Refusal]uint64{}
	for r := range refusals {
		counts[r] = l.refused[r].Load()
	}
	return counts
}

func (l *Listener) refuse(why Refusal) bool {
	l.refused[why].Add(1)
	return false
}

// entry is what all connections have in common: how they came in.
type entry struct {
	listener      *Listener
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
	if l.cfg.Admission != nil {
		e.admission = l.cfg.Admission()
	} else {
		e.admission = &Admission{}
	}
	a := e.admission
	switch {
	case a.Closed:
		return e, l.refuse(RefusedClosed)
	case a.Proxy != nil && !a.Proxy.trusts(e.client.Addr()):
		return e, l.refuse(RefusedProxy)
	case a.MaxConnections > 0 && l.open.Load() >= int64(a.MaxConnections) || !l.cfg.Budget.take():
		return e, l.refuse(RefusedTotal)
	case a.Proxy == nil && !e.count():
		l.cfg.Budget.giveBack()
		return e, false
	}
	l.open.Add(1)
	return e, true
}

// leave undoes admit.
func (e *entry) leave() {
	l := e.listener
	l.open.Add(-1)
	l.cfg.Budget.giveBack()
	if !e.counted.IsValid() {
		return
	}
	l.mu.Lock()
	if l.clients[e.counted]--; l.clients[e.counted] == 0 {
		delete(l.clients, e.counted)
	}
	l.mu.Unlock()
}

// count adds the connection to those of its client, if it may have one more.
func (e *entry) count() bool {
	who := e.client.Addr()
	if who.Is6() {
		who = netip.PrefixFrom(who, 64).Masked().Addr().WithZone("")
	}
	if !who.IsValid() {
		return true
	}
	l := e.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if most := e.admission.MaxPerClient; most > 0 && l.clients[who] >= most {
		return l.refuse(RefusedClient)
	}
	l.clients[who]++
	e.counted = who
	return true
}
