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
//   - A peer that falls silent is noticed within seconds, also by those who wait for
//     it: UDP may be blocked at any time.
//   - Nothing that was begun is left behind when Dial or Run returns.
package peer

import (
	"context"
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
	tryFor = time.Second
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
	conn     upstream.Conn
	protocol upstream.Protocol
	err      error
}

func (r *race) begin(p upstream.Protocol) {
	r.running++
	go func() {
		c, err := dialBy(r.ctx, r.to, p)
		r.results <- result{c, p, err}
	}()
}

// run waits for all that it has begun. Of two that are there, HTTP/3 is taken.
func (r *race) run() (upstream.Conn, error) {
	r.begin(upstream.HTTP3)
	beside := time.NewTimer(headStart)
	defer beside.Stop()
	var won result
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
				}
			case won.conn == nil:
				both, won = true, got
				r.cancel()
			case got.protocol == upstream.HTTP3:
				end(won.conn)
				won = got
			default:
				end(got.conn)
			}
		}
	}
	switch {
	case won.conn == nil:
		return nil, errors.Join(errs...)
	case won.protocol == upstream.HTTP3:
		return won.conn, nil
	}
	return &fallback{Conn: won.conn, to: r.to}, nil
}

func dialBy(ctx context.Context, to upstream.Target, p upstream.Protocol) (upstream.Conn, error) {
	to.Security = to.Security.Clone()
	if p == upstream.HTTP3 {
		to.Security.NextProtos = []string{http3.Protocol}
		return overQUIC(ctx, to)
	}
	to.Security.NextProtos = []string{"h2"}
	return http2.Dial(ctx, to)
}

// end closes a connection that nobody has used.
func end(c upstream.Conn) {
	c.Close()
	c.Run()
}

// fallback is a connection by HTTP/2, for as long as there can be none by HTTP/3.
type fallback struct {
	upstream.Conn
	to upstream.Target
}

// Spoken says what is spoken on the connection.
func (*fallback) Spoken() upstream.Protocol { return upstream.HTTP2 }

// Run implements upstream.Conn.
func (f *fallback) Run() {
	ctx, cancel := context.WithCancel(context.Background())
	var trying sync.WaitGroup
	trying.Go(func() { f.awaitQUIC(ctx) })
	f.Conn.Run()
	cancel()
	trying.Wait()
}

// awaitQUIC leaves the connection once HTTP/3 works.
func (f *fallback) awaitQUIC(ctx context.Context) {
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if f.works(ctx) {
			f.Close()
			return
		}
	}
}

func (f *fallback) works(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	to := f.to
	to.Changed = func() {}
	c, err := dialBy(ctx, to, upstream.HTTP3)
	if err != nil {
		return false
	}
	end(c)
	return true
}
