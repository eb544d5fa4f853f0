package listener

import (
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/http2"
	"github.com/weirmesh/weir/proxy/wire"
)

// The states of a connection, as seen by Close.
const (
	idle int32 = iota
	busy
	gone
)

// conn is one client's connection. One goroutine serves it.
type conn struct {
	entry
	wire    *wire.Conn
	state   atomic.Int32
	lingers atomic.Bool // it turned idle after the draining began
	secured *secured    // nil: in the clear
	scheme  []byte
	peer    atomic.Pointer[x509.Certificate] // that was verified, see CutPeers

	anew      bool                       // CONNECT has led back here: what follows may be any protocol
	http2     atomic.Pointer[http2.Conn] // that it turned out to be
	place     atomic.Pointer[place]      // where the exchange under way is served, for those who may cut it
	current   *place                     // that, for the connection itself
	departure departure
	framing   http1.Framing
	body      http1.Body
	headSize  int           // of the request's head, which lies before what is buffered
	bodied    bool          // the request came with a body, whatever became of x.Request.Body
	head      wire.Detached // the request's head, where its body had to be read over it
	pace      pace
	renew     func() // the body's hooks, made once
	waited    func()
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// closeIfIdle closes a connection that waits for a request; a busy one sees
// that the listener is draining when its exchange ends.
func (c *conn) closeIfIdle() {
	switch {
	case c.http2.Load() != nil:
		c.http2.Load().Drain()
	case c.lingers.Load(): // patience ends that
	case !c.state.CompareAndSwap(idle, gone):
	case c.secured != nil:
		c.wire.AbortRead() // who reads then closes it: to do so politely takes time
	default:
		_ = c.wire.Close()
	}
}

func (c *conn) isTold() bool { return c.http2.Load() != nil }

// cut ends an exchange. The listener says that it is cutting before it asks for
// the place, the exchange takes its place before it looks whether it is: one of
// the two sees the other.
func (c *conn) cut() {
	if c.secured != nil {
		_ = c.secured.socket.Close() // first: a polite end takes time
	}
	_ = c.wire.Close()
	if h := c.http2.Load(); h != nil {
		h.Cut()
	}
	c.cutExchange()
}

// serve runs the connection to its end. A panic ends it and nothing else: what
// its exchange held (buffers, a generation) is given up, not given back, since
// no one knows what state it is in.
func (c *conn) serve() {
	defer c.listener.forget(c)
	defer c.unwatch()
	defer func() {
		_ = c.wire.Close()
		if p := recover(); p != nil {
			c.listener.cfg.Logger.Error("exchange panicked; its connection is closed", "panic", p, "stack", string(debug.Stack()))
			return
		}
		c.wire.Free()
	}()
	if !c.enter(func() bool { return c.state.Load() == gone }) {
		return
	}
	if c.secured != nil {
		if !c.handshake() {
			return
		}
		if c.secured.ConnectionState().NegotiatedProtocol == "h2" {
			if c.state.CompareAndSwap(idle, busy) {
				c.serveHTTP2()
			}
			return
		}
	}
	for first := true; c.waitForRequest(); first = false {
		if (first || c.anew) && c.beginsHTTP2() {
			c.serveHTTP2()
			return
		}
		if first {
			c.watch()
		}
		p := c.listener.take()
		p.Begin()
		c.current = p
		c.place.Store(p)
		if c.departure.how.Load() != present {
			c.departed()
		}
		again := !c.listener.cutting.Load() && c.exchange(p)
		c.leavePlace(p)
		c.head.Free()
		c.listener.give(p)
		if !again {
			return
		}
		// Its answer began before the draining did, or this would not be reached: the
		// client has not been told, and may ask once more.
		draining := c.listener.draining.Load()
		c.lingers.Store(draining && c.listener.cfg.Linger > 0)
		c.state.Store(idle)
		if draining && !c.lingers.Load() && c.skipEmptyLines() {
			return
		}
	}
}

// waitForRequest returns once a byte of a request is here. While it waits the
// connection holds nothing but itself. Empty lines are no part of a request
// (RFC 9112, section 2.2): old clients send one behind a body.
func (c *conn) waitForRequest() bool {
	c.wire.ReadUntil(time.Now().Add(c.listener.patience()))
	for c.skipEmptyLines() {
		if c.wire.Fill(wire.SmallBuffer, http1.MaxHead) != nil {
			return false
		}
	}
	return c.state.CompareAndSwap(idle, busy)
}

// skipEmptyLines reports whether nothing is left behind them.
func (c *conn) skipEmptyLines() bool {
	b := c.wire.Buffered()
	for len(b) > 1 && b[0] == '\r' && b[1] == '\n' {
		c.wire.Discard(2)
		b = b[2:]
	}
	return len(b) == 0 || len(b) == 1 && b[0] == '\r'
}

// exchange serves one request and reports whether another may follow.
func (c *conn) exchange(p *place) (again bool) {
	x := &p.x
	x.Start = time.Now()
	x.Client, x.Local = c.client, c.local
	c.framing, c.bodied, c.anew = http1.Framing{}, false, false
	n, err := c.readHead(x)
	if err != nil {
		c.refuse(p, err)
		return false
	}
	x.Request.Scheme = c.scheme
	x.TLS = c.facts()
	if x.Protocol == exchange.HTTP11 {
		x.Informer = c // an older client would take an interim answer for the final one
	}
	c.wire.Discard(n)
	c.headSize = n
	if err := c.beginBody(x, n); err != nil {
		c.refuse(p, err)
		return false
	}
	p.Serve(x)
	keep := c.framing.KeepAlive && !c.listener.draining.Load() && c.departure.how.Load() != left
	sent, keep, err := c.respond(x, keep)
	p.Finish(x, sent, err)
	if err == nil && !keep {
		c.lingerBriefly()
	}
	return err == nil && keep
}

// readHead reads until a whole head is here and parses it.
func (c *conn) readHead(x *exchange.Exchange) (int, error) {
	n, err := http1.ParseRequest(c.wire.Buffered(), x, &c.framing)
	if n > 0 || err != nil {
		return n, err
	}
	// The rest comes later. It is looked at again only once the request line's end
	// is here, which may tell that this is no HTTP, and once the head's is, so that a
	// client that sends byte by byte costs no more than others.
	lined := bytes.IndexByte(c.wire.Buffered(), '\n') >= 0
	c.wire.ReadUntil(x.Start.Add(c.listener.cfg.Head))
	for {
		forget(&x.Request) // what there is of it moves as it grows
		seen := max(0, len(c.wire.Buffered())-3)
		if err := c.wire.Fill(wire.SmallBuffer, http1.MaxHead); err != nil {
			return 0, headError(err, len(c.wire.Buffered()))
		}
		b := c.wire.Buffered()
		whole := bytes.Contains(b[seen:], []byte("\n\r\n")) // or one that is refused, for its bare line feed
		suspect := bytes.Contains(b[seen:], []byte("\n\n")) || bytes.Contains(b[seen:], []byte("\r\r")) ||
			seen < http1.MaxRequestLine && len(b) > http1.MaxRequestLine
		line := !lined && bytes.IndexByte(b[seen:], '\n') >= 0
		lined = lined || line
		if !whole && !suspect && !line {
			continue
		}
		if n, err := http1.ParseRequest(b, x, &c.framing); n > 0 || err != nil {
			return n, err
		}
	}
}

// forget drops what was parsed of a head whose memory may be another's soon.
func forget(r *exchange.Request) {
	r.Method, r.Authority, r.Path = nil, nil, nil
	r.Fields.Reset()
}

// errClientLeft ends a connection without a word: there is no one to hear it.
var errClientLeft = errors.New("client left")

func headError(err error, buffered int) error {
	switch {
	case errors.Is(err, wire.ErrTooLong):
		return &http1.Error{Status: 431, Reason: "head is too large"}
	case errors.Is(err, os.ErrDeadlineExceeded) && buffered > 0:
		return &http1.Error{Status: 408, Reason: "the head did not arrive in time"}
	}
	return errClientLeft
}

// beginBody prepares x.Request.Body as the framing says.
func (c *conn) beginBody(x *exchange.Exchange, head int) error {
	f := &c.framing
	here := false
	switch {
	case f.Chunked:
		var err error
		c.body.BeginChunked(c.wire, &x.Request.Trailers)
		if here, err = c.body.Check(); err != nil {
			return err
		}
	case f.Length > 0:
		c.body.BeginSized(c.wire, f.Length)
		here = c.body.Complete()
	default:
		x.Request.Body = nil
		return nil
	}
	c.bodied = true
	x.Request.Body = &c.body
	if !here {
		// Reading on would overwrite the head.
		c.wire.Discard(-head)
		c.head = c.wire.Detach(head)
		if c.renew == nil {
			c.renew, c.waited = c.renewRead, c.paceBody
		}
		c.pace = pace{length: c.body.Length()}
		c.body.Idle, c.body.Waited = c.renew, c.waited
		if f.Continue {
			c.body.Before = c.sendContinue
		}
	}
	return nil
}

// renewRead runs before each wait for more of the body.
func (c *conn) renewRead() {
	now := time.Now()
	until := now.Add(c.patience(now))
	if d := c.current.x.Request.Deadline; !d.IsZero() && d.Before(until) {
		until = d
	}
	c.wire.ReadUntil(until)
}

// sendContinue tells a client that waits for it to send the body (RFC 9110,
// section 10.1.1). It runs when the body is first asked for.
func (c *conn) sendContinue() error {
	c.wire.SetOut(append(c.wire.Out(), "HTTP/1.1 100 Continue\r\n\r\n"...))
	return c.wire.Flush()
}

// Inform implements exchange.Informer.
func (c *conn) Inform(x *exchange.Exchange) error {
	c.wire.WriteUntil(time.Now().Add(c.listener.cfg.Stall))
	c.wire.SetOut(http1.AppendInterim(c.wire.Out(), &x.Response))
	return c.wire.Flush()
}

// refuse answers what was no request, and gives the connection up: where the
// next message begins is not known.
func (c *conn) refuse(p *place, err error) {
	var bad *http1.Error
	if !errors.As(err, &bad) {
		return
	}
	x := &p.x
	x.Protocol = exchange.HTTP11
	x.Request.Method, x.Request.Scheme = nil, c.scheme
	p.Reject(x, bad.Status, bad.Reason)
	if bad.Foreign {
		p.Finish(x, 0, bad)
		return
	}
	sent, _, err := c.respond(x, false)
	p.Finish(x, sent, err)
	c.lingerBriefly()
}

// lingerBriefly lets the client read the answer before the connection is
// reset by what it still sends (RFC 9112, section 9.6).
func (c *conn) lingerBriefly() {
	wire.CloseWrite(c.wire.Net())
	c.wire.ResumeRead() // a pump that was stopped has aborted it
	c.wire.ReadUntil(time.Now().Add(lingerTime))
	for left := lingerBytes; left > 0; {
		c.wire.Discard(len(c.wire.Buffered()))
		if c.wire.Fill(wire.SmallBuffer, wire.SmallBuffer) != nil {
			return
		}
		left -= len(c.wire.Buffered())
	}
}

const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 256 << 10
)

