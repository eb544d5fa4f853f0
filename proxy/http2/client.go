package http2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/proxy/upstream"
	"github.com/weirmesh/weir/proxy/wire"
)

// What is offered to services.
const (
	// maxLanes bounds the exchanges at once on one connection, whatever the service
	// lets in; where it says nothing, too.
	maxLanes = 250
	// laneWindow is how much of an answer's body may be on its way or not yet read.
	laneWindow = 256 << 10
	// The connection's window holds what all lanes may be sent, so that a client
	// who does not read holds up no other.
	laneWindows = maxLanes * laneWindow
	// maxInterim is how many interim answers wait to be passed on.
	maxInterim = 16
)

// How long a service may take for what is not part of an answer.
const (
	writeStall  = 20 * time.Second // to take something
	pingAfter   = 5 * time.Second  // of silence, when an answer has not come in time
	pingTimeout = 10 * time.Second // to answer a ping
)

// Client is the client's side of one connection, which carries the exchanges of
// many clients to one service. [Dial] makes it.
//
//	Lane.Open ─▶ whoever writes takes along what others have left ─▶ socket
//	Lane, its body ◀─ by windows ◀─ Client.Run (reads) ◀─ frames
type Client struct {
	wire    *wire.Conn
	scheme  []byte
	changed func()
	room    atomic.Int64

	// Of the reader.
	frame   frame
	block   *answerBlock
	greeted bool
	woken   []*lane // that have something new, once there is nothing more to read

	mu         sync.Mutex
	lanes      map[uint32]*lane
	out        output
	next       uint32 // the number of the next stream
	sendWindow int64
	recvWindow int64
	credit     int   // read, and not given back as window yet
	peerWindow int64 // that new streams have to send
	answered   bool  // an answer has begun: the connection was good for something
	closing    bool  // no more exchanges come
	goneLast   uint32
	goneWhy    error // GOAWAY was received
	dead       error
	clock      clock
}

// Dial makes a connection to a service that speaks HTTP/2: by prior knowledge, or
// as TLS has agreed. It has sent its settings when Dial returns.
func Dial(ctx context.Context, to upstream.Target) (upstream.Conn, error) {
	var d net.Dialer
	socket, err := d.DialContext(ctx, "tcp", to.Address)
	if err != nil {
		return nil, err
	}
	scheme := schemeClear
	if to.Security != nil {
		if socket, err = upstream.Handshake(ctx, socket, to.Security); err != nil {
			return nil, err
		}
		scheme = schemeSecure
	}
	c := newClient(wire.New(socket), scheme, to.Changed)
	stop := context.AfterFunc(ctx, c.wire.Abort)
	err = c.meet()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		c.finish(err)
		return nil, fmt.Errorf("begin HTTP/2: %w", err)
	}
	return c, nil
}

var (
	schemeClear  = []byte("http")
	schemeSecure = []byte("https")
)

func newClient(w *wire.Conn, scheme []byte, changed func()) *Client {
	c := &Client{wire: w, scheme: scheme, changed: changed, lanes: map[uint32]*lane{}, next: 1,
		sendWindow: defaultWindow, recvWindow: laneWindows, peerWindow: defaultWindow}
	c.block = newAnswerBlock()
	c.out = output{mu: &c.mu, wire: w, stall: writeStall, failed: c.killAll, made: c.wakeAll}
	c.out.idle.L = &c.mu
	c.clock.client = c
	return c
}

// meet exchanges settings with the service.
func (c *Client) meet() error {
	c.mu.Lock()
	b := append(c.out.bytes(), Preface...)
	b = appendSettings(b, setting{settingPush, 0}, setting{settingWindow, laneWindow}, setting{settingHeaderList, maxHeaderList})
	c.out.set(appendWindow(b, 0, laneWindows-defaultWindow))
	c.out.flush(true)
	err := c.out.err
	c.mu.Unlock()
	for err == nil && !c.greeted {
		err = c.step()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended(err)
}

// Run implements upstream.Conn.
func (c *Client) Run() {
	for {
		if err := c.step(); err != nil {
			c.finish(err)
			return
		}
	}
}

// finish ends the connection, for which there is a reason.
func (c *Client) finish(err error) {
	c.mu.Lock()
	c.dead = c.ended(err)
	c.room.Store(0)
	c.killAll(c.dead)
	var bad *connError
	switch {
	case errors.As(err, &bad):
		c.out.set(appendGoAway(c.out.bytes(), 0, bad.code))
	case err == errOver:
		c.out.set(appendGoAway(c.out.bytes(), 0, codeNone))
	}
	c.out.flush(true)
	c.out.rest() // one of the lanes may be at it
	c.clock.stop()
	c.out.closed = true
	c.mu.Unlock()
	c.changed()
	c.out.writers.Wait()
	_ = c.wire.Close()
	c.wire.Free()
}

// over: the connection is not wanted any more, and carries nothing.
func (c *Client) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return (c.closing || c.goneWhy != nil) && len(c.lanes) == 0
}

