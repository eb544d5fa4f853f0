package proxy

import (
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/balancer"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/upstream"
	"github.com/weirmesh/weir/proxy/wire"
)

// stall bounds the wait for a service's next byte where a route sets no
// timeout of its own.
const stall = 60 * time.Second

// freshTries is how often a request that certainly had no effect is tried on
// another connection or endpoint, whatever the route says of retries.
const freshTries = 2

func compileRetry(spec *weirv1.RouteRetry) *retryRule {
	if spec == nil {
		return &noRetry
	}
	r := &retryRule{attempts: int(spec.GetAttempts()), backoff: spec.GetBackoff().AsDuration()}
	for _, c := range spec.GetCodes() {
		r.codes = append(r.codes, int(c))
	}
	return r
}

var noRetry retryRule

// forward asks the rule's service, and again where that is safe and promises
// something. On nil, x.Response is the service's answer.
func (s *session) forward(x *exchange.Exchange, r *rule) *Error {
	b := r.sole
	if b == nil {
		which := r.split.Next()
		if which == balancer.None {
			return errNoBackend
		}
		b = r.backends[which]
	}
	x.Service = b.service
	replay := s.bufferBody(x)
	opts := upstream.Options{Now: x.Start, Stall: stall, Inline: s.run != nil}
	var overall time.Time
	if r.timeout > 0 {
		overall = x.Start.Add(r.timeout)
	}
	var tried balancer.Tried
	for try := 0; ; try++ {
		pool, which := b.endpoint(tried)
		if pool == nil {
			return errNoEndpoint
		}
		tried = tried.Add(which)
		err := s.attempt(x, r, b, pool, opts, overall)
		if err == nil && (try >= r.retry.attempts || !r.retry.onStatus(x.Response.Status) || !replay || !idempotent(x.Request.Method)) {
			return nil
		}
		if err != nil && !s.tryAgain(x, r, err, try, replay) {
			return err
		}
		if !s.pause(r.retry.backoff, try, overall) {
			return err
		}
		s.stream.Close(x)
		if replay && x.Request.Body != nil {
			s.chunk.Set(s.whole)
		}
		opts.Now = time.Now()
	}
}

// attempt asks one endpoint.
func (s *session) attempt(x *exchange.Exchange, r *rule, b *backend, pool *upstream.Pool, opts upstream.Options, overall time.Time) *Error {
	x.Endpoint = pool.Address()
	opts.Deadline = overall
	if s.run != nil || r.attemptTimeout > 0 {
		opts.Now = time.Now() // policies may have taken their time
	}
	began := opts.Now
	if r.attemptTimeout > 0 {
		if d := began.Add(r.attemptTimeout); overall.IsZero() || d.Before(overall) {
			opts.Deadline = d
		}
	}
	err := s.stream.Open(&s.life, pool, x, opts)
	if err != nil {
		b.metrics.Answered(0, time.Since(began))
		return upstreamError(err)
	}
	s.answered = time.Now()
	b.metrics.Answered(x.Response.Status, s.answered.Sub(began))
	if r.attemptTimeout > 0 {
		s.stream.ReadBy(overall) // the attempt is over with its head; the request is not
	}
	return nil
}

// tryAgain decides on an error: nothing can have happened and there are tries
// left, or the route asks for it and the method allows it.
func (s *session) tryAgain(x *exchange.Exchange, r *rule, err *Error, try int, replay bool) bool {
	switch {
	case err.Blame != Upstream || s.life.Err() != nil:
		return false
	case err.Retry && !err.Sent:
		return try < max(freshTries, r.retry.attempts)
	case !replay || !idempotent(x.Request.Method):
		return false
	case err.Retry:
		return try < max(freshTries, r.retry.attempts)
	}
	return try < r.retry.attempts
}

func (s *session) pause(backoff time.Duration, try int, overall time.Time) bool {
	if backoff > 0 {
		wait := time.NewTimer(backoff << min(try, 6))
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-s.life.Done():
			return false
		}
	}
	return overall.IsZero() || time.Now().Before(overall)
}

// held is a body that may be here already.
type held interface {
	exchange.Body
	Complete() bool
	Buffered() int
}

// bufferBody makes a small body that is here already one that can be sent
// again, and reports whether the request can be.
func (s *session) bufferBody(x *exchange.Exchange) (replay bool) {
	switch body := x.Request.Body.(type) {
	case nil:
		return true
	case *exchange.Chunk:
		s.whole, _ = body.Next()
	case *http1.Body:
		if n := body.Length(); n < 0 || n > wire.SmallBuffer || !body.Complete() {
			return false
		}
		s.whole, _ = body.Next()
	case held:
		if !body.Complete() || body.Buffered() > wire.SmallBuffer {
			return false
		}
		s.whole, _ = body.Next()
	default:
		return false
	}
	s.chunk.Set(s.whole)
	x.Request.Body = &s.chunk
	return true
}

// idempotent: RFC 9110, section 9.2.2.
func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}
