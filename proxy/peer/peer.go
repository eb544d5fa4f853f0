// Package peer makes connections to sidecars: by HTTP/3, and where UDP does not come
// through by HTTP/2 over TLS, at the same port.
//
//	Dial ─▶ HTTP/3 … a moment later ─▶ HTTP/2 beside it ─▶ whichever is there first
//	                                     └─▶ tries HTTP/3 again, and makes room for it
//
// # Promises
//
//   - A connection by HTTP/2 is left as soon as HTTP/3 works: it takes no more
//     exchanges, and ends with the last that it has.
//   - A connection is left before either side's certificate has run out.
//   - A peer that falls silent is noticed within seconds, also by those who wait for
//     it: UDP may be blocked at any time.
//   - Nothing that was begun is left behind when Dial or Run returns.
package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync"
	"time"

	"github.com/weirmesh/weir/proxy/http2"
	"github.com/weirmesh/weir/proxy/http3"
	"github.com/weirmesh/weir/proxy/upstream"
)

const (
	// headStart is what HTTP/3 has before HTTP/2 is tried beside it.
	headStart = 300 * time.Millisecond
	// silence is how long a peer may say nothing.
	silence = 4 * time.Second
	// retry is how often HTTP/3 is tried again, and tryFor how long.
	retry  = 2 * time.Second
	tryFor = time.Second // also when nobody answers to TCP
)

var overQUIC = http3.DialWithin(silence)

// Dial makes a connection to a sidecar.
func Dial(ctx context.Context, to upstream.Target) (upstream.Conn, error) {
	if to.Security == nil {
		return nil, errors.New("begin with a sidecar: it is never spoken to in the clear")
	}
	r := race{to: to, results: make(chan result)}
	r.ctx, r.cancel = context.WithCancel(ctx)
	defer r.cancel()
	return r.run()
}

type race struct {
	to      upstream.Target
	ctx     context.Context
	cancel  context.CancelFunc
	results chan result
	running int
}

type result struct {
	conn *conn
	err  error
}

func (r *race) begin(p upstream.Protocol) {
	r.running++
	go func() {
		c, err := dialBy(r.ctx, r.to, p)
		r.results <- result{c, err}
	}()
}

// run waits for all that it has begun. Of two that are there, HTTP/3 is taken.
func (r *race) run() (upstream.Conn, error) {
	r.begin(upstream.HTTP3)
	beside := time.NewTimer(headStart)
	defer beside.Stop()
	var won *conn
	var errs []error
	both := false
	for r.running > 0 {
		select {
		case <-beside.C:
			if !both {
				both = true
				r.begin(upstream.HTTP2)
			}
		case got := <-r.results:
			r.running--
			switch {
			case got.err != nil:
				errs = append(errs, got.err)
				if !both && r.ctx.Err() == nil {
					both = true
					r.begin(upstream.HTTP2)
				} else if r.running > 0 { // nobody is there, as far as TCP knows
					defer time.AfterFunc(tryFor, r.cancel).Stop()
				}
			case won == nil:
				both, won = true, got.conn
				r.cancel()
			case got.conn.spoken == upstream.HTTP3:
				end(won)
				won = got.conn
			default:
				end(got.conn)
			}
		}
	}
	if won == nil {
		return nil, errors.Join(errs...)
	}
	return won, nil
}

func dialBy(ctx context.Context, to upstream.Target, p upstream.Protocol) (*conn, error) {
	c := &conn{to: to, spoken: p}
	to.Security = c.dated(to.Security)
	dial := overQUIC
	to.Security.NextProtos = []string{http3.Protocol}
	if p == upstream.HTTP2 {
		dial = http2.Dial
		to.Security.NextProtos = []string{"h2"}
	}
	var err error
	if c.Conn, err = dial(ctx, to); err != nil {
		return nil, err
	}
	return c, nil
}

// end closes a connection that nobody has used.
func end(c *conn) {
	c.Conn.Close()
	c.Conn.Run()
}

// conn is a connection to a sidecar.
type conn struct {
	upstream.Conn
	to     upstream.Target
	spoken upstream.Protocol
	until  time.Time // when the first of the two certificates runs out
	leaf   *x509.Certificate
}

// Peer implements upstream.Peered.
func (c *conn) Peer() *x509.Certificate { return c.leaf }

// Abort implements upstream.Peered.
func (c *conn) Abort() { c.Conn.(interface{ Abort() }).Abort() }

// dated notes until when both sides are who they have proven to be.
func (c *conn) dated(security *tls.Config) *tls.Config {
	security = security.Clone()
	note := func(t time.Time) {
		if c.until.IsZero() || t.Before(c.until) {
			c.until = t
		}
	}
	if show := security.GetClientCertificate; show != nil {
		security.GetClientCertificate = func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			shown, err := show(asked)
			if err == nil && shown.Leaf != nil {
				note(shown.Leaf.NotAfter)
			}
			return shown, err
		}
	}
	verify := security.VerifyConnection
	security.VerifyConnection = func(state tls.ConnectionState) error {
		if verify != nil {
			if err := verify(state); err != nil {
				return err
			}
		}
		c.leaf = state.PeerCertificates[0]
		note(c.leaf.NotAfter)
		return nil
	}
	return security
}

// Spoken says what is spoken on the connection.
func (c *conn) Spoken() upstream.Protocol { return c.spoken }

// Run implements upstream.Conn.
func (c *conn) Run() {
	ctx, cancel := context.WithCancel(context.Background())
	var minding sync.WaitGroup
	minding.Go(func() { c.mind(ctx) })
	c.Conn.Run()
	cancel()
	minding.Wait()
}

// mind leaves the connection in time: before a certificate runs out, when both sides
// have had theirs renewed for long, or once HTTP/3 works where it did not.
func (c *conn) mind(ctx context.Context) {
	old := time.NewTimer(max(time.Until(c.until)/4*3, 0))
	defer old.Stop()
	tick := time.NewTicker(retry)
	defer tick.Stop()
	again := tick.C
	if c.spoken == upstream.HTTP3 {
		tick.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-old.C:
			c.Close()
			return
		case <-again:
			if c.works(ctx) {
				c.Close()
				return
			}
		}
	}
}

// works tries HTTP/3.
func (c *conn) works(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	to := c.to
	to.Changed = func() {}
	tried, err := dialBy(ctx, to, upstream.HTTP3)
	if err != nil {
		return false
	}
	end(tried)
	return true
}
