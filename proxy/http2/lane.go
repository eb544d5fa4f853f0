package http2

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/section"
	"github.com/weirmesh/weir/proxy/upstream"
)

// lane is one stream of a client's connection: a request, its answer, and the
// answer's body. The goroutine of the exchange uses it, and the pump that sends
// the request's body; the reader fills it.
type lane struct {
	conn     *Client
	x        *exchange.Exchange
	stall    time.Duration
	asksHead bool // there is no body, whatever the answer says
	pump     upstream.Pump
	drained  atomic.Bool
	taken    []byte // of the body, by its reader
	failure  error  // that ended the body early
	opened   bool

	// Under the connection's lock.
	cond     sync.Cond
	id       uint32 // 0: not open
	deadline time.Time
	dead     error // why nothing more comes or goes
	aborted  bool
	woken    bool // the reader is going to wake it
	reads    wait // of the exchange's goroutine
	sends    wait // of whoever sends the body

	sendWindow int64
	sent       bool // all of the request
	unwanted   bool // the rest of it is not wanted
	resetByUs  bool
	isReset    bool // by the service
	refused    bool // it did not look at the request

	answer     answer
	interim    []answer
	headed     bool // the head of the final answer is here
	bodyless   bool
	trailing   bool // there are trailers
	ended      bool // the answer is whole
	left       int64
	pending    []byte
	recvWindow int64
	credit     int
}

// lanes are kept for their memory.
var lanes = sync.Pool{New: func() any { return &lane{} }}

// Lane implements upstream.Conn.
func (c *Client) Lane() upstream.Lane {
	l := lanes.Get().(*lane)
	l.conn = c
	l.cond.L = &c.mu
	return l
}

// Open implements upstream.Lane.
func (l *lane) Open(_ context.Context, x *exchange.Exchange, opts *upstream.Options) error {
	if x.Request.WebSocket {
		return &upstream.Error{Sent: true, Err: l.says(errWebSocket)}
	}
	l.x, l.stall = x, opts.Stall
	l.asksHead = string(x.Request.Method) == "HEAD"
	if err := l.begin(x, opts); err != nil {
		return err
	}
	if err := l.sendBody(x, opts); err != nil {
		return err
	}
	return l.receive(x)
}

var errWebSocket = errors.New("WebSocket is not spoken over HTTP/2")

func (l *lane) says(err error) error { return fmt.Errorf("answer by HTTP/2: %w", err) }

// begin opens a stream with the request's head.
func (l *lane) begin(x *exchange.Exchange, opts *upstream.Options) error {
	c := l.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	why := c.dead
	switch {
	case l.aborted:
		why = os.ErrDeadlineExceeded
	case c.goneWhy != nil:
		why = c.goneWhy
	case c.out.err != nil:
		why = c.out.err
	case c.closing || c.next > lastStream-2:
		why = errGone
	}
	if why != nil {
		return &upstream.Error{Err: l.says(why)}
	}
	l.id, l.opened = c.next, true
	c.next += 2
	if c.next > lastStream-2 {
		c.room.Store(0)
	}
	c.lanes[l.id] = l
	l.deadline = opts.Deadline
	l.sendWindow, l.recvWindow, l.left = c.peerWindow, laneWindow, -1
	l.sent = x.Request.Body == nil
	c.out.head(l.id, endFlag(l.sent), func(b []byte) []byte { return c.appendRequest(b, &x.Request) })
	if l.sent {
		c.out.flush(true)
	}
	return nil
}

