package proxy

import (
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/upstream"
	"github.com/weirmesh/weir/proxy/wire"
)

// freshTries is how often a request that certainly had no effect is tried on
// another connection or endpoint, whatever the route says of retries. These are
// no retries: the service has seen nothing of them yet.
const freshTries = 2

// defaultBackoff is the first wait before a retry, at most, and maxBackoff how
// often that the longest is.
const (
	defaultBackoff = 25 * time.Millisecond
	maxBackoff     = 10
)

// maxReplay bounds the body that is kept while it may have to be sent again.
const maxReplay = 64 << 10

// retryRule is when a request is tried again.
type retryRule struct {
	attempts int // further tries
	codes    []int
	statuses []int // of gRPC
	backoff  time.Duration
}

var noRetry retryRule

func compileRetry(spec *weirv1.RouteRetry) *retryRule {
	if spec == nil {
		return &noRetry
	}
	r := &retryRule{attempts: int(spec.GetAttempts()), backoff: spec.GetBackoff().AsDuration()}
	if spec.GetBackoff() == nil {
		r.backoff = defaultBackoff
	}
	for _, c := range spec.GetCodes() {
		r.codes = append(r.codes, int(c))
	}
	for _, status := range spec.GetGrpcStatuses() {
		r.statuses = append(r.statuses, int(status))
	}
	return r
}

func (r *retryRule) onStatus(status int) bool {
	for _, c := range r.codes {
		if c == status {
			return true
		}
	}
	return false
}

// onGRPC: it is a call that was answered with nothing but such a status.
func (r *retryRule) onGRPC(x *exchange.Exchange) bool {
	if len(r.statuses) == 0 || x.Response.Body != nil || !x.Request.IsGRPC() {
		return false
	}
	status, err := strconv.Atoi(string(x.Response.Fields.Get("grpc-status")))
	return err == nil && slices.Contains(r.statuses, status)
}

// onAnswer: it is one that is tried again.
func (r *retryRule) onAnswer(x *exchange.Exchange) bool {
	return r.onStatus(x.Response.Status) || r.onGRPC(x)
}

// wait is how long to wait before a further try: a random part of what doubles
// each time, so that what failed together does not come back together.
func (r *retryRule) wait(try int) time.Duration {
	most := min(r.backoff<<min(try, 6), r.backoff*maxBackoff)
	if most <= 0 {
		return 0
	}
	return rand.N(most)
}

// again decides after a try whether another is wanted: on err, or on an answer
// when that is nil. free: it is no retry, for the service has seen nothing.
func (s *session) again(x *exchange.Exchange, r *rule, err *Error, try int) (wanted, free bool) {
	switch {
	case x.Informed:
		return false, false
	case err == nil && !r.retry.onAnswer(x):
		return false, false
	case s.life.now().Err() != nil:
		return false, false
	case err == nil && r.retry.onGRPC(x):
		return try < r.retry.attempts && s.known(x), false
	case err == nil:
	case err.Blame != Upstream || errors.Is(err, upstream.ErrFull): // elsewhere it would be no better
		return false, false
	case err.Retry && try < freshTries && s.harmless(x, err):
		return true, true
	case s.harmless(x, err):
		return try < r.retry.attempts, false
	}
	return try < r.retry.attempts && s.repeatable(x), false
}

// harmless: the service has seen nothing of the request, or says that it did not
// look; or it may see it twice.
func (s *session) harmless(x *exchange.Exchange, err *Error) bool {
	return !err.Sent || err.Refused && s.known(x) || s.repeatable(x)
}

// timeFor reports whether a try that begins after a wait could still end in time.
func timeFor(wait time.Duration, overall time.Time) bool {
	return overall.IsZero() || time.Until(overall) > wait
}

// pause waits, and reports whether that was not cut short.
func (s *session) pause(wait time.Duration) bool {
	if wait == 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.life.now().Done():
		return false
	}
}

// repeatable: the method is idempotent, and all of the body is known.
func (s *session) repeatable(x *exchange.Exchange) bool {
	return idempotent(x.Request.Method) && s.known(x)
}

// known: all of the body is, so that it can be sent once more.
func (s *session) known(x *exchange.Exchange) bool {
	return s.replay || s.record != nil && s.record.complete(x)
}

