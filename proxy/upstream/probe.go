package upstream

import (
	"context"
	"fmt"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// Probe has an exchange with an endpoint on a connection of its own, and calls
// read while the answer's body may be read. It is made as a pool's connections
// are, but belongs to none: nothing of it is counted or kept, and no maximum is
// asked. The context ends it, and has a deadline.
func (r *Registry) Probe(ctx context.Context, k Key, x *exchange.Exchange, read func() error) error {
	p := r.aside(k)
	defer p.disband()
	var s Stream
	defer s.Close(x)
	defer context.AfterFunc(ctx, s.Abort)()
	deadline, _ := ctx.Deadline()
	now := time.Now()
	opts := Options{Now: now, Deadline: deadline, Stall: max(time.Until(deadline), 0)}
	if err := s.Open(ctx, p, x, opts); err != nil {
		return err
	}
	return read()
}

// Reach makes a connection to an endpoint, with all that belongs to it (a PROXY
// protocol header, TLS, QUIC), and closes it. As Probe's it belongs to no pool.
func (r *Registry) Reach(ctx context.Context, k Key) error {
	p := r.aside(k)
	defer p.disband()
	err := p.reach(ctx)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", k.Address, err)
	}
	return nil
}

func (p *Pool) reach(ctx context.Context) error {
	if p.key.Protocol == HTTP3 || p.key.Protocol == Mesh {
		deadline, _ := ctx.Deadline()
		m, err := p.share(ctx, nil, deadline)
		if err == nil {
			p.unshare(m)
		}
		return err
	}
	c, err := p.dialSocket(ctx, ends{})
	if err != nil {
		return err
	}
	return c.Close()
}

// aside is a pool that nobody else knows of.
func (r *Registry) aside(k Key) *Pool {
	k.MaxConnections = 0
	return r.newPool(k)
}

// disband closes a pool that was made aside, and what is still being made for it.
func (p *Pool) disband() {
	p.end()
	p.shut()
}
