package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Connection is one that carries bytes for one client, and no exchanges. Whoever
// has it closes it.
type Connection struct {
	net.Conn
	pool *Pool
	once sync.Once
}

// Connect makes a connection to the endpoint for a client. Where all that there
// may be are in use it waits, at most as long as connecting may take.
func (p *Pool) Connect(ctx context.Context, q *Queue, client, local netip.AddrPort) (*Connection, error) {
	l, err := p.enter(ctx, false, q, time.Now().Add(p.key.ConnectTimeout))
	if err != nil {
		return nil, &Error{Timeout: timedOut(err), Err: fmt.Errorf("connect to %s: %w", p.key.Address, err)}
	}
	if l != nil { // an exchange has left it: its place will do
		l.pool = nil
		discard(l)
	}
	c, err := p.dialSocket(ctx, ends{client, local})
	if err != nil {
		return nil, &Error{Timeout: timedOut(err), Err: fmt.Errorf("connect to %s: %w", p.key.Address, err)}
	}
	p.inFlight.Add(1)
	return &Connection{Conn: c, pool: p}, nil
}

// Close closes the connection and gives its place back. Only the first counts.
func (c *Connection) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.pool.inFlight.Add(-1)
		c.pool.vacate()
	})
	return err
}
