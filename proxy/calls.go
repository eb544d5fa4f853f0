package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/service"
	"github.com/weirmesh/weir/proxy/upstream"
)

// granted are the services that a policy may call, as one rule's generation knows
// them: calls go by the same endpoints, pools, limits and health as requests do. The
// rule holds them, and so does each call, which may outlast the rule.
type granted struct {
	proxy    *Proxy
	backends map[string]*backend // by the name that the plugin knows
	names    []string
	refs     atomic.Int64
	give     []func()
}

var _ policy.Services = (*granted)(nil)

// grant resolves what a policy was granted. The caller gives it back by leave.
func (p *Proxy) grant(tenant string, grants []*weirv1.ServiceGrant) (*granted, error) {
	g := &granted{proxy: p, backends: map[string]*backend{}}
	g.refs.Store(1)
	for _, s := range grants {
		b, give, err := p.acquireBackend(tenant, &weirv1.BackendRef{Name: s.GetName(), Subset: s.GetSubset()})
		if err != nil {
			g.leave()
			return nil, fmt.Errorf("service %s: %w", s.GetName(), err)
		}
		g.give = append(g.give, give)
		name := s.GetAs()
		if name == "" {
			name = s.GetName()
		}
		g.backends[name] = b
		g.names = append(g.names, name)
	}
	slices.Sort(g.names)
	return g, nil
}

func (g *granted) leave() {
	if g.refs.Add(-1) != 0 {
		return
	}
	for _, give := range g.give {
		give()
	}
}

// Names implements policy.Services.
func (g *granted) Names() []string { return g.names }

// Call implements policy.Services. Who may ask for one holds the services meanwhile.
func (g *granted) Call(name string) (policy.Call, bool) {
	b := g.backends[name]
	if b == nil || g.proxy.calling.Err() != nil {
		return nil, false
	}
	g.refs.Add(1)
	return &policyCall{of: g, backend: b}, true
}

// policyCall is one request of a policy's.
type policyCall struct {
	of      *granted
	backend *backend
	permits service.Permits
	stream  upstream.Stream
	stops   []func() bool // what ends the stream early
}

// Do implements policy.Call. What has certainly had no effect is tried once more on
// another connection or endpoint; there are no other retries, for the policy alone
// knows what may be sent twice.
func (c *policyCall) Do(ctx context.Context, x *exchange.Exchange) error {
	if err := http1.CheckRequest(&x.Request); err != nil {
		return err
	}
	if !c.permits.Begin(c.backend.Backend) {
		return errOverloaded
	}
	ctx, cancel := context.WithCancel(ctx)
	c.stops = append(c.stops, // in this order: what they end may be read until Close
		context.AfterFunc(ctx, c.stream.Abort), context.AfterFunc(c.of.proxy.calling, cancel), func() bool { cancel(); return true })
	key, _ := c.backend.affinity.key(x)
	body := x.Request.Body
	sent := &sentBody{Body: body}
	if body != nil {
		x.Request.Body = sent
	}
	var tried service.Tried
	for try := 0; ; try++ {
		endpoint := c.backend.Pick(key, &tried)
		if endpoint == nil {
			return errNoEndpoint
		}
		tried.Add(endpoint)
		err := c.ask(ctx, x, endpoint)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || try >= freshTries || !err.Retry || err.Sent && !err.Refused || sent.read {
			return err
		}
		c.stream.Close(x)
	}
}

// sentBody is a request's body, of which it is known whether it was touched.
type sentBody struct {
	exchange.Body
	read bool
}

// Next implements exchange.Body.
func (b *sentBody) Next() ([]byte, error) {
	b.read = true
	return b.Body.Next()
}

// Ready, Complete and Abort are what the upstream side may ask of a body.
func (b *sentBody) Ready() bool {
	r, ok := b.Body.(interface{ Ready() bool })
	return ok && r.Ready()
}

// Complete reports whether all of the body is here.
func (b *sentBody) Complete() bool {
	switch body := b.Body.(type) {
	case *exchange.Chunk:
		return true
	case interface{ Complete() bool }:
		return body.Complete()
	}
	return false
}

// Abort ends a Next that waits.
func (b *sentBody) Abort() {
	if body, ok := b.Body.(interface{ Abort() }); ok {
		body.Abort()
	}
}

// ask asks one endpoint.
func (c *policyCall) ask(ctx context.Context, x *exchange.Exchange, e *service.Endpoint) *Error {
	began := time.Now()
	opts := upstream.Options{Now: began, Stall: stall, Queue: c.backend.Queue()}
	if deadline, ok := ctx.Deadline(); ok {
		opts.Deadline = deadline
	}
	err := c.stream.Open(ctx, e.Pool, x, opts)
	if err == nil {
		e.Report(x.Response.Status)
		c.backend.count(&c.stream, x.Response.Status, time.Since(began))
		return nil
	}
	c.backend.count(&c.stream, 0, time.Since(began))
	failed := upstreamError(err)
	switch {
	case errors.Is(err, upstream.ErrFull):
		c.backend.Exhausted()
	case failed.Blame == Upstream && !(failed.Sent && failed.Retry) && ctx.Err() == nil:
		e.Report(0)
	}
	return failed
}

// Close implements policy.Call.
func (c *policyCall) Close(x *exchange.Exchange) {
	for _, stop := range c.stops {
		stop()
	}
	c.stream.Close(x)
	c.permits.End()
	c.of.leave()
}
