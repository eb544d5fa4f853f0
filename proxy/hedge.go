package proxy

import (
	"io"
	"sync"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/service"
	"github.com/weirmesh/weir/proxy/upstream"
)

// hedging is when other endpoints are asked beside the first, and how many.
type hedging struct {
	delay     time.Duration
	attempts  int
	anyMethod bool // not only idempotent ones
}

func compileHedging(spec *weirv1.RouteHedging) *hedging {
	if spec == nil {
		return nil
	}
	return &hedging{delay: spec.GetDelay().AsDuration(), attempts: max(1, int(spec.GetAttempts())), anyMethod: spec.GetAnyMethod()}
}

// may: the rule hedges, and requests with that method.
func (h *hedging) may(method []byte) bool {
	return h != nil && (h.anyMethod || idempotent(method))
}

// hedges: the rule does, and the request may be sent twice, once its body is known.
func (s *session) hedges(x *exchange.Exchange, r *rule) bool {
	return r.hedging.may(x.Request.Method) && !x.Request.WebSocket && (s.replay || s.record != nil)
}

// race is one try whose first answer is taken, whichever endpoint gives it. The
// first endpoint is asked by the session's stream and goroutine, as without
// hedging; the others are its rivals, each begun by the timer after a delay, or
// once all of the body has passed to the first where that is later, and served by
// a goroutine that ends with the head of its answer.
//
// Invariants: one of them wins at most; whoever is asked after that, or is still
// asked then, is cut; all goroutines have ended when the try has.
type race struct {
	session *session
	rule    *rule
	backend *backend
	key     uint64
	opts    upstream.Options
	origin  exchange.Exchange // what rivals send
	first   *term             // of the session's stream

	mu       sync.Mutex
	changed  sync.Cond // a rival has ended
	timer    *time.Timer
	due      bool   // one more is to be asked
	known    bool   // what the body is
	body     []byte // all of it
	rivals   []*rival
	underWay int
	closed   bool // no more begin
	over     bool // no more win
	winner   *rival
	done     sync.WaitGroup // the rivals' goroutines
}

// rival is another endpoint that is asked the same.
type rival struct {
	x        exchange.Exchange
	stream   upstream.Stream
	chunk    exchange.Chunk
	term     *term
	endpoint *service.Endpoint
	began    time.Time
}

// hedge asks an endpoint, and others when that takes its time. It returns the one
// that x.Response is the answer of and when that was asked, or why there is none.
func (s *session) hedge(x *exchange.Exchange, r *rule, b *backend, e *service.Endpoint, key uint64, opts upstream.Options) (*service.Endpoint, time.Time, error) {
	h := &race{session: s, rule: r, backend: b, key: key, opts: opts, first: newTerm(), known: s.replay, body: s.whole}
	h.changed.L = &h.mu
	if s.record != nil {
		s.record.whole = h.bodyKnown
	}
	h.origin = exchange.Exchange{Request: x.Request, Start: x.Start, Protocol: x.Protocol, Client: x.Client, Local: x.Local, TLS: x.TLS}
	s.race.Store(h)
	if s.life.now().Err() != nil { // one of the two, Cut or this, sees the other
		h.cut()
	}
	h.mu.Lock()
	h.timer = time.AfterFunc(r.hedging.delay, h.begin)
	h.mu.Unlock()
	informer := x.Informer
	x.Informer = nil // an interim answer would commit the client to who gives it
	err := s.stream.Open(h.first, e.Pool, x, opts)
	x.Informer = informer
	won := h.finish(err == nil && !r.retry.onAnswer(x))
	x.Hedges += len(h.rivals)
	if won == nil {
		return e, opts.Now, err
	}
	s.stream.Close(x)
	s.won = won
	won.hand(x)
	b.HedgeWon()
	return won.endpoint, won.began, nil
}

// begin has one more endpoint asked, as soon as the body is known.
func (h *race) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.due = true
	h.askAnother()
}

// bodyKnown is called by whoever sends the body to the first endpoint, once all of
// it has been read.
func (h *race) bodyKnown(body []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.body, h.known = body, true
	h.askAnother()
}