// respond sends x.Response. It reports how many bytes of the body went out and
// whether the connection can carry another exchange.
func (c *conn) respond(x *exchange.Exchange, keep bool) (sent int64, again bool, err error) {
	if x.Tunnels() {
		sent, err = c.tunnel(x)
		if err != nil && x.Request.Connect {
			c.closeNow() // so that it is seen to break (RFC 9110, section 9.3.6)
		}
		return sent, false, err
	}
	if x.Response.Home && x.Connected() {
		c.anew = true
		c.wire.WriteUntil(time.Now().Add(c.listener.cfg.Stall))
		c.wire.SetOut(http1.AppendSwitch(c.wire.Out(), x))
		return 0, c.departure.how.Load() != left, c.wire.Flush()
	}
	if s := x.Response.Status; s < 200 || s > 999 {
		if x.Response.Reset {
			c.closeNow()
			return 0, false, errReset
		}
		x.Answer(500, nil) // no final answer: someone put an interim one there, or nonsense
	}
	d := http1.DeliveryOf(x, c.framing.Head)
	keep = keep && d != http1.UntilClose && c.atNextRequest(x)
	c.wire.WriteUntil(time.Now().Add(c.listener.cfg.Stall))
	c.wire.SetOut(http1.AppendResponse(c.wire.Out(), x, d, keep))
	if d != http1.NoBody && x.Response.Body != nil {
		if sent, err = c.relay(x, d); err != nil {
			c.breakOff(d)
			return sent, false, err
		}
	}
	return sent, keep, c.wire.Flush()
}

