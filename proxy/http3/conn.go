package http3

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/weirmesh/weir/proxy/exchange"
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

// Config is what a connection needs.
type Config struct {
	// Take lends a place with an empty exchange, Give takes it back.
	Take   func() Place
	Give   func(Place)
	Logger *slog.Logger
	// Idle bounds the wait for a request when none is under way, Head the wait
	// for the rest of a head, Stall the wait for the client to take or send part
	// of a body.
	Idle, Head, Stall time.Duration
	// What every exchange bears.
	Client, Local netip.AddrPort
	TLS           *exchange.TLS
}

// Conn is the server's side of one connection. Make it with [NewConn], serve it
// with [Conn.Run].
type Conn struct {
	link
	cfg Config

	mu        sync.Mutex
	open      int   // exchanges under way
	next      int64 // the stream that is to come
	allowed   int64 // streams from it on are refused
	draining  drainState
	timer     *time.Timer // what is to be done about idleness, or the drain
	idleSince time.Time
	greeted   bool // the control stream is open
	ended     bool
}

// drainState is how far a connection is on its way to its end.
//
//	none ─▶ asked (GOAWAY that refuses nothing) ─▶ told (GOAWAY with the first stream that is refused)
type drainState uint8

const (
	drainNone drainState = iota
	drainAsked
	drainTold
)

// lastStream is the largest stream that a client can open.
const lastStream = 1<<62 - 4

// NewConn makes the server's side of a connection whose handshake is over.
func NewConn(q *quic.Conn, cfg Config) *Conn {
	now := time.Now()
	return &Conn{link: link{quic: q, patience: cfg.Head, guard: guard{at: now}}, cfg: cfg, allowed: lastStream, idleSince: now}
}

// Refuse ends a connection that is one too many.
func Refuse(q *quic.Conn) {
	_ = q.CloseWithError(quic.ApplicationErrorCode(codeExcessiveLoad), "too many connections")
}

// Run serves the connection until it is closed.
func (c *Conn) Run() {
	c.running.Go(c.acceptUni)
	if err := c.greet(); err == nil {
		c.begin()
		c.accept()
	}
	c.running.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.timer != nil {
		c.timer.Stop()
	}
}

// begin says what could not be said before there was a control stream.
func (c *Conn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.greeted = true
	switch {
	case c.draining != drainNone:
		c.sayGoAway(lastStream)
	case c.timer == nil:
		c.timer = time.AfterFunc(c.cfg.Idle, c.checkIdle)
	}
}

func (c *Conn) accept() {
	for {
		q, err := c.quic.AcceptStream(context.Background())
		if err != nil {
			return // the connection is closed
		}
		if !c.admit(int64(q.StreamID())) {
			q.CancelRead(quic.StreamErrorCode(codeRejected))
			q.CancelWrite(quic.StreamErrorCode(codeRejected))
			q.ReleaseStreamCredit()
			c.charge(1)
			continue
		}
		s := &stream{conn: c, quic: q, message: message{link: &c.link, declared: -1}}
		c.running.Go(s.run)
	}
}

// admit counts a stream in, unless the client was told that it comes too late.
func (c *Conn) admit(id int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = id + 4
	if id >= c.allowed {
		return false
	}
	c.open++
	return true
}

// leave counts a stream out.
func (c *Conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open--; c.open == 0 {
		c.idleSince = time.Now()
		c.settleDrain()
	}
}

// checkIdle closes a connection on which nothing was asked for long.
func (c *Conn) checkIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.draining != drainNone {
		return
	}
	left := c.cfg.Idle
	if c.open == 0 {
		if left -= time.Since(c.idleSince); left <= 0 {
			c.allowed = c.next
			c.sayGoAway(c.next)
			c.ended = true
			_ = c.quic.CloseWithError(quic.ApplicationErrorCode(codeNone), "idle")
			return
		}
	}
	c.timer.Reset(left)
}

// Drain lets exchanges in flight end and refuses others. It does not wait.
func (c *Conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining != drainNone || c.ended {
		return
	}
	// What the client has sent before it reads this is served.
	c.draining = drainAsked
	if c.greeted {
		c.sayGoAway(lastStream)
	}
	c.after(c.roundTrips(3, 20*time.Millisecond, time.Second), c.tellLast)
}

// after sets the timer to do something else. The caller holds the lock.
func (c *Conn) after(d time.Duration, do func()) {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer = time.AfterFunc(d, do)
}

// roundTrips is how long so many round trips take, within bounds.
func (c *Conn) roundTrips(n int, least, most time.Duration) time.Duration {
	return min(max(time.Duration(n)*c.quic.ConnectionStats().SmoothedRTT, least), most)
}

// tellLast names the first stream that is not served any more.
func (c *Conn) tellLast() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.draining = drainTold
	c.allowed = c.next
	if c.greeted {
		c.sayGoAway(c.next)
	}
	c.settleDrain()
}

// settleDrain closes a drained connection that has nothing left to do. A client
// does that by itself once it has its answers; one that does not is given time to
// get them, since what is lost on the way to it cannot be sent again behind the
// end of the connection. The caller holds the lock.
func (c *Conn) settleDrain() {
	if c.draining == drainTold && c.open == 0 && !c.ended {
		c.after(c.roundTrips(10, 100*time.Millisecond, 2*time.Second), func() {
			_ = c.quic.CloseWithError(quic.ApplicationErrorCode(codeNone), "drained")
		})
	}
}

// Cut ends the connection and all that is under way on it.
func (c *Conn) Cut() {
	_ = c.quic.CloseWithError(quic.ApplicationErrorCode(codeNone), "cut")
}
