package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// conn is one end of a stream.
type conn struct {
	host    *Host
	peer    string
	in, out *half
}

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close ends the stream: the other end reads what was sent, then its end.
func (c *conn) Close() error {
	c.host.forget(c)
	c.out.update(func() { c.out.closed = true })
	c.in.update(func() { c.in.err = net.ErrClosed })
	return nil
}

// reset ends both ends at once.
func (c *conn) reset() {
	c.host.forget(c)
	for _, h := range []*half{c.in, c.out} {
		h.update(func() { h.err = errReset })
	}
}

func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.update(func() { c.in.readBy = t })
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.update(func() { c.out.writeBy = t })
	return nil
}

type addr string

func (addr) Network() string  { return "memory" }
func (a addr) String() string { return string(a) }

func (c *conn) LocalAddr() net.Addr  { return addr(c.host.name) }
func (c *conn) RemoteAddr() net.Addr { return addr(c.peer) }

// half is one direction of a stream: chunks on their way.
type half struct {
	net  *Net
	link link

	mu              sync.Mutex
	changed         chan struct{}
	chunks          []chunk
	size            int
	last            time.Time // arrival of the last chunk
	closed          bool
	err             error
	readBy, writeBy time.Time
}

type chunk struct {
	data []byte
	at   time.Time
}

const (
	maxChunk = 16 << 10
	// maxUnderWay is what a stream holds before the writer waits.
	maxUnderWay = 256 << 10
)

func newHalf(n *Net, l link) *half {
	return &half{net: n, link: l, changed: make(chan struct{})}
}

func (h *half) update(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	h.wake()
}

func (h *half) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *half) read(p []byte) (int, error) {
	for {
		open, net := h.net.open(h.link.from, h.link.to)
		h.mu.Lock()
		now := time.Now()
		var until time.Time
		switch {
		case h.err != nil:
			defer h.mu.Unlock()
			return 0, h.err
		case !h.readBy.IsZero() && !now.Before(h.readBy):
			h.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case open && len(h.chunks) > 0 && !now.Before(h.chunks[0].at):
			defer h.mu.Unlock()
			return h.take(p), nil
		case open && h.closed && len(h.chunks) == 0:
			h.mu.Unlock()
			return 0, io.EOF
		case open && len(h.chunks) > 0:
			until = h.chunks[0].at
		}
		until = earlier(until, h.readBy)
		changed := h.changed
		h.mu.Unlock()
		wait(until, changed, net)
	}
}

func (h *half) take(p []byte) int {
	n := copy(p, h.chunks[0].data)
	if h.chunks[0].data = h.chunks[0].data[n:]; len(h.chunks[0].data) == 0 {
		h.chunks = h.chunks[1:]
	}
	h.size -= n
	h.wake()
	return n
}

func (h *half) write(p []byte) (written int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), maxChunk)]
		took := h.net.travel(len(part))
		h.mu.Lock()
		now := time.Now()
		switch {
		case h.err != nil || h.closed:
			defer h.mu.Unlock()
			if h.err != nil {
				return written, h.err
			}
			return written, net.ErrClosed
		case !h.writeBy.IsZero() && !now.Before(h.writeBy):
			h.mu.Unlock()
			return written, os.ErrDeadlineExceeded
		case h.size < maxUnderWay:
			at := now.Add(took)
			if h.net.slow() && h.last.After(now) {
				at = h.last.Add(took)
			}
			if at.Before(h.last) {
				at = h.last
			}
			h.last = at
			h.chunks = append(h.chunks, chunk{data: append([]byte(nil), part...), at: at})
			h.size += len(part)
			written, p = written+len(part), p[len(part):]
			h.wake()
			h.mu.Unlock()
			continue
		}
		until, changed := h.writeBy, h.changed
		h.mu.Unlock()
		wait(until, changed, nil)
	}
	return written, nil
}

// slow tells whether chunks wait for one another.
func (n *Net) slow() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rate > 0
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func wait(until time.Time, changed, net <-chan struct{}) {
	var timeout <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-changed:
	case <-net:
	case <-timeout:
	}
}
