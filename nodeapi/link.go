package nodeapi

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirmesh/weir/internal/pause"
	"github.com/weirmesh/weir/nodeport"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

const (
	retryMin = 100 * time.Millisecond
	retryMax = 3 * time.Second
	// callTimeout bounds a short call.
	callTimeout = 10 * time.Second
	// stagger is how long a server may be silent before the next one is tried
	// beside it.
	stagger = time.Second
	// dialPatience is how long one may be silent that is called by itself.
	dialPatience = 5 * time.Second
)

// link is a connection to one server.
type link struct {
	*nodeport.Link
	address string
	api     weirv1connect.NodeServiceClient
}

func dialLink(ctx context.Context, dialer *nodeport.Dialer, address string, trust nodeport.Trust) (*link, error) {
	l, err := dialer.Link(ctx, address, trust)
	if err != nil {
		return nil, err
	}
	api := weirv1connect.NewNodeServiceClient(connect.NewClient(connecthttp.NewTransport(wholeMessages{l}, "https://"+address,
		connecthttp.WithCompressors(fastGzip()))))
	return &link{Link: l, address: address, api: api}, nil
}

// dialBriefly is for one server of several, which may be down.
func dialBriefly(ctx context.Context, dialer *nodeport.Dialer, address string, trust nodeport.Trust) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	return dialLink(ctx, dialer, address, trust)
}

// dialAny connects to the first server that answers. It begins with the first,
// and with each next one when those before have failed, or have said nothing
// for a while.
func dialAny(ctx context.Context, dialer *nodeport.Dialer, addresses []string, trust nodeport.Trust) (*link, error) {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		link *link
		err  error
	}
	results := make(chan result)
	begun, ended := 0, 0
	begin := func() {
		address := addresses[begun]
		begun++
		go func() {
			l, err := dialLink(ctx, dialer, address, trust)
			results <- result{l, err}
		}()
	}
	defer func() { // nobody is left behind, nor a link that came late
		cancel()
		for ; ended < begun; ended++ {
			if r := <-results; r.link != nil {
				r.link.Close()
			}
		}
	}()
	next := time.NewTicker(stagger)
	defer next.Stop()
	begin()
	for errs := []error(nil); ; {
		select {
		case r := <-results:
			ended++
			if r.err == nil {
				return r.link, nil
			}
			errs = append(errs, r.err)
			if ended == len(addresses) {
				return nil, errors.Join(errs...)
			}
			if begun < len(addresses) {
				begin()
				next.Reset(stagger)
			}
		case <-next.C:
			if begun < len(addresses) {
				begin()
			}
		}
	}
}

// errFull is what a server answers that has as many proxies as it takes.
func errFull() error {
	const wait = 5 * time.Second
	err := connect.NewError(connect.CodeResourceExhausted, "this server has as many proxies as it takes; try another")
	detail, bad := connectproto.NewErrorDetail(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait/2 + rand.N(wait))})
	if bad != nil {
		return err
	}
	return err.WithDetail(detail)
}

// retryAfter is how long a server that is full asks to be left alone.
func retryAfter(err error) (time.Duration, bool) {
	var verdict *connect.Error
	if !errors.As(err, &verdict) || verdict.Code() != connect.CodeResourceExhausted {
		return 0, false
	}
	for _, detail := range verdict.Details() {
		m, err := connectproto.UnmarshalErrorDetail(detail)
		if info, ok := m.(*errdetails.RetryInfo); ok && err == nil {
			return min(max(info.GetRetryDelay().AsDuration(), 0), maxRetryAfter), true
		}
	}
	return 0, true
}

// maxRetryAfter bounds what a server may ask for.
const maxRetryAfter = time.Minute

// spread is within how long the proxies of a server that is gone come to the
// others.
const spread = time.Second

// pace is how soon a proxy connects again.
type pace struct {
	spread  time.Duration
	tries   backoff
	refused int // servers in a row that said they were full
}

// wait returns false when ctx ended. After a stream that was of use it is a
// moment that differs from proxy to proxy: all of them have lost their server.
// One that was sent away tries the other servers first.
func (p *pace) wait(ctx context.Context, good bool, err error, servers int) bool {
	after, full := retryAfter(err)
	if !full {
		p.refused = 0
	}
	switch {
	case good:
		p.tries.reset()
		return pause.For(ctx, rand.N(p.spread))
	case isLeaderless(err): // there is an end to it, see search
		return pause.For(ctx, rand.N(retryMin))
	case full:
		if p.refused++; p.refused < servers {
			return pause.For(ctx, rand.N(retryMin))
		}
		p.refused = 0
		return pause.For(ctx, max(after, retryMin))
	}
	return p.tries.wait(ctx)
}

// backoff waits ever longer between tries, never twice as long as another.
type backoff struct{ next time.Duration }

func (b *backoff) reset() { b.next = 0 }

// wait returns false when ctx ended.
func (b *backoff) wait(ctx context.Context) bool {
	b.next = min(max(2*b.next, retryMin), retryMax)
	return pause.For(ctx, b.next/2+rand.N(b.next))
}
