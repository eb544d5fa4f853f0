package http3

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/weirmesh/weir/proxy/upstream"
)

const (
	// assumedStreams is how many streams a service is taken to let in at once until
	// it shows that it lets in fewer: what most do.
	assumedStreams = 100
	// laneWindow is how much of an answer's body may be on its way or not yet read.
	// The connection's window holds what all lanes may be sent, so that a client who
	// does not read holds up no other.
	laneWindow  = 256 << 10
	laneWindows = assumedStreams * maxLane
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
	answered atomic.Bool // an answer has begun: the connection was good for something

	mu      sync.Mutex
	lanes   map[quic.StreamID]*lane // that have a stream
	open    int                     // lanes, with or without
	most    int                     // streams that were open at once when there was no room for another
	closing bool                    // no more exchanges come
	gone    uint64                  // streams from it on are not served
}

func clientQUIC() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           clientIdle, // the context ends it
		MaxIdleTimeout:                 clientIdle,
		KeepAlivePeriod:                clientIdle / 3,
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
	if to.Security == nil {
		return nil, errors.New("begin HTTP/3: it is never spoken in the clear")
	}
	security := to.Security.Clone()
	security.NextProtos = []string{Protocol}
	q, err := quic.DialAddr(ctx, to.Address, security, clientQUIC())
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("begin HTTP/3: %w", err)
	}
	c := &Client{changed: to.Changed, lanes: map[quic.StreamID]*lane{}, gone: 1 << 62}
	c.link = link{quic: q, patience: clientHello, guard: guard{at: time.Now()}, goAway: c.goneFrom}
	c.room.Store(assumedStreams)
	if err := c.greet(); err != nil {
		_ = q.CloseWithError(quic.ApplicationErrorCode(codeInternal), "")
		return nil, fmt.Errorf("begin HTTP/3: %w", err)
	}
	return c, nil
}

// Run implements upstream.Conn.
func (c *Client) Run() {
	c.running.Go(c.acceptUni)
	<-c.quic.Context().Done()
	c.running.Wait()
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

// goneFrom: the service does not look at streams from one on. Those that are open
// may be tried elsewhere.
func (c *Client) goneFrom(from uint64) {
	c.mu.Lock()
	c.closing, c.gone = true, from
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
	c.mu.Lock()
	c.open++
	c.mu.Unlock()
	return &lane{conn: c, message: message{link: &c.link, declared: -1}}
}

// leave gives the room of a lane back.
func (c *Client) leave(l *lane) {
	c.mu.Lock()
	if l.quic != nil {
		delete(c.lanes, l.quic.StreamID())
	}
	c.open--
	over := c.closing && c.open == 0
	c.mu.Unlock()
	if over {
		c.finish()
	}
}

var errGone = errors.New("the service takes no more requests on this connection")

// openStream opens a stream for a lane, and waits for room where the service lets
// in fewer than it was taken to.
func (c *Client) openStream(ctx context.Context, l *lane) error {
	c.mu.Lock()
	gone := c.closing
	c.mu.Unlock()
	if gone {
		return errGone
	}
	q, err := c.quic.OpenStream()
	var limit *quic.StreamLimitReachedError
	if errors.As(err, &limit) {
		c.learn()
		q, err = c.quic.OpenStreamSync(ctx)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	gone = uint64(q.StreamID()) >= c.gone
	l.quic = q
	c.lanes[q.StreamID()] = l
	c.mu.Unlock()
	if gone {
		return errGone
	}
	return nil
}

// learn notes that there is no room for one more stream than are open. The most
// that there ever were counts: room that was given back may not be known yet.
func (c *Client) learn() {
	c.mu.Lock()
	c.most = max(c.most, len(c.lanes), 1)
	room := int64(min(c.most, assumedStreams))
	c.mu.Unlock()
	for {
		before := c.room.Load()
		if before == 0 || before == room {
			return
		}
		if c.room.CompareAndSwap(before, room) {
			c.changed()
			return
		}
	}
}