// atNextRequest reports whether the connection stands at the start of the next
// request. A body that was not read to its end stands before it: what is small
// and here already is skipped, else the connection has to end.
func (c *conn) atNextRequest(x *exchange.Exchange) bool {
	return !c.bodied || !x.Request.Shared && (c.body.Done() || c.skipRest())
}

// skipRest drops the rest of a request's body where that costs nothing.
func (c *conn) skipRest() bool {
	if c.body.Failed() != nil || !c.body.Complete() {
		return false
	}
	for {
		if _, err := c.body.Next(); err != nil {
			return err == io.EOF
		}
	}
}

// breakOff ends a connection in the middle of an answer. Where the end of the
// answer is the end of the connection, a clean one would be a lie.
func (c *conn) breakOff(d http1.Delivery) {
	if d == http1.UntilClose {
		c.closeNow()
	}
}

// waiter is a Body that knows whether Next would have to wait.
type waiter interface{ Ready() bool }

// relay sends the body as it comes. What has been gathered goes out before
// each wait.
func (c *conn) relay(x *exchange.Exchange, d http1.Delivery) (sent int64, err error) {
	body := x.Response.Body
	hurry, _ := body.(waiter)
	left := body.Length()
	for {
		if hurry == nil || !hurry.Ready() {
			if err := c.wire.Flush(); err != nil {
				return sent, err
			}
		}
		chunk, err := body.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			_ = c.wire.Flush()
			return sent, err
		}
		if sent += int64(len(chunk)); d == http1.Sized && sent > left {
			return sent, errTooMuch
		}
		c.wire.WriteUntil(time.Now().Add(c.listener.cfg.Stall))
		c.departure.progress.Add(1)
		if d == http1.Chunked {
			err = http1.WriteChunk(c.wire, chunk)
		} else {
			err = c.wire.Write(chunk)
		}
		if err != nil {
			return sent, err
		}
	}
	if d == http1.Sized && sent < left {
		return sent, io.ErrUnexpectedEOF
	}
	if d == http1.Chunked {
		http1.EndChunks(c.wire, &x.Response.Trailers)
	}
	return sent, nil
}

var errReset = errors.New("the connection was to be reset")

var errTooMuch = errors.New("the body is longer than its Content-Length")
