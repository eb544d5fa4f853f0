package http2

import (
	"errors"
	"sync/atomic"
	"time"
)

// clock is the timeouts of all lanes of a connection. A timer for each wait would
// cost more than the wait: here one timer stands for all of them, which is set
// anew only for a wait that ends before it fires, and looks around when it does.
//
// It also finds out whether a service that let an answer's time pass is there at
// all. All of it is under the connection's lock, but for heard.
type clock struct {
	client *Client
	timer  *time.Timer
	at     int64 // when it fires, Unix nanoseconds; 0: it does not
	ping   int64 // by when a ping is to be answered; 0: there is none
	last   atomic.Int64
	over   bool
}

var errSilent = errors.New("it does not answer pings")

// heard notes that something was read.
func (c *clock) heard() { c.last.Store(time.Now().UnixNano()) }

// by makes sure that the clock looks around at that time.
func (c *clock) by(at int64) {
	if c.over || c.at != 0 && c.at <= at {
		return
	}
	c.at = at
	wait := time.Until(time.Unix(0, at))
	if c.timer == nil {
		c.timer = time.AfterFunc(wait, c.look)
		return
	}
	c.timer.Reset(wait)
}

func (c *clock) stop() {
	c.over = true
	if c.timer != nil {
		c.timer.Stop()
	}
}

func (c *clock) look() {
	h := c.client
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.over {
		return
	}
	now := time.Now().UnixNano()
	c.at = 0
	next, late := int64(0), false
	for _, l := range h.lanes {
		for _, w := range []*wait{&l.reads, &l.sends} {
			switch {
			case w.until == 0:
			case w.until <= now:
				w.until, w.late, late = 0, true, true
				l.cond.Broadcast()
			case next == 0 || w.until < next:
				next = w.until
			}
		}
	}
	c.check(now, late)
	if c.ping != 0 && (next == 0 || c.ping < next) {
		next = c.ping
	}
	if next != 0 {
		c.by(next)
	}
}

// check asks a silent service whether it is there, and gives up one that is not.
func (c *clock) check(now int64, late bool) {
	h := c.client
	silent := c.last.Load() < now-int64(pingAfter)
	switch {
	case c.ping == 0 && late && silent:
		c.ping = now + int64(pingTimeout)
		h.out.set(appendPing(h.out.bytes(), 0, livePing))
		h.out.flush(false)
	case c.ping == 0 || now < c.ping:
	case c.last.Load() < c.ping-int64(pingTimeout): // nothing was heard since
		h.out.fail(errSilent)
	default:
		c.ping = 0
	}
}

var livePing = []byte("are you?")

// wait is one that a lane's goroutine is in: it is late once it has lasted until
// the given time.
type wait struct {
	until int64 // Unix nanoseconds; 0: nobody waits, or for ever
	late  bool
}
