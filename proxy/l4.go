package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/hello"
	"github.com/weirmesh/weir/proxy/listener"
	"github.com/weirmesh/weir/proxy/relay"
	"github.com/weirmesh/weir/proxy/service"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/telemetry"
)

// connection is a client's that carries no HTTP. What is known of it stands in an
// exchange, as which it is matched and logged.
type connection struct {
	*handler
	stream     *listener.Stream
	x          exchange.Exchange
	protocol   string // "TCP" or "TLS"
	generation *generation
	rule       *rule
	series     *telemetry.Connections
	counts     relay.Counts
	said       []byte   // what the client has said that the service has to hear first
	offers     []string // the protocols that it offers by ALPN
	client     relay.Side
	policies   *policy.Connection // nil: there are none
}

// A connection that does not come about, or does not end well, has one of these
// words as its result.
const (
	resultDone      = "done"
	resultNoHello   = "no_client_hello"
	resultUnknown   = "unrecognized_name"
	resultNoRoute   = "no_route"
	resultPolicies  = "policies_need_http"
	resultFailed    = "policy_failed"
	resultClosed    = "policy_closed"
	resultHandshake = "handshake_failed"
	resultNoBackend = "no_backend"
	resultChallenge = "acme_challenge"
	resultIdle      = "idle"
	resultCut       = "cut"
	resultBroken    = "reset"
)

// endedBy is how a connection came to its end: a result, and why.
type endedBy struct {
	result string
	err    error
}

// polite: the client has been told all that there is to tell.
func (e endedBy) polite() bool {
	return e.result == resultDone || e.result == resultUnknown || e.result == resultChallenge || e.result == resultClosed
}

// ServeStream implements listener.StreamHandler.
func (h *handler) ServeStream(ctx context.Context, s *listener.Stream) {
	c := &connection{handler: h, stream: s, protocol: "TCP", series: h.proxy.unroutedConnections, client: relay.Plain(s.Conn())}
	c.generation = h.proxy.acquire()
	defer c.generation.release()
	c.x.Start, c.x.Client, c.x.Local, c.x.Revision = time.Now(), s.Client(), s.Local(), c.generation.revision
	identify(&c.x)
	end := c.serve(ctx)
	c.x.Details = end.result
	if end.result == resultDone {
		c.x.Details = ""
	}
	if !end.polite() {
		breakOff(s.Conn())
	}
	c.series.Ended(end.result)
	h.proxy.cfg.Access.LogConnection(&c.x, c.protocol, c.counts.In.Load(), c.counts.Out.Load(), time.Now(), end.err)
}

// serve serves a connection, from top to bottom.
func (c *connection) serve(ctx context.Context) endedBy {
	secure := c.socket(c.generation)
	var l *secureListener
	if secure != nil {
		c.protocol = "TLS"
		if err := c.listen(); err != nil {
			return endedBy{resultNoHello, err}
		}
		if config := c.generation.challenges.certificateFor(&tls.ClientHelloInfo{ServerName: string(c.x.Request.Authority), SupportedProtos: c.offers}); config != nil {
			_, _, err := c.stream.Secure(c.said, config)
			return endedBy{resultChallenge, err}
		}
		var buf [maxHost]byte
		if l = secure.find(hostOf(&buf, c.x.Request.Authority)); l == nil {
			return c.unrecognized()
		}
	}
	c.x.Request.Path = []byte("/")
	hit, ok := c.generation.table.Match(uint16(c.port.Load()), &c.x)
	if !ok || hit.Rule.Value.connections == nil {
		return c.unrecognized()
	}
	c.rule = hit.Rule.Value
	c.x.Route, c.x.Rule, c.series = c.rule.route, c.rule.name, c.rule.connections
	chain := c.rule.chains.at(hit.Listener)
	if c.rule.ofBackends != nil || chain.Len() > 0 && !chain.Connects() { // who set them counts on them
		return endedBy{resultPolicies, nil}
	}
	c.series.Active.Add(1)
	defer c.series.Active.Add(-1)
	if l != nil && !l.passthrough {
		if err := c.terminate(l); err != nil {
			return endedBy{resultHandshake, err}
		}
	}
	if chain.Len() > 0 {
		return c.throughPolicies(ctx, chain)
	}
	return c.carry(ctx)
}