// rewind makes the request ready to be sent once more.
func (s *session) rewind(x *exchange.Exchange) {
	if s.record != nil && s.record.complete(x) {
		s.whole, s.record, s.replay = s.record.kept, nil, true
		x.Request.Body = &s.chunk
	}
	if s.replay && x.Request.Body != nil {
		s.chunk.Set(s.whole)
	}
}

// held is a body that may be here already, as one of HTTP/2.
type held interface {
	exchange.Body
	Complete() bool
	Buffered() int
}

// bufferBody makes a small body that is here already one that can be sent
// again. Where the rule may want that of another one, it is awaited if it is
// known to be short enough, else recorded as it is sent; so is one for a service
// that may refuse to look at a request that was sent.
func (s *session) bufferBody(x *exchange.Exchange, r *rule, b *backend) *Error {
	s.replay = true
	if x.Request.Body == nil || s.takeSmall(x) {
		return nil
	}
	return s.keepBody(x, r, b)
}

// takeSmall keeps a small body if all of it is here. It may be called again.
func (s *session) takeSmall(x *exchange.Exchange) bool {
	switch body := x.Request.Body.(type) {
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

func (s *session) keepBody(x *exchange.Exchange, r *rule, b *backend) *Error {
	s.replay = false
	n := x.Request.Body.Length()
	again := r.retry.attempts > 0 && idempotent(x.Request.Method) || r.hedging.may(x.Request.Method)
	switch {
	case !again && !b.shared || n > maxReplay:
		return nil
	case !again || n < 0:
		s.recorder = recorder{Body: x.Request.Body, trailers: &x.Request.Trailers, kept: s.recorder.kept[:0]}
		s.record = &s.recorder
		x.Request.Body = s.record
		return nil
	}
	if r.timeout > 0 {
		x.Request.Deadline = x.Start.Add(r.timeout)
	}
	whole := make([]byte, 0, n)
	for x.Request.Body.Length() > 0 {
		chunk, err := x.Request.Body.Next()
		if err != nil {
			return upstreamError(&upstream.Error{Client: true, Err: err})
		}
		whole = append(whole, chunk...)
	}
	s.whole, s.replay, s.late = whole, true, true
	s.chunk.Set(s.whole)
	x.Request.Body = &s.chunk
	return nil
}

// recorder keeps what of a body was sent, up to a bound, so that it can be sent
// again. Whoever sends it reads it; others may look once x.Request is not Shared.
type recorder struct {
	exchange.Body
	trailers    *exchange.Fields // which could not be sent again
	kept        []byte
	ended, lost bool
	whole       func(body []byte) // is told once all of it is known; nil: nobody
}

// Next implements exchange.Body.
func (r *recorder) Next() ([]byte, error) {
	chunk, err := r.Body.Next()
	switch {
	case err == io.EOF:
		r.ended = true
	case err != nil:
		r.lost = true
	case r.lost:
	case len(r.kept)+len(chunk) > maxReplay:
		r.kept, r.lost = nil, true
	default:
		r.kept = append(r.kept, chunk...)
		r.ended = r.Body.Length() == 0
	}
	if r.whole != nil && r.isWhole() {
		r.whole(r.kept)
		r.whole = nil
	}
	return chunk, err
}

// isWhole: all of the body is known. Whoever reads it may ask.
func (r *recorder) isWhole() bool { return r.ended && !r.lost && r.trailers.Len() == 0 }

// Ready, Ask and Abort are what the upstream side may ask of a body.
func (r *recorder) Ready() bool {
	b, ok := r.Body.(interface{ Ready() bool })
	return ok && b.Ready()
}

// Expects: the client waits to be asked for the body.
func (r *recorder) Expects() bool { return upstream.Expects(r.Body) }

// Ask tells a client that waits for it to send the body.
func (r *recorder) Ask() error {
	if b, ok := r.Body.(interface{ Ask() error }); ok {
		return b.Ask()
	}
	return nil
}

// Abort ends a Next that waits.
func (r *recorder) Abort() {
	if b, ok := r.Body.(interface{ Abort() }); ok {
		b.Abort()
	}
}

// complete: all of the body is known.
func (r *recorder) complete(x *exchange.Exchange) bool {
	return !x.Request.Shared && r.isWhole()
}

// idempotent: RFC 9110, section 9.2.2.
func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}
