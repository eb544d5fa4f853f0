package http2

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/wire"
)

// Place is where one exchange at a time is served.
type Place interface {
	Exchange() *exchange.Exchange
	// Begin prepares for an exchange. Cut may be called from then on.
	Begin()
	// Serve fills the response. What goes wrong becomes an answer.
	Serve(*exchange.Exchange)
	// Reject answers a message that was no request.
	Reject(x *exchange.Exchange, status int, reason string)
	// Finish is called once the answer was sent, or was given up with err.
	Finish(x *exchange.Exchange, sent int64, err error)
	// Cut ends what Serve or a body waits for. It is called by another
	// goroutine, and does not wait.
	Cut()
}

// Talker is a Place that sends the answer itself, piece by piece, instead of
// leaving a body to be pulled.
type Talker interface {
	Place
	// Talk stands in for Serve. The answer's head and trailers are those of the
	// exchange's Response; what was sent of the body, and why not all, goes to
	// Finish.
	Talk(x *exchange.Exchange, w *Writer) (sent int64, err error)
}

// Config is what a connection needs.
type Config struct {
	// Take lends a place with an empty exchange, Give takes it back.
	Take   func() Place
	Give   func(Place)
	Logger *slog.Logger
	// Idle bounds the wait for a request when none is under way, Head the wait
	// for the client's first words and its answers to ours, Stall the wait for it
	// to take or send part of a body.
	Idle, Head, Stall time.Duration
	// WebSocket: clients may ask for it (RFC 8441). What they ask for is served as
	// by HTTP/1.1: an answer of 101 with a Tunnel agrees.
	WebSocket bool
	// What every exchange bears.
	Scheme        []byte
	Client, Local netip.AddrPort
	TLS           *exchange.TLS
}

// Conn is the server's side of one connection. Make it with [NewConn], serve it
// with [Conn.Run].
type Conn struct {
	wire *wire.Conn
	cfg  Config

	// Of the reader.
	frame     frame
	block     *block
	blockOf   uint32       // the stream that the block is of
	blockEnds bool         // it ends the request
	blockBad  *streamError // what its first frame had wrong
	opening   *stream      // whose head it is; nil: nobody's
	trailed   *stream      // whose trailers it is
	last      uint32       // the newest stream of the client's; changed under the lock
	started   time.Time
	acked     bool // our settings
	greeted   bool // it has sent its own
	guard     guard
	queue     []*stream // that are to be served once there is nothing more to read

	running sync.WaitGroup // streams that are served

	mu          sync.Mutex
	streams     map[uint32]*stream
	past        past
	out         output
	sendWindow  int64
	sentData    int64 // bytes of bodies, of all streams
	recvWindow  int64
	credit      int   // read, and not given back as window yet
	peerWindow  int64 // that new streams have to send
	productive  int   // frames of answers since the guard was told
	idleSince   time.Time
	draining    drainState
	drainTimer  *time.Timer
	lastAllowed uint32 // the newest stream that is still served
}

// drainState is how far a connection is on its way to its end.
//
//	none ─▶ asked (GOAWAY that refuses nothing, and a ping) ─▶ told (GOAWAY with the last stream)
type drainState uint8

const (
	drainNone drainState = iota
	drainAsked
	drainTold
)

// NewConn makes the server's side of a connection on which nothing was read but
// what is buffered.
func NewConn(w *wire.Conn, cfg Config) *Conn {
	c := &Conn{wire: w, cfg: cfg, block: newBlock(), streams: map[uint32]*stream{}, lastAllowed: lastStream,
		sendWindow: defaultWindow, recvWindow: connWindow, peerWindow: defaultWindow}
	c.out = output{mu: &c.mu, wire: w, stall: cfg.Stall, failed: c.killAll, made: c.wakeAll}
	c.out.idle.L = &c.mu
	return c
}

// killAll: nothing more is written. The caller holds the lock.
func (c *Conn) killAll(err error) {
	for _, s := range c.streams {
		s.kill(err)
	}
}