// appendRequest writes a request's head.
func (c *Client) appendRequest(b []byte, r *exchange.Request) []byte {
	b = appendMethod(b, r.Method)
	if len(c.scheme) == len(schemeSecure) {
		b = append(b, 0x87)
	} else {
		b = append(b, 0x86)
	}
	b = appendField(b, nameAuthority, r.Authority)
	if len(r.Path) == 1 && r.Path[0] == '/' {
		b = append(b, 0x84)
	} else {
		b = appendField(b, namePath, r.Path)
	}
	length := int64(0)
	if r.Body != nil {
		length = r.Body.Length()
	}
	announced := false
	for i := range r.Fields.Len() {
		f := r.Fields.At(i)
		switch {
		case section.ConnectionSpecific(f.Name) || exchange.EqualFold(f.Name, "te") || exchange.EqualFold(f.Name, "host") ||
			exchange.EqualFold(f.Name, "expect"):
		case len(f.Name) == 14 && exchange.EqualFold(f.Name, "content-length"):
			announced = true
		default:
			b = appendField(b, f.Name, f.Value)
		}
	}
	if r.Expect {
		b = append(b, expectContinue...)
	}
	if r.Trailing {
		b = append(b, teTrailers...)
	}
	if length > 0 || length == 0 && announced {
		var digits [20]byte
		b = appendField(b, nameLength, strconv.AppendInt(digits[:0], length, 10))
	}
	return b
}

var (
	nameAuthority = []byte(":authority")
	namePath      = []byte(":path")
	nameMethod    = []byte(":method")
	teTrailers    = appendField(nil, []byte("te"), []byte("trailers"))

	expectContinue = appendField(nil, []byte("expect"), []byte("100-continue"))
)

func appendMethod(b, method []byte) []byte {
	switch string(method) {
	case "GET":
		return append(b, 0x82)
	case "POST":
		return append(b, 0x83)
	}
	return appendField(b, nameMethod, method)
}

// inlineBody is how much of a body that is here already is sent before the wait
// for the answer begins; more may have to wait for windows.
const inlineBody = 16 << 10

func (l *lane) sendBody(x *exchange.Exchange, opts *upstream.Options) error {
	body := x.Request.Body
	if body == nil {
		return nil
	}
	if !opts.Inline && (!upstream.IsHere(body) || body.Length() < 0 || body.Length() > inlineBody) {
		l.flush()
		return l.pump.Start(x, l, l.Abort)
	}
	err := upstream.SendBody(x, l, &l.drained)
	if upstream.ClientFailed(err) {
		return &upstream.Error{Sent: true, Client: true, Err: errors.Unwrap(err)}
	}
	return nil // else it may have answered before it was sent all: look for that
}

// receive waits for the head of the final answer.
func (l *lane) receive(x *exchange.Exchange) error {
	c := l.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for !l.headed || len(l.interim) > 0 {
		if len(l.interim) > 0 {
			if err := l.inform(x); err != nil {
				return err
			}
			continue
		}
		if l.pump.Overdue() {
			if err := l.goAhead(x); err != nil {
				return err
			}
			continue
		}
		if err := l.await(); err != nil {
			return l.failed(x, err)
		}
	}
	l.reads.late = false
	x.Response.Status = l.answer.status
	x.Response.Fields, l.answer.fields = l.answer.fields, x.Response.Fields
	x.Response.Body, x.Response.Tunnel, x.Response.Trailing = nil, nil, false
	l.pump.Join(x)
	if !l.ended || len(l.pending) > 0 || l.trailing {
		if !l.bodyless {
			x.Response.Body, x.Response.Trailing = l, !l.ended || l.trailing
		}
	}
	return nil
}

// inform passes an interim answer on. The caller holds the lock, which is
// released meanwhile.
func (l *lane) inform(x *exchange.Exchange) error {
	first := l.interim[0]
	l.interim, l.reads.late = l.interim[1:], false
	if first.status == 100 {
		return l.goAhead(x)
	}
	l.conn.mu.Unlock()
	x.Response.Status, x.Response.Fields = first.status, first.fields
	_ = x.Inform() // who cannot be told this cannot be told the answer either
	x.Response.Fields = exchange.Fields{}
	l.conn.mu.Lock()
	return nil
}

