// Package memnet is a network in memory for tests of what runs on several
// hosts: streams between named hosts, over links that can be slow, cut in one
// direction or in both, and broken.
//
//	net := memnet.New(seed)
//	a, b := net.Host("a", "10.0.0.1:7400"), net.Host("b", "10.0.0.2:7400")
//	net.Cut("a", "b")      // what a sends to b waits
//	net.Heal()
//	net.Break("a")         // every stream of a ends in an error
//
// A cut link keeps what is sent over it, as a socket does: it arrives when the
// link is healed. A dial over a cut link waits until its context ends. Time is
// the time package's, so that within testing/synctest it is the bubble's.
package memnet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Net is the network. Its methods may be called at any time by anyone.
type Net struct {
	mu      sync.Mutex
	changed chan struct{}
	random  *rand.Rand
	hosts   map[string]*Host // by address
	cut     map[link]bool
	delay   time.Duration // the least and, twice, the most that a chunk takes
	rate    int           // bytes a second of one stream; 0: no bound
}

type link struct{ from, to string }

// New makes a network without hosts. The seed decides its delays.
func New(seed uint64) *Net {
	return &Net{
		changed: make(chan struct{}),
		random:  rand.New(rand.NewPCG(seed, 1)),
		hosts:   map[string]*Host{},
		cut:     map[link]bool{},
	}
}

// update changes the network and lets all who wait for it look again.
func (n *Net) update(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	close(n.changed)
	n.changed = make(chan struct{})
}

// SetDelay makes every chunk take from delay to twice that long.
func (n *Net) SetDelay(delay time.Duration) { n.update(func() { n.delay = delay }) }

// SetRate bounds the bytes that one stream carries in a second.
func (n *Net) SetRate(rate int) { n.update(func() { n.rate = rate }) }

// Cut stops what goes from one host to another.
func (n *Net) Cut(from, to string) { n.update(func() { n.cut[link{from, to}] = true }) }

// Mend undoes one Cut.
func (n *Net) Mend(from, to string) { n.update(func() { delete(n.cut, link{from, to}) }) }

// Isolate cuts all links of a host, in both directions.
func (n *Net) Isolate(name string) {
	n.update(func() {
		for _, h := range n.hosts {
			if h.name != name {
				n.cut[link{name, h.name}], n.cut[link{h.name, name}] = true, true
			}
		}
	})
}

// Heal mends all links.
func (n *Net) Heal() { n.update(func() { clear(n.cut) }) }

// Break ends all streams of a host.
func (n *Net) Break(name string) {
	n.mu.Lock()
	var broken []*conn
	for _, h := range n.hosts {
		h.mu.Lock()
		for c := range h.conns {
			if h.name == name || c.peer == name {
				broken = append(broken, c)
			}
		}
		h.mu.Unlock()
	}
	n.mu.Unlock()
	for _, c := range broken {
		c.reset()
	}
}

// travel says when a chunk that is sent now arrives.
func (n *Net) travel(size int) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	took := n.delay
	if n.delay > 0 {
		took += time.Duration(n.random.Int64N(int64(n.delay)))
	}
	if n.rate > 0 {
		took += time.Duration(size) * time.Second / time.Duration(n.rate)
	}
	return took
}

// open tells whether a link is, and what closes when that may have changed.
func (n *Net) open(from, to string) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.cut[link{from, to}], n.changed
}

// Host is one place in the network: it dials and accepts streams.
type Host struct {
	net           *Net
	name, address string
	accepted      chan *conn
	closed        chan struct{}

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// Host puts a host at an address, in the place of the one that was there.
func (n *Net) Host(name, address string) *Host {
	h := &Host{net: n, name: name, address: address,
		accepted: make(chan *conn, 256), closed: make(chan struct{}), conns: map[*conn]struct{}{}}
	n.update(func() { n.hosts[address] = h })
	return h
}

// Address is where the host is.
func (h *Host) Address() string { return h.address }

// Close takes the host off the network: its streams end in an error, and no
// other reaches it.
func (h *Host) Close() error {
	h.net.update(func() {
		if h.net.hosts[h.address] == h {
			delete(h.net.hosts, h.address)
		}
	})
	h.mu.Lock()
	select {
	case <-h.closed:
		h.mu.Unlock()
		return nil
	default:
	}
	close(h.closed)
	conns := h.conns
	h.conns = map[*conn]struct{}{}
	h.mu.Unlock()
	for c := range conns {
		c.reset()
	}
	return nil
}

// Accept returns the next stream that another host opened.
func (h *Host) Accept(ctx context.Context) (net.Conn, string, error) {
	select {
	case c := <-h.accepted:
		return c, c.peer, nil
	case <-h.closed:
		return nil, "", net.ErrClosed
	case <-ctx.Done():
		return nil, "", context.Cause(ctx)
	}
}

// Dial opens a stream to the host at an address, which must have that name,
// unless it is empty.
func (h *Host) Dial(ctx context.Context, address, name string) (net.Conn, error) {
	for {
		h.net.mu.Lock()
		to, changed := h.net.hosts[address], h.net.changed
		through := to != nil && !h.net.cut[link{h.name, to.name}] && !h.net.cut[link{to.name, h.name}]
		h.net.mu.Unlock()
		switch {
		case to == nil:
			return nil, fmt.Errorf("dial %s: connection refused", address)
		case name != "" && to.name != name:
			return nil, fmt.Errorf("dial %s: it is %s, not %s", address, to.name, name)
		case through:
			return h.connect(ctx, to)
		}
		select {
		case <-changed:
		case <-h.closed:
			return nil, net.ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("dial %s: %w", address, context.Cause(ctx))
		}
	}
}

func (h *Host) connect(ctx context.Context, to *Host) (net.Conn, error) {
	select {
	case <-time.After(h.net.travel(0)):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	out := newHalf(h.net, link{h.name, to.name})
	back := newHalf(h.net, link{to.name, h.name})
	near := &conn{host: h, peer: to.name, in: back, out: out}
	far := &conn{host: to, peer: h.name, in: out, out: back}
	if !h.track(near) {
		return nil, net.ErrClosed
	}
	refused := fmt.Errorf("dial %s: connection refused", to.address)
	if !to.track(far) {
		near.reset()
		return nil, refused
	}
	select {
	case to.accepted <- far:
		return near, nil
	default:
		far.reset()
		return nil, refused
	}
}

func (h *Host) track(c *conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.closed:
		return false
	default:
		h.conns[c] = struct{}{}
		return true
	}
}

func (h *Host) forget(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
}

var errReset = errors.New("connection reset")
