package http3

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/weirmesh/weir/proxy/upstream"
)

const (
	// most bounds the exchanges at once on one connection, whatever the service
	// lets in.
	most = 100
	// laneWindow is how much of an answer's body may be on its way or not yet read.
	// The connection's window holds what all lanes may be sent, so that a client who
	// does not read holds up no other.
	laneWindow  = 256 << 10
	laneWindows = most * maxLane
	maxLane     = 512 << 10

	clientIdle  = 30 * time.Second
	clientHello = 10 * time.Second // for what a service opens a stream for
)

// Client is the client's side of one connection, which carries the exchanges of
// many clients to one service. [Dial] makes it.
type Client struct {
	link
	changed  func()
	room     atomic.Int64
	answered atomic.Bool   // an answer has begun: the connection was good for something
	hungry   chan struct{} // there is no stream to be had

	mu      sync.Mutex
	lanes   map[quic.StreamID]*lane
	open    int            // lanes
	ready   []*quic.Stream // that no lane has yet
	closing bool           // no more exchanges come
}

func clientQUIC(idle time.Duration) *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           clientIdle, // the context ends it
		MaxIdleTimeout:                 idle,
		KeepAlivePeriod:                idle / 3,
		MaxIncomingStreams:             -1, // a server opens none
		MaxIncomingUniStreams:          maxUniStreams,
		RequireStreamCreditRelease:     true,
		InitialStreamReceiveWindow:     laneWindow,
		MaxStreamReceiveWindow:         maxLane,
		InitialConnectionReceiveWindow: laneWindows,
		MaxConnectionReceiveWindow:     laneWindows,
	}
}

// Dial makes a connection to a service that speaks HTTP/3. It has sent its
// settings when Dial returns.
func Dial(ctx context.Context, to upstream.Target) (upstream.Conn, error) {
	return dial(ctx, to, clientIdle)
}

// DialWithin is Dial where a service that says nothing for so long is gone.
func DialWithin(idle time.Duration) upstream.Dial {
	return func(ctx context.Context, to upstream.Target) (upstream.Conn, error) { return dial(ctx, to, idle) }
}

func dial(ctx context.Context, to upstream.Target, idle time.Duration) (upstream.Conn, error) {
	if to.Security == nil {
		return nil, errors.New("begin HTTP/3: it is never spoken in the clear")
	}
	security := to.Security.Clone()
	security.NextProtos = []string{Protocol}
	q, err := quic.DialAddr(ctx, to.Address, security, clientQUIC(idle))
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("begin HTTP/3: %w", err)
	}
	c := &Client{changed: to.Changed, lanes: map[quic.StreamID]*lane{}, hungry: make(chan struct{}, 1)}
	c.link = link{quic: q, patience: clientHello, guard: guard{at: time.Now()}, goAway: c.goneFrom}
	if err := c.greet(); err != nil {
		_ = q.CloseWithError(quic.ApplicationErrorCode(codeInternal), "")
		return nil, fmt.Errorf("begin HTTP/3: %w", err)
	}
	c.mu.Lock()
	c.stock()
	c.mu.Unlock()
	return c, nil
}

// Run implements upstream.Conn.
func (c *Client) Run() {
	c.running.Go(c.acceptUni)
	c.running.Go(c.feed)
	<-c.quic.Context().Done()
	c.running.Wait()
	c.retire()
}

// retire: the connection has ended. Whoever finds that out first says so, so that the
// next try is made elsewhere.
func (c *Client) retire() {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.fill()
}

// Room implements upstream.Conn.
func (c *Client) Room() int { return int(c.room.Load()) }

// fill: the connection takes no more exchanges.
func (c *Client) fill() {
	if c.room.Swap(0) != 0 {
		c.changed()
	}
}

// Close implements upstream.Conn.
func (c *Client) Close() {
	c.mu.Lock()
	c.closing = true
	over := c.open == 0
	c.mu.Unlock()
	c.fill()
	if over {
		c.finish()
	}
}

func (c *Client) finish() {
	_ = c.quic.CloseWithError(quic.ApplicationErrorCode(codeNone), "")
}

// Abort breaks the connection and all that is under way on it.
func (c *Client) Abort() {
	_ = c.quic.CloseWithError(quic.ApplicationErrorCode(codeNone), "cut")
}

// goneFrom: the service does not look at streams from one on. Those that are open
// may be tried elsewhere.
func (c *Client) goneFrom(from uint64) {
	c.mu.Lock()
	c.closing = true
	var refused []*lane
	for id, l := range c.lanes {
		if uint64(id) >= from {
			refused = append(refused, l)
		}
	}
	over := c.open == 0
	c.mu.Unlock()
	for _, l := range refused {
		l.refuse()
	}
	c.fill()
	if over {
		c.finish()
	}
}

// Lane implements upstream.Conn.
func (c *Client) Lane() upstream.Lane {
	l := &lane{conn: c, message: message{link: &c.link, declared: -1}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open++
	if !c.closing && len(c.ready) > 0 {
		l.quic = c.ready[0]
		c.ready = slices.Delete(c.ready, 0, 1)
		c.lanes[l.quic.StreamID()] = l
		c.stock()
	}
	return l
}

// leave gives the room of a lane back, and its stream if it was not used.
func (c *Client) leave(l *lane) {
	c.mu.Lock()
	if l.quic != nil {
		delete(c.lanes, l.quic.StreamID())
		if !l.used {
			c.ready = slices.Insert(c.ready, 0, l.quic) // in their order: the service takes those before one for open
		}
	}
	c.open--
	c.stock()
	over := c.closing && c.open == 0
	c.mu.Unlock()
	if over {
		c.finish()
	}
}

var errGone = errors.New("the service takes no more requests on this connection")

// stock opens streams ahead, as many as there may be: only so it is known how many
// those are. The caller holds the lock.
func (c *Client) stock() {
	for !c.closing && c.open+len(c.ready) < most {
		q, err := c.quic.OpenStream()
		if err != nil {
			var full *quic.StreamLimitReachedError
			if errors.As(err, &full) {
				select {
				case c.hungry <- struct{}{}:
				default:
				}
			}
			break
		}
		c.ready = append(c.ready, q)
	}
	if !c.closing {
		c.room.Store(int64(c.open + len(c.ready)))
	}
}

// feed takes the streams that a service lets in once others have ended.
func (c *Client) feed() {
	for {
		select {
		case <-c.hungry:
		case <-c.quic.Context().Done():
			return
		}
		q, err := c.quic.OpenStreamSync(c.quic.Context())
		if err != nil {
			return // the connection is over
		}
		c.mu.Lock()
		c.ready = append(c.ready, q)
		c.stock()
		c.mu.Unlock()
		c.changed()
	}
}