// listen reads what a TLS client says first.
func (c *connection) listen() error {
	nc := c.stream.Conn()
	_ = nc.SetReadDeadline(time.Now().Add(c.stream.Handshake())) // fails only on a closed connection, as the read then does
	buf := make([]byte, 0, 2<<10)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, make([]byte, min(len(buf), hello.MaxHello-len(buf)))...)[:len(buf)]
		}
		n, err := nc.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		info, more, parsed := hello.Parse(buf)
		switch {
		case parsed != nil:
			return parsed
		case !more:
			c.said, c.offers = buf, info.Protocols
			c.x.Request.Authority = []byte(info.ServerName)
			return nc.SetReadDeadline(time.Time{})
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
}

// alertUnrecognized is a record of TLS: fatal, unrecognized_name (RFC 6066,
// section 3).
var alertUnrecognized = []byte{21, 3, 1, 0, 2, 2, 112}

// unrecognized tells a TLS client that the name it asks for is not served.
func (c *connection) unrecognized() endedBy {
	if c.protocol == "TLS" {
		_, _ = c.stream.Conn().Write(alertUnrecognized) // it is told, or has gone
		return endedBy{resultUnknown, nil}
	}
	return endedBy{resultNoRoute, nil}
}

// terminate ends TLS here.
func (c *connection) terminate(l *secureListener) error {
	l.tickets.refresh(l, time.Now())
	secured, facts, err := c.stream.Secure(c.said, l.config)
	if err != nil {
		return err
	}
	c.x.TLS, c.said = facts, nil
	c.client.Conn = secured
	return nil
}

// carry connects to an endpoint and relays until both sides have ended.
func (c *connection) carry(ctx context.Context) endedBy {
	b := c.rule.backend()
	if b == nil {
		return endedBy{resultNoBackend, nil}
	}
	c.x.Service = b.Service()
	var permits service.Permits
	if !permits.Begin(b.Backend) {
		return endedBy{overloaded, nil}
	}
	defer permits.End()
	up, failed := connectTo(ctx, b, &c.x)
	if failed != nil {
		return endedBy{failed.Code, failed}
	}
	defer up.Close()
	c.counts.In.And, c.counts.Out.And = &c.series.In, &c.series.Out
	if c.policies != nil {
		return c.carryTapped(ctx, sideOf(up.Conn))
	}
	if len(c.said) > 0 {
		_ = up.SetWriteDeadline(time.Now().Add(stall))
		if _, err := up.Write(c.said); err != nil {
			return endedBy{resultBroken, err}
		}
		_ = up.SetWriteDeadline(time.Time{})
		c.counts.In.Add(int64(len(c.said)))
		c.said = nil
	}
	return outcome(ctx, relay.Run(ctx, c.client, sideOf(up.Conn), c.rule.idle, &c.counts))
}

// sideOf is a connection to an endpoint, with TLS or without.
func sideOf(c net.Conn) relay.Side {
	if secured, ok := c.(*tls.Conn); ok {
		return relay.Side{Conn: c, Socket: secured.NetConn()}
	}
	return relay.Plain(c)
}

func outcome(ctx context.Context, err error) endedBy {
	switch {
	case err == nil:
		return endedBy{resultDone, nil}
	case errors.Is(err, relay.ErrIdle):
		return endedBy{resultIdle, err}
	case ctx.Err() != nil:
		return endedBy{resultCut, err}
	case errors.Is(err, policy.ErrClosed):
		return endedBy{resultClosed, nil}
	case isFailure(err):
		return endedBy{resultFailed, err}
	}
	return endedBy{resultBroken, err}
}

// breakOff closes a connection so that its peer sees it break.
func breakOff(nc net.Conn) {
	if t, ok := nc.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = nc.Close()
}

// defaultIdle is how long a connection may carry nothing.
const defaultIdle = time.Hour

// compileStream prepares a rule for connections that carry no HTTP, if its route
// names a listener of those.
func (p *Proxy) compileStream(r *rule, ref resource.Ref, route *weirv1.Route, spec *weirv1.RouteRule) {
	if !p.namesStream(ref.Tenant, route) {
		return
	}
	r.idle = cmp.Or(spec.GetTimeouts().GetIdle().AsDuration(), defaultIdle)
	r.connections = p.cfg.Metrics.Connections(r.route)
	r.held = append(r.held, func() { p.cfg.Metrics.ForgetConnections(r.route) })
}

func (p *Proxy) namesStream(tenant string, route *weirv1.Route) bool {
	for _, parent := range route.GetSpec().GetParentRefs() {
		if parent.GetSectionName() == "" && parent.GetPort() == 0 {
			continue
		}
		gateway := resource.Ref{Kind: resource.KindGateway, Tenant: tenant, Name: parent.GetName()}
		for _, l := range p.desired.resources[gateway].GetGateway().GetSpec().GetListeners() {
			if resource.IsStream(l.GetProtocol()) {
				return true
			}
		}
	}
	return false
}