// wakeAll: there is room for more to be written. The caller holds the lock.
func (c *Conn) wakeAll() {
	for _, s := range c.streams {
		s.cond.Broadcast()
	}
}

// Run serves the connection to its end. The caller closes it then; polite says
// that the client should be given time to read what was said last.
func (c *Conn) Run() (polite bool) {
	c.started = time.Now()
	c.idleSince, c.guard.at = c.started, c.started
	err := c.readPreface()
	if err == nil {
		c.greet()
		for err == nil {
			err = c.step()
		}
	}
	polite = c.sayGoodbye(err)
	c.running.Wait()
	c.mu.Lock()
	c.out.closed = true
	if c.drainTimer != nil {
		c.drainTimer.Stop()
	}
	c.out.flush(true)
	c.mu.Unlock()
	c.out.writers.Wait()
	return polite
}

var errPreface = &connError{codeProtocol, "the connection does not begin with the preface"}

func (c *Conn) readPreface() error {
	c.wire.ReadUntil(c.started.Add(c.cfg.Head))
	for {
		b := c.wire.Buffered()
		n := min(len(b), len(Preface))
		if string(b[:n]) != Preface[:n] {
			return errPreface
		}
		if n == len(Preface) {
			c.wire.Discard(n)
			return nil
		}
		if err := c.wire.Fill(wire.SmallBuffer, wire.LargeBuffer); err != nil {
			return err
		}
	}
}

// greet sends our settings, and widens the connection's window.
func (c *Conn) greet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	settings := []setting{{settingStreams, MaxStreams}, {settingWindow, streamWindow}, {settingHeaderList, maxHeaderList}}
	if c.cfg.WebSocket {
		settings = append(settings, setting{settingConnect, 1})
	}
	b := appendSettings(c.out.bytes(), settings...)
	c.out.set(appendWindow(b, 0, connWindow-defaultWindow))
}

// step reads and handles one frame.
func (c *Conn) step() error {
	n, err := c.readFrame(&c.frame)
	if err != nil {
		return err
	}
	err = c.handle(&c.frame)
	c.wire.Discard(n)
	if err == nil {
		return nil
	}
	var s *streamError
	if errors.As(err, &s) {
		return c.resetStream(s)
	}
	return err
}

