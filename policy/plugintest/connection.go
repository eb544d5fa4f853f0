package plugintest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"go.yaml.in/yaml/v3"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/proxy/exchange"
)

// Connection is a connection without HTTP, in a case's place of an exchange.
type Connection struct {
	// ServerName is what the client asked for by TLS.
	ServerName string
	Pieces     []Piece
}

// Piece is what one of the two says next, and what then has come out.
type Piece struct {
	From policy.Direction
	Text string
	// End: it says nothing more.
	End bool
	// ToService and ToClient are what each is sent, what was let go meanwhile with it;
	// nil: whatever.
	ToService, ToClient *string
}

// Closed is the verdict on a connection that the plugin has closed.
const Closed Verdict = "close"

func (p *parser) connection(to **Connection) func(*yaml.Node, string) {
	return func(n *yaml.Node, at string) {
		c := new(Connection)
		*to = c
		p.mapping(n, at, fields{
			"serverName": p.text(&c.ServerName),
			"pieces": func(n *yaml.Node, at string) {
				p.list(n, at, func(n *yaml.Node, at string) { c.Pieces = append(c.Pieces, p.piece(n, at, c.Pieces)) })
			},
		})
	}
}

func (p *parser) piece(n *yaml.Node, at string, before []Piece) (piece Piece) {
	says := 0
	from := func(d policy.Direction) func(*yaml.Node, string) {
		return func(n *yaml.Node, at string) {
			says++
			piece.From, piece.Text = d, p.scalar(n, at)
		}
	}
	wanted := func(to **string) func(*yaml.Node, string) {
		return func(n *yaml.Node, at string) { text := p.scalar(n, at); *to = &text }
	}
	p.mapping(n, at, fields{
		"client": from(policy.Downstream), "service": from(policy.Upstream), "end": p.flag(&piece.End),
		"toService": wanted(&piece.ToService), "toClient": wanted(&piece.ToClient),
	})
	switch {
	case says != 1:
		p.note(n, at, "a piece is of one: client, or service")
	case piece.Text == "" && !piece.End:
		p.note(n, at, "a piece is not empty, unless it is the end")
	}
	for _, b := range before {
		if b.From == piece.From && b.End {
			p.note(n, at, "nothing follows the end")
			break
		}
	}
	return piece
}

var errNoConnections = errors.New("the plugin has no code for connections without HTTP")

// observedConnection is a policy whose connections tell what they burned.
type observedConnection struct {
	policy.ConnectionPolicy
	fuel uint64
}

// NewConnectionFilter implements policy.ConnectionPolicy.
func (o *observedConnection) NewConnectionFilter() policy.ConnectionFilter {
	return &connectionObserver{o.ConnectionPolicy.NewConnectionFilter(), o}
}

type connectionObserver struct {
	policy.ConnectionFilter
	of *observedConnection
}

// Close implements policy.ConnectionFilter.
func (o *connectionObserver) Close(x *exchange.Exchange) {
	o.ConnectionFilter.Close(x)
	noteFuel(&o.of.fuel, o.ConnectionFilter)
}

// connect has the case's connection happen once.
func (r *Runner) connect(ctx context.Context, p policy.Policy, c *Case, services *services, result *Result) (last seen, fuel uint64) {
	known, ok := p.(policy.ConnectionPolicy)
	if !ok || !known.Connects() {
		return seen{verdict: Failed, err: errNoConnections}, 0
	}
	o := &observedConnection{ConnectionPolicy: known}
	t := &talk{services: services, result: result}
	last.verdict, last.err = t.run(ctx, policy.NewChain([]policy.Policy{o}, policy.ChainConfig{}), c)
	return last, o.fuel
}

// talk is a connection in the course of a case.
type talk struct {
	services *services
	result   *Result
	of       *policy.Connection
	woken    [2]atomic.Bool
	out      [2]string // what a piece has led to, for the service and for the client
	ended    [2]bool
}

func (t *talk) run(ctx context.Context, chain *policy.Chain, c *Case) (Verdict, error) {
	x := new(exchange.Exchange)
	fill(x, c, c.Time)
	x.Request.Method, x.Request.Path, x.Request.Scheme = nil, nil, nil
	x.Request.Authority = []byte(c.Connection.ServerName)
	t.of = chain.Connect(x)
	defer t.of.Close()
	t.of.Attach(func() { t.woken[policy.Downstream].Store(true) }, func() { t.woken[policy.Upstream].Store(true) })
	within, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	err := t.of.Open(within)
	for i := 0; err == nil && i < len(c.Connection.Pieces); i++ {
		err = t.say(i, &c.Connection.Pieces[i])
	}
	t.services.settle()
	for _, d := range []policy.Direction{policy.Downstream, policy.Upstream} {
		t.of.Disconnected(d, t.ended[d])
	}
	switch {
	case errors.Is(err, policy.ErrClosed):
		return Closed, nil
	case err != nil:
		return Failed, err
	}
	return Continued, nil
}

// say has a piece passed, and what it lets go of the other direction; what it asks of
// services is answered before.
func (t *talk) say(i int, p *Piece) error {
	t.out = [2]string{}
	t.ended[p.From] = t.ended[p.From] || p.End
	err := t.pass(p.From, []byte(p.Text), p.End)
	for err == nil {
		t.services.settle()
		d := policy.Downstream
		if !t.woken[d].Swap(false) {
			if d = policy.Upstream; !t.woken[d].Swap(false) {
				break
			}
		}
		err = t.pass(d, nil, false)
	}
	for d, want := range []*string{p.ToService, p.ToClient} {
		if to := [2]string{"service", "client"}[d]; want != nil && t.out[d] != *want {
			t.result.problem("piece %d, to the %s: %s", i+1, to, difference(t.out[d], *want, "want"))
		}
	}
	return err
}

func (t *talk) pass(d policy.Direction, piece []byte, end bool) error {
	out, _, err := t.of.Pass(d, piece, end)
	if err != nil {
		return err
	}
	t.out[d] += string(out)
	return nil
}

// forConnection notes what a case of a connection does not have.
func (p *parser) forConnection(n *yaml.Node, at string, c *Case) {
	if c.Connection == nil {
		if c.Expect.Verdict == Closed {
			p.note(n, at+".expect.verdict", "close goes with a connection")
		}
		return
	}
	for _, key := range []string{"request", "response", "allowOnHeadersStopIteration"} {
		if valueOf(target(n), key) != nil {
			p.note(n, at+"."+key, "does not go with a connection: there is no HTTP on it")
		}
	}
	if w := c.Expect.Verdict; w == Answered || c.Expect.Request.any() || c.Expect.Response.any() {
		p.note(n, at+".expect", "of a connection there is a verdict (continue, close, fail or refuse), error, log and fuel; what comes out is said with its pieces")
	}
}

// exchangesOf are the cases of exchanges.
func exchangesOf(cases []Case) (some []Case, err error) {
	for _, c := range cases {
		if c.Connection == nil {
			some = append(some, c)
		}
	}
	if len(some) == 0 {
		return nil, fmt.Errorf("measure plugin: there are no cases of exchanges")
	}
	return some, nil
}
