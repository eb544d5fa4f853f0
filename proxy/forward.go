package proxy

import (
	"errors"
	"time"

	"github.com/weirmesh/weir/proxy/balancer"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/service"
	"github.com/weirmesh/weir/proxy/upstream"
)

// stall bounds the wait for a service's next byte where a route sets no
// timeout of its own.
const stall = 60 * time.Second

// forward asks the rule's service, and again where that is safe and promises
// something. On nil, x.Response is the service's answer.
func (s *session) forward(x *exchange.Exchange, r *rule) *Error {
	b := s.backend(r)
	if b == nil {
		return errNoBackend
	}
	x.Service = b.Service()
	if x.Request.WebSocket && !b.upgrades { // not for the endpoints to answer for
		return errWebSocket
	}
	if !s.permits.Begin(b.Backend) {
		return errOverloaded
	}
	key, newcomer := b.affinity.key(x)
	if err := s.bufferBody(x, r, b); err != nil {
		return err
	}
	opts := upstream.Options{Now: x.Start, Stall: stall, Inline: s.run != nil, Queue: b.Queue()}
	var overall time.Time
	if r.timeout > 0 {
		overall = x.Start.Add(r.timeout)
	}
	if own := callDeadline(x); !own.IsZero() && (overall.IsZero() || own.Before(overall)) {
		overall = own
	}
	s.tried = service.Tried{}
	for try := 0; ; try++ {
		var endpoint *service.Endpoint
		if try == 0 && x.Preferred != "" {
			endpoint = b.Named(x.Preferred)
		}
		if endpoint == nil {
			endpoint = b.Pick(key, &s.tried)
		}
		if endpoint == nil {
			return errNoEndpoint
		}
		s.tried.Add(endpoint)
		err := s.attempt(x, r, b, endpoint, key, opts, overall)
		wanted, free := s.again(x, r, err, try)
		wait := r.retry.wait(try)
		if !wanted || !timeFor(wait, overall) || !free && !s.permits.Retry(b.Backend) || !s.pause(wait) {
			if err == nil {
				b.affinity.stick(x, newcomer)
			}
			return err
		}
		s.closeStream(x)
		s.rewind(x)
		opts.Now = time.Now()
	}
}

// backend is the service that an exchange goes to; nil: to none.
func (s *session) backend(r *rule) *backend {
	if r.sole == nil && s.chosen != nil {
		return s.chosen
	}
	return r.backend()
}

// backend is the only service, or the one whose turn it is by the weights; nil: there is
// none.
func (r *rule) backend() *backend {
	if r.sole != nil || r.split == nil {
		return r.sole
	}
	which := r.split.Next()
	if which == balancer.None {
		return nil
	}
	return r.backends[which]
}

// attempt asks one endpoint, and where the rule hedges others by the same key.
func (s *session) attempt(x *exchange.Exchange, r *rule, b *backend, e *service.Endpoint, key uint64, opts upstream.Options, overall time.Time) *Error {
	x.Endpoint = e.Pool.Address()
	s.serving.judge(false) // the one that was asked before
	opts.Deadline = overall
	if s.run != nil || s.late || r.attemptTimeout > 0 {
		opts.Now = time.Now() // policies or the client may have taken their time
	}
	began := opts.Now
	if r.attemptTimeout > 0 {
		if d := began.Add(r.attemptTimeout); overall.IsZero() || d.Before(overall) {
			opts.Deadline = d
		}
	}
	var err error
	if s.hedges(x, r) {
		e, began, err = s.hedge(x, r, b, e, key, opts)
	} else {
		err = s.stream.Open(s.life.now(), e.Pool, x, opts)
	}
	if err != nil {
		if s.life.now().Err() == nil { // else nobody waits for an answer any more
			b.count(&s.stream, 0, time.Since(began))
		}
		return s.noAnswer(b, e, upstreamError(err))
	}
	if s.serving = (serving{e, x.Response.Status}); x.Response.Status >= 500 {
		s.serving.judge(false)
	}
	s.answered = time.Now()
	b.count(s.currentStream(), x.Response.Status, s.answered.Sub(began))
	if r.attemptTimeout > 0 {
		s.currentStream().ReadBy(overall) // the attempt is over with its head; the request is not
	}
	return nil
}

// serving is the endpoint whose answer is passed on. What is good by its head is judged
// at its end: an endpoint that cuts every answer is not well.
type serving struct {
	endpoint *service.Endpoint // nil: it was judged
	status   int
}

// judge reports how the endpoint has answered. cut: not to the end.
func (s *serving) judge(cut bool) {
	switch {
	case s.endpoint == nil:
	case cut:
		s.endpoint.Report(0)
	default:
		s.endpoint.Report(s.status)
	}
	s.endpoint = nil
}

// noAnswer notes that an endpoint gave none, if that is its fault.
func (s *session) noAnswer(b *backend, e *service.Endpoint, err *Error) *Error {
	switch {
	case errors.Is(err, upstream.ErrFull):
		b.Exhausted()
	case err.Blame == Upstream && !(err.Sent && err.Retry) && s.life.now().Err() == nil:
		e.Report(0)
	}
	return err
}