// readFrame waits for a whole frame, which lies in the connection's buffer, and
// says how many bytes it takes there.
func (c *Conn) readFrame(f *frame) (int, error) {
	for {
		b := c.wire.Buffered()
		if len(b) >= headerSize {
			length := f.parseHeader(b)
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

// fill waits for more to read. What was read until then is set to work before.
func (c *Conn) fill() error {
	c.work()
	for {
		until, err := c.patience()
		if err != nil {
			return err
		}
		c.wire.ReadUntil(until)
		hint := wire.SmallBuffer
		if len(c.wire.Buffered()) > 0 {
			hint = headerSize + maxFrame
		}
		err = c.wire.Fill(hint, wire.LargeBuffer)
		if !errors.Is(err, os.ErrDeadlineExceeded) || c.wire.Aborted() && !c.drained() {
			return err
		}
	}
}

// work starts the streams whose heads were read, now that as much of their bodies
// as was sent with them is here, and sees to it that what the reader has to say
// is written.
func (c *Conn) work() {
	for i, s := range c.queue {
		c.running.Add(1)
		go s.run()
		c.queue[i] = nil
	}
	c.queue = c.queue[:0]
	c.mu.Lock()
	c.out.flush(false)
	c.mu.Unlock()
}

func (c *Conn) drained() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining == drainTold && len(c.streams) == 0 && c.out.err == nil
}

var (
	errIdle     = errors.New("idle")
	errDrained  = errors.New("drained")
	errSettings = &connError{codeSettingsTimeout, "our settings were not acknowledged in time"}
	errSlowHead = &connError{codeCalm, "a head did not come in time"}
	errGreeting = &connError{codeSettingsTimeout, "the client's settings did not come in time"}
)

// patience is until when something must come, or why the wait is over. The
// zero time: while exchanges are under way, nothing need come.
func (c *Conn) patience() (time.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.out.err != nil {
		return now, c.out.err
	}
	if !c.greeted || !c.acked {
		until := c.started.Add(c.cfg.Head)
		switch {
		case now.Before(until):
			return until, nil
		case !c.greeted:
			return now, errGreeting
		}
		return now, errSettings
	}
	if c.block.open {
		until := c.block.since.Add(c.cfg.Head)
		if !now.Before(until) {
			return now, errSlowHead
		}
		return until, nil
	}
	if len(c.streams) > 0 {
		return now.Add(c.cfg.Idle), nil // to look again: the last stream does not wake us
	}
	if c.draining == drainTold {
		return now, errDrained
	}
	until := c.idleSince.Add(c.cfg.Idle)
	if !now.Before(until) {
		return now, errIdle
	}
	return until, nil
}

// sayGoodbye ends what is under way as the reader's error demands.
func (c *Conn) sayGoodbye(err error) (polite bool) {
	var bad *connError
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.As(err, &bad):
		c.out.set(appendGoAway(c.out.bytes(), c.last, bad.code))
		polite = true
	case err == errIdle:
		c.out.set(appendGoAway(c.out.bytes(), c.last, codeNone))
		polite = true
	case err == errDrained:
		polite = true
	}
	for _, s := range c.streams {
		s.kill(errConnClosed)
	}
	if s := c.opening; s != nil { // its head did not come to its end
		delete(c.streams, s.id)
		c.cfg.Give(s.place)
	}
	for _, s := range c.queue {
		c.running.Add(1)
		go s.run() // to give back what it holds
	}
	c.queue = nil
	c.out.flush(false)
	return polite
}

// Drain lets exchanges in flight end and refuses others. It does not wait.
func (c *Conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining != drainNone || c.out.err != nil || c.out.closed {
		return
	}
	// What the client has sent before it reads this is served: only its answer to
	// the ping says that nothing more is on its way.
	c.draining = drainAsked
	b := appendGoAway(c.out.bytes(), lastStream, codeNone)
	c.out.set(appendPing(b, 0, drainPing))
	c.out.flush(false)
	c.drainTimer = time.AfterFunc(drainPatience, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tellLast()
		if !c.out.closed {
			c.out.flush(false)
		}
	})
}

var drainPing = []byte("draining")

// drainPatience is how long the answer to the last ping may take.
const drainPatience = time.Second

// tellLast names the last stream that is served. The caller holds the lock.
func (c *Conn) tellLast() {
	if c.draining != drainAsked || c.out.err != nil || c.out.closed {
		return
	}
	c.draining = drainTold
	c.lastAllowed = c.last
	c.out.set(appendGoAway(c.out.bytes(), c.lastAllowed, codeNone))
	c.settleDrain()
}

// settleDrain wakes the reader when a drained connection has nothing left to do.
// The caller holds the lock.
func (c *Conn) settleDrain() {
	if c.draining == drainTold && len(c.streams) == 0 {
		c.wire.AbortRead()
	}
}

// Cut ends the connection and all that is under way on it.
func (c *Conn) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.fail(errConnClosed)
}

// past remembers the streams that ended last, to tell a late frame from a wrong
// one.
type past struct {
	ids   [128]uint32
	ours  [128]bool // we have reset it; the client may not know yet
	count int
}

func (p *past) add(id uint32, ours bool) {
	at := p.count % len(p.ids)
	p.ids[at], p.ours[at] = id, ours
	p.count++
}

func (p *past) find(id uint32) (known, ours bool) {
	for i, past := range p.ids {
		if past == id {
			return true, p.ours[i]
		}
	}
	return false, false
}

// IsPreface reports whether what a connection begins with, as far as it is here,
// can be the preface.
func IsPreface(b []byte) bool {
	return bytes.HasPrefix([]byte(Preface), b[:min(len(b), len(Preface))])
}
