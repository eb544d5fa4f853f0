package http2

import (
	"sync"
	"time"
)

// page is memory for what is to be written.
type page struct{ b []byte }

const (
	pageSize = 16 << 10
	maxKept  = 128 << 10
	// full is from where on responses wait until something was written.
	full = 64 << 10
)

var pages = sync.Pool{New: func() any { return &page{make([]byte, 0, pageSize)} }}

// output is what a connection has yet to write. Streams and the reader append to
// it; whoever finds nobody writing writes, and takes along what others append
// meanwhile. All of it is under the connection's lock.
type output struct {
	page    *page // nil: nothing
	writing bool
	control int   // bytes that the reader has left here and that were not written yet
	err     error // why nothing is written any more
	waiting int   // streams that wait for room
	// tableOwed: the next head must say that no dynamic table is used.
	tableOwed bool
	closed    bool           // Run has ended: nothing more is said
	writers   sync.WaitGroup // those that write for others
}

func (o *output) bytes() []byte {
	if o.page == nil {
		o.page = pages.Get().(*page)
	}
	return o.page.b
}

func (o *output) set(b []byte) { o.page.b = b }

func (o *output) pending() int {
	if o.page == nil {
		return 0
	}
	return len(o.page.b)
}

func give(p *page) {
	if cap(p.b) <= maxKept {
		p.b = p.b[:0]
		pages.Put(p)
	}
}

// noteControl counts what the reader has appended since so many bytes were
// pending. A client that does not read what it makes us say is not spoken to any
// longer. The caller holds the lock.
func (c *Conn) noteControl(before int) *connError {
	if c.out.control += c.out.pending() - before; c.out.control > maxUnread {
		return &connError{codeCalm, "answers are not read"}
	}
	return nil
}

// flush makes sure that what is pending is written: by whoever writes already,
// by the caller, or, where the caller must not wait, by a goroutine of its own.
// The caller holds the lock, and is told whether it was released meanwhile.
func (c *Conn) flush(mayWait bool) (released bool) {
	o := &c.out
	if o.writing || o.pending() == 0 || o.err != nil {
		return false
	}
	o.writing = true
	if mayWait {
		c.write(maxRounds)
	} else {
		c.handOver()
	}
	return mayWait
}

// maxRounds is how often a stream writes what others have left meanwhile, before
// it goes about its own business.
const maxRounds = 4

func (c *Conn) handOver() {
	c.out.writers.Go(func() {
		c.mu.Lock()
		c.write(-1)
		c.mu.Unlock()
	})
}

// write writes until nothing is left. The caller holds the lock, which is
// released meanwhile, and has set writing.
func (c *Conn) write(rounds int) {
	o := &c.out
	for o.pending() > 0 && o.err == nil {
		if rounds == 0 {
			c.handOver()
			return
		}
		rounds--
		p := o.page
		o.page, o.control = nil, 0
		c.mu.Unlock()
		err := c.send(p.b)
		give(p)
		c.mu.Lock()
		if err != nil {
			c.fail(err)
		}
		c.wakeForRoom()
	}
	o.writing = false
}

func (c *Conn) send(b []byte) error {
	c.wire.WriteUntil(time.Now().Add(c.cfg.Stall))
	if err := c.wire.Write(b); err != nil {
		return err
	}
	return c.wire.Flush()
}

// fail ends what is written; every stream learns of it. The caller holds the
// lock.
func (c *Conn) fail(err error) {
	if c.out.err != nil {
		return
	}
	c.out.err = err
	for _, s := range c.streams {
		s.kill(err)
	}
	c.wire.AbortRead()
}

func (c *Conn) wakeForRoom() {
	if c.out.waiting == 0 {
		return
	}
	for _, s := range c.streams {
		s.cond.Broadcast()
	}
}
