// Package probe is what active health checks ask: a request, a call of gRPC, or
// to be let in.
//
//	health.Member ─▶ Question ─▶ upstream.Registry.Probe ─▶ the endpoint
//
// # Promises
//
//   - An endpoint is asked in the protocol, with the TLS and behind the PROXY
//     protocol header that requests to it have: by the same code.
//   - Each check makes a connection, and closes it: one that is kept would find
//     that an endpoint which accepts no more is well.
//   - A redirect is an answer, not followed. Of an answer's body no more is read
//     than one small message.
package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/health"
	"github.com/weirmesh/weir/proxy/upstream"
)

// Question implements [health.Question]. With neither HTTP nor GRPC, to be let in
// suffices.
type Question struct {
	Pools *upstream.Registry
	// Key is the service's, without an address.
	Key  upstream.Key
	HTTP *HTTP
	GRPC *GRPC
}

// HTTP is a request that must be answered with an expected status.
type HTTP struct {
	Path     string
	Host     string // empty: the name that TLS asks for, else the address
	Expected []Range
}

// Range of statuses, half-open.
type Range struct{ Start, End int }

// GRPC is a call of grpc.health.v1.Health/Check that must be answered with
// SERVING.
type GRPC struct {
	Service   string // empty: the server as a whole
	Authority string // empty: as HTTP.Host
}

// Equal implements [health.Question].
func (q *Question) Equal(other health.Question) bool {
	o, ok := other.(*Question)
	return ok && q.Pools == o.Pools && q.Key == o.Key && q.HTTP.equal(o.HTTP) && q.GRPC.equal(o.GRPC)
}

func (h *HTTP) equal(o *HTTP) bool {
	if h == nil || o == nil {
		return h == o
	}
	return h.Path == o.Path && h.Host == o.Host && slices.Equal(h.Expected, o.Expected)
}

func (g *GRPC) equal(o *GRPC) bool {
	return g == o || g != nil && o != nil && *g == *o
}

// Ask implements [health.Question].
func (q *Question) Ask(ctx context.Context, address string) error {
	key := q.Key
	key.Address = address
	switch {
	case q.HTTP != nil:
		return q.askHTTP(ctx, key)
	case q.GRPC != nil:
		return q.askGRPC(ctx, key)
	}
	return q.Pools.Reach(ctx, key)
}

func (q *Question) askHTTP(ctx context.Context, key upstream.Key) error {
	x := newExchange("GET", q.HTTP.Path, q.HTTP.Host, key)
	return q.Pools.Probe(ctx, key, x, func() error { return q.HTTP.judge(x.Response.Status) })
}

func (h *HTTP) judge(status int) error {
	for _, r := range h.Expected {
		if status >= r.Start && status < r.End {
			return nil
		}
	}
	return fmt.Errorf("it answers %d", status)
}

func newExchange(method, path, host string, key upstream.Key) *exchange.Exchange {
	x := &exchange.Exchange{}
	x.Request.Method, x.Request.Path, x.Request.Scheme = []byte(method), []byte(path), []byte("http")
	if key.TLS.On {
		x.Request.Scheme = []byte("https")
	}
	x.Request.Authority = []byte(cmp.Or(host, key.TLS.ServerName, key.Address))
	x.Request.Fields.Add([]byte("User-Agent"), []byte("weir-health-check"))
	return x
}

// maxMessage bounds the answer to a call, which is a few bytes.
const maxMessage = 4 << 10

// readAll reads a body that ought to be short.
func readAll(b exchange.Body) ([]byte, error) {
	var all []byte
	for b != nil {
		chunk, err := b.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(all)+len(chunk) > maxMessage {
			return nil, errors.New("its answer is too long")
		}
		all = append(all, chunk...)
	}
	return all, nil
}