// askAnother asks one more endpoint if it is time to, there is one and it may be
// asked. The caller holds the lock.
func (h *race) askAnother() {
	if !h.due || !h.known || h.closed || h.winner != nil {
		return
	}
	h.due = false
	s := h.session
	e := h.backend.Pick(h.key, &s.tried)
	if e == nil || s.tried.Has(e) || !s.permits.Hedge(h.backend.Backend) {
		return
	}
	s.tried.Add(e)
	v := &rival{x: h.origin, term: newTerm(), endpoint: e, began: time.Now()}
	if v.x.Request.Body != nil {
		v.chunk.Set(h.body)
		v.x.Request.Body = &v.chunk
	}
	h.rivals = append(h.rivals, v)
	h.underWay++
	h.done.Go(func() { h.run(v) })
	if len(h.rivals) < h.rule.hedging.attempts {
		h.timer.Reset(h.rule.hedging.delay)
	}
}

// run asks a rival. It has lost when it gives no good answer, or not the first.
func (h *race) run(v *rival) {
	opts := h.opts
	opts.Now = v.began
	err := v.stream.Open(v.term, v.endpoint.Pool, &v.x, opts)
	good := err == nil && !h.rule.retry.onAnswer(&v.x)
	h.mu.Lock()
	late := h.over || h.winner != nil
	if good && !late {
		h.winner = v
		h.first.end() // before Abort, as in Cut
	}
	h.underWay--
	h.changed.Broadcast()
	h.mu.Unlock()
	switch {
	case good && !late:
		h.session.stream.Abort()
		return
	case late: // whatever it says by now, it was cut
	case err != nil:
		h.backend.count(&v.stream, 0, time.Since(v.began))
		_ = h.session.noAnswer(h.backend, v.endpoint, upstreamError(err))
	default:
		h.backend.count(&v.stream, v.x.Response.Status, time.Since(v.began))
		v.endpoint.Report(v.x.Response.Status)
	}
	v.stream.Close(&v.x)
}

// finish ends the race once the session's stream has its answer, or none: with no
// good one, once a rival has won or all have lost. It returns the winner; nil: the
// session's stream.
func (h *race) finish(good bool) *rival {
	h.mu.Lock()
	h.timer.Stop()
	h.closed = true
	for !good && h.winner == nil && !h.over && h.underWay > 0 {
		h.changed.Wait()
	}
	h.over = true
	won := h.winner
	h.cutAll(won)
	h.mu.Unlock()
	h.done.Wait()
	return won
}

// cut ends the race, and the answer of its winner: nobody wants it any more.
func (h *race) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed, h.over = true, true
	h.first.end()
	h.cutAll(nil)
	h.changed.Broadcast()
}

// cutAll ends the rivals, but for one. The caller holds the lock.
func (h *race) cutAll(but *rival) {
	for _, v := range h.rivals {
		if v != but {
			v.term.end()
			v.stream.Abort()
		}
	}
}

// hand makes the rival's answer x's.
func (v *rival) hand(x *exchange.Exchange) {
	x.Endpoint = v.endpoint.Pool.Address()
	from, to := &v.x.Response, &x.Response
	to.Status, to.Trailing, to.Tunnel, to.Reset = from.Status, from.Trailing, nil, false
	to.Fields, from.Fields = from.Fields, to.Fields
	to.Trailers.Reset()
	to.Body = nil
	if from.Body != nil {
		to.Body = &handed{Body: from.Body, from: &from.Trailers, to: &to.Trailers}
	}
}

// handed is the body of an answer that was read into another exchange.
type handed struct {
	exchange.Body
	from, to *exchange.Fields
}

// Next implements exchange.Body.
func (b *handed) Next() ([]byte, error) {
	chunk, err := b.Body.Next()
	if err == io.EOF && b.from.Len() > 0 {
		*b.to, *b.from = *b.from, exchange.Fields{}
	}
	return chunk, err
}

// Ready reports whether Next will not have to wait.
func (b *handed) Ready() bool {
	body, knows := b.Body.(interface{ Ready() bool })
	return knows && body.Ready()
}

// Whole reports whether what Next has returned was all, without trailers.
func (b *handed) Whole() bool {
	body, knows := b.Body.(interface{ Whole() bool })
	return knows && body.Whole()
}

// currentStream is the one that x.Response is read from.
func (s *session) currentStream() *upstream.Stream {
	if s.won != nil {
		return &s.won.stream
	}
	return &s.stream
}

// closeStream gives up what was asked, whoever it was.
func (s *session) closeStream(x *exchange.Exchange) {
	s.stream.Close(x)
	if s.race.Load() == nil {
		return
	}
	s.race.Store(nil)
	if s.won != nil {
		s.won.stream.Close(&s.won.x)
		s.won = nil
	}
}
