package listener

import (
	"io"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/wire"
)

const (
	// tunnelIdle is how long a client may be silent once it speaks WebSocket.
	tunnelIdle = time.Hour
	// tunnelEnd is how long one side may go on after the other has left.
	tunnelEnd = 5 * time.Second
)

// tunnel relays what client and service say to each other, each way by a
// goroutine of its own, until both have left. What the client says is relayed by
// the one that tunnel waits for.
func (c *conn) tunnel(x *exchange.Exchange) (sent int64, err error) {
	t, p := x.Response.Tunnel, c.current
	c.departure.tunnels.Store(true)
	c.wire.Discard(-c.headSize)
	c.head = c.wire.Detach(c.headSize) // reading on would overwrite it, and it is to be logged
	ended, left := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		if c.toService(t) == nil {
			t.CloseSend()
			if hasEnded(ended) {
				return
			}
		}
		p.Cut()
	}()
	c.wire.SetOut(http1.AppendSwitch(c.wire.Out(), &x.Response.Fields))
	sent, err = c.toClient(t)
	close(ended)
	patience := time.Duration(0)
	if err == nil {
		patience = tunnelEnd
		if w, ok := c.wire.Net().(interface{ CloseWrite() error }); ok {
			_ = w.CloseWrite() // fails only where there is no one to tell
		}
	}
	limit := time.AfterFunc(patience, c.wire.AbortRead)
	defer limit.Stop()
	<-left
	return sent, err
}

// hasEnded waits for the service to leave, too, and reports whether it has.
func hasEnded(ended <-chan struct{}) bool {
	limit := time.NewTimer(tunnelEnd)
	defer limit.Stop()
	select {
	case <-ended:
		return true
	case <-limit.C:
		return false
	}
}

func (c *conn) toClient(t exchange.Tunnel) (sent int64, err error) {
	for {
		c.wire.WriteUntil(time.Now().Add(c.listener.cfg.Stall))
		if err := c.wire.Flush(); err != nil {
			return sent, err
		}
		chunk, err := t.Next()
		if err == io.EOF {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
		c.wire.WriteUntil(time.Now().Add(c.listener.cfg.Stall))
		if err := c.wire.Write(chunk); err != nil {
			return sent, err
		}
		sent += int64(len(chunk))
	}
}

func (c *conn) toService(t exchange.Tunnel) error {
	for {
		if b := c.wire.Buffered(); len(b) > 0 {
			if err := t.Send(b); err != nil {
				return err
			}
			c.wire.Discard(len(b))
		}
		c.wire.ReadUntil(time.Now().Add(tunnelIdle))
		if err := c.wire.Fill(wire.SmallBuffer, wire.LargeBuffer); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}
