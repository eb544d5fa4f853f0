package listener

import (
	"io"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/wire"
)

// tunnel relays what client and service say to each other.
func (c *conn) tunnel(x *exchange.Exchange) (sent int64, err error) {
	t, p := x.Response.Tunnel, c.current
	c.departure.tunnels.Store(true)
	c.wire.Discard(-c.headSize)
	c.head = c.wire.Detach(c.headSize) // reading on would overwrite it, and it is to be logged
	c.wire.SetOut(http1.AppendSwitch(c.wire.Out(), x))
	return exchange.Relay(t, exchange.Client{
		ToService: func() error { return c.toService(t) },
		ToClient: func() (int64, error) {
			stall := c.listener.cfg.Stall
			if x.Request.Connect {
				stall = exchange.TunnelIdle // who does not read may have nothing to say, either
			}
			sent, err := c.toClient(t, stall)
			if err == nil {
				wire.CloseWrite(c.wire.Net())
			}
			return sent, err
		},
		Cut: p.Cut, Abort: c.wire.AbortRead,
	})
}

func (c *conn) toClient(t exchange.Tunnel, stall time.Duration) (sent int64, err error) {
	for {
		c.wire.WriteUntil(time.Now().Add(stall))
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
		c.wire.WriteUntil(time.Now().Add(stall))
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
		c.wire.ReadUntil(time.Now().Add(exchange.TunnelIdle))
		if err := c.wire.Fill(wire.SmallBuffer, wire.LargeBuffer); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}