// ended says in the words of this side why there is nothing more to read. The
// caller holds the lock.
func (c *Client) ended(err error) error {
	if err != nil && c.out.err != nil {
		return c.out.err // the cause; that reads fail is its effect
	}
	return err
}

var (
	errGone    = errors.New("it closed the connection")
	errOver    = errors.New("the connection is not wanted any more")
	errNotHere = errors.New("it does not speak HTTP/2")
)

// step reads and handles one frame.
func (c *Client) step() error {
	n, err := c.readFrame(&c.frame)
	if err != nil {
		return err
	}
	c.mu.Lock()
	before, room := c.out.pending(), c.room.Load()
	err = c.handle(&c.frame)
	var s *streamError
	if errors.As(err, &s) {
		c.resetLane(s)
		err = nil
	}
	if err == nil {
		err = asError(c.out.noteControl(before))
	}
	c.mu.Unlock()
	c.wire.Discard(n)
	if c.room.Load() != room {
		c.changed()
	}
	return err
}

func (c *Client) readFrame(f *frame) (int, error) {
	for {
		b := c.wire.Buffered()
		if len(b) >= headerSize {
			length := f.parseHeader(b)
			if !c.greeted && f.kind != frameSettings {
				return 0, notHTTP2(b)
			}
			if length > maxFrame {
				return 0, &connError{codeFrameSize, "a frame is too large"}
			}
			if n := headerSize + length; len(b) >= n {
				f.payload = b[headerSize:n]
				return n, nil
			}
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
}

func notHTTP2(b []byte) error {
	if bytes.HasPrefix(b, []byte("HTTP/1.")) {
		return fmt.Errorf("%w, but HTTP/1.1", errNotHere)
	}
	return errNotHere
}

// fill waits for more to read. Those for whom something was read are woken
// before, once for all of it.
func (c *Client) fill() error {
	c.mu.Lock()
	for i, l := range c.woken {
		l.woken = false
		l.cond.Broadcast()
		c.woken[i] = nil
	}
	c.woken = c.woken[:0]
	c.out.flush(false)
	err := c.out.err
	c.mu.Unlock()
	if err != nil {
		return err
	}
	hint := wire.SmallBuffer
	if len(c.wire.Buffered()) > 0 {
		hint = headerSize + maxFrame
	}
	err = c.wire.Fill(hint, wire.LargeBuffer)
	switch {
	case err == nil:
		c.clock.heard()
		return nil
	case c.wire.Aborted() && c.over():
		return errOver
	case isEnd(err):
		return errGone
	}
	return err
}

// Room implements upstream.Conn.
func (c *Client) Room() int { return int(c.room.Load()) }

// Close implements upstream.Conn.
func (c *Client) Close() {
	c.mu.Lock()
	c.closing = true
	c.room.Store(0)
	c.settle()
	c.mu.Unlock()
	c.changed()
}

// Abort breaks the connection and all that is under way on it.
func (c *Client) Abort() { c.wire.Abort() }

// settle wakes the reader when a connection that is not wanted any more has
// nothing left to do. The caller holds the lock.
func (c *Client) settle() {
	if (c.closing || c.goneWhy != nil) && len(c.lanes) == 0 {
		c.wire.AbortRead()
	}
}

// killAll ends what is under way. The caller holds the lock.
func (c *Client) killAll(err error) {
	if isEnd(err) {
		err = errGone
	}
	for _, l := range c.lanes {
		l.kill(err)
	}
}

// wakeAll: there is room for more to be written. The caller holds the lock.
func (c *Client) wakeAll() {
	for _, l := range c.lanes {
		l.cond.Broadcast()
	}
}

// wake wakes a lane before the reader waits. The caller holds the lock.
func (c *Client) wake(l *lane) {
	if !l.woken {
		l.woken = true
		c.woken = append(c.woken, l)
	}
}
