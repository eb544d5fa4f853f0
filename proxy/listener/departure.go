package listener

import (
	"runtime"
	"sync/atomic"
	"time"
)

// watchAfter is how long a connection lives before it is watched for its client's
// departure. Most that are made for one request alone have ended by then.
const watchAfter = 50 * time.Millisecond

// How a client has left, as far as that is known.
const (
	present int32 = iota
	halfClosed
	left
)

// departure is what a connection of HTTP/1.1 knows of its client's leaving. It is
// told by the listener's watcher while it waits for a service, and reads nothing.
//
// A connection that broke has nobody at its end: its exchange is cut at once. One
// that the client has closed for its own side alone may be one of a client that is
// gone, or of one that has said all and waits for the answer (RFC 9112, section
// 9.6): its exchange is cut once nothing was sent for Config.HalfClosed, and no
// other follows.
type departure struct {
	how      atomic.Int32
	tunnels  atomic.Bool   // to close one's side is part of the conversation
	progress atomic.Uint32 // changes with what is sent
	counting atomic.Bool   // a countdown is on
	timer    *time.Timer   // until it is watched
}

// watch has the client's departure noticed, soon.
func (c *conn) watch() {
	if c.listener.watcher != nil {
		c.departure.timer = time.AfterFunc(watchAfter, func() { c.listener.watcher.Watch(c.id, c.socket, c) })
	}
}

// unwatch is called once the socket is closed.
func (c *conn) unwatch() {
	if c.departure.timer != nil && !c.departure.timer.Stop() {
		c.listener.watcher.Forget(c.id)
	}
}

// HungUp implements hangup.Peer.
func (c *conn) HungUp(isBroken bool) {
	if isBroken {
		c.leave()
		return
	}
	if c.departure.how.CompareAndSwap(present, halfClosed) && c.place.Load() != nil {
		c.cutLater()
	}
}

// departed says that the client had left before an exchange began: one of the two,
// this or HungUp, sees the other.
func (c *conn) departed() {
	switch c.departure.how.Load() {
	case halfClosed:
		c.departure.progress.Add(1)
		c.cutLater()
	case left:
		c.cutExchange()
	}
}

// leave cuts the exchange that is under way, and has none follow it.
func (c *conn) leave() {
	c.departure.how.Store(left) // before it looks for an exchange: see departed
	c.cutExchange()
}

// cutLater cuts the exchange that is under way once nothing was sent for a while.
func (c *conn) cutLater() {
	if !c.departure.counting.Swap(true) {
		c.countDown()
	}
}

// countDown ends with the exchanges, at the latest.
func (c *conn) countDown() {
	seen := c.departure.progress.Load()
	time.AfterFunc(c.listener.cfg.HalfClosed, func() {
		switch {
		case c.place.Load() == nil || c.departure.tunnels.Load():
		case c.departure.progress.Load() != seen:
			c.countDown()
			return
		default:
			c.leave()
		}
		c.departure.counting.Store(false)
		// An exchange that has begun since then found a countdown under way.
		if c.place.Load() != nil && c.departure.how.Load() == halfClosed && !c.departure.tunnels.Load() {
			c.cutLater()
		}
	})
}

// inCut stands in the place of an exchange while it is being cut.
var inCut = new(place)

// cutExchange ends the exchange under way, if there is one.
func (c *conn) cutExchange() {
	if p := c.place.Load(); p != nil && p != inCut && c.place.CompareAndSwap(p, inCut) {
		p.Cut()
		c.place.Store(p)
	}
}

// leavePlace ends that the exchange can be cut. Whoever is at it is waited for: its
// place is another's soon.
func (c *conn) leavePlace(p *place) {
	for !c.place.CompareAndSwap(p, nil) {
		runtime.Gosched()
	}
}