// goAhead asks the client for a body that was held. The caller holds the lock, which
// is released meanwhile.
func (l *lane) goAhead(x *exchange.Exchange) error {
	l.reads.late = false
	l.conn.mu.Unlock()
	defer l.conn.mu.Lock()
	return l.pump.GoAhead(x)
}

// await waits for something new. The caller holds the lock.
func (l *lane) await() error {
	switch {
	case l.dead != nil:
		return l.dead
	case l.aborted:
		return os.ErrDeadlineExceeded
	case l.reads.late:
		l.reads.late = false
		if !l.pump.Running() || l.past() {
			return os.ErrDeadlineExceeded
		} // the request is still on its way, with limits of its own
	}
	if l.conn.out.flush(true) { // windows, too
		return nil
	}
	l.reads.until = l.until()
	l.conn.clock.by(l.reads.until)
	l.cond.Wait()
	l.reads.until = 0
	return nil
}

func (l *lane) past() bool { return !l.deadline.IsZero() && !time.Now().Before(l.deadline) }

// until is when a wait that begins now has taken too long.
func (l *lane) until() int64 {
	until := time.Now().Add(l.stall)
	if !l.deadline.IsZero() && l.deadline.Before(until) {
		until = l.deadline
	}
	return l.pump.Sooner(until).UnixNano()
}

// failed describes why there was no answer. The caller holds the lock, which is
// released meanwhile.
func (l *lane) failed(x *exchange.Exchange, err error) error {
	e := &upstream.Error{Sent: true, Refused: l.refused, Timeout: errors.Is(err, os.ErrDeadlineExceeded), Err: l.says(err)}
	e.Stale = l.conn.answered && err == errGone && !e.Timeout
	l.kill(err)
	l.conn.mu.Unlock()
	cause, client := l.pump.Stop(x)
	l.conn.mu.Lock()
	if client {
		return &upstream.Error{Sent: true, Client: true, Err: errors.Unwrap(cause)}
	}
	return e
}

// kill ends a lane. The caller holds the lock.
func (l *lane) kill(why error) {
	if l.dead == nil {
		l.dead = why
		l.cond.Broadcast()
	}
}

// ReadBy implements upstream.Lane.
func (l *lane) ReadBy(deadline time.Time) {
	l.conn.mu.Lock()
	l.deadline = deadline
	l.conn.mu.Unlock()
}

// Abort implements upstream.Lane.
func (l *lane) Abort() {
	c := l.conn
	c.mu.Lock()
	l.aborted = true
	l.cond.Broadcast()
	c.mu.Unlock()
}

// Close implements upstream.Lane.
func (l *lane) Close(x *exchange.Exchange) {
	c := l.conn
	c.mu.Lock()
	if l.opened {
		clean := l.sent && l.ended
		if !clean && !l.isReset && !l.resetByUs && c.dead == nil && c.out.err == nil {
			l.resetByUs = true
			c.out.set(appendReset(c.out.bytes(), l.id, codeCancel))
		}
		l.kill(errClosed)
		if c.block.into == &l.answer {
			c.block.drop()
		}
		delete(c.lanes, l.id)
		c.giveBack(len(l.taken) + len(l.pending))
		c.settle()
		c.out.flush(true)
	}
	c.mu.Unlock()
	_, _ = l.pump.Stop(x)
	c.mu.Lock()
	woken := l.woken
	c.mu.Unlock()
	if !woken { // else the reader still has it in hand
		l.reset()
		lanes.Put(l)
	}
}

var errClosed = errors.New("the exchange is over")

// reset prepares the lane for its next use and keeps its memory.
func (l *lane) reset() {
	kept, taken, pending := l.answer, l.taken[:0], l.pending[:0]
	kept.reset()
	if cap(taken) > maxKept {
		taken = nil
	}
	if cap(pending) > maxKept {
		pending = nil
	}
	*l = lane{answer: kept, taken: taken, pending: pending}
}
