package proxy

import (
	"errors"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/proxy/balancer"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/listener"
	"github.com/weirmesh/weir/proxy/router"
	"github.com/weirmesh/weir/proxy/service"
	"github.com/weirmesh/weir/proxy/upstream"
	"github.com/weirmesh/weir/proxy/wire"
)

// handler serves the listeners of one port.
type handler struct {
	proxy *Proxy
	key   atomic.Pointer[bindKey]
	port  atomic.Uint32 // of the listeners; the socket's own, unless it stands in for another
	// altSvc tells clients that the port speaks HTTP/3, too; nil: it does not.
	altSvc   atomic.Pointer[[]byte]
	requests [4]atomic.Uint64 // by protocol
	crowd    listener.Crowd   // of the port's clients
}

// serve says for which socket's listeners the handler is.
func (h *handler) serve(k bindKey) {
	h.key.Store(&k)
	h.port.Store(uint32(k.port))
}

// NewSession implements listener.Handler.
func (h *handler) NewSession() listener.Session { return &session{handler: h} }

// session is the state of one exchange beside the exchange itself. It is used
// again for the next one.
type session struct {
	*handler
	life       life // of the exchange
	generation *generation
	rule       *rule
	run        *policy.Run
	stream     upstream.Stream
	race       atomic.Pointer[race] // of a hedged request
	won        *rival               // that has its answer instead of stream
	tried      service.Tried
	serving    serving
	chunk      exchange.Chunk
	permits    service.Permits
	whole      []byte                 // the request's body, while it may have to be sent again
	record     *recorder              // which becomes it
	recorder   recorder               // what record points to
	replay     bool                   // it is known, or there is none
	late       bool                   // the client was waited for
	secured    *secureListener        // that the request came by; nil in the clear
	rejected   bool                   // it was no request
	answered   time.Time              // when the head of the service's answer was read
	tunnel     atomic.Pointer[tunnel] // that CONNECT has opened
	overdue    func()                 // undoes cutInTime; nil: there is nothing to undo
	chosen     *backend               // by whose policies; nil: none is yet
	extra      *extra                 // of a rule with filters, once one needs it
}

// Begin implements listener.Session.
func (s *session) Begin() { s.life.begin() }

// Serve answers one exchange, from top to bottom.
func (s *session) Serve(x *exchange.Exchange) {
	s.generation = s.proxy.acquire()
	x.Revision = s.generation.revision
	identify(x)

	if err := s.serve(x); err != nil {
		if s.life.now().Err() != nil { // whatever else it looks like
			err = errGone
		}
		s.fail(x, err)
	}
	if x.Connected() && !x.Tunnels() && !x.Response.Home { // a policy has answered so, and the client would talk on
		errNoTunnel.answer(x)
	}
	s.addDate(x)
	if s.secured != nil {
		s.advertise(x)
	}
	x.Response.Fields.Set(headerRequestID, x.ID)
	if s.rule != nil && s.rule.filters != nil {
		s.seal(x, s.rule.filters)
	}
	if x.Consumer != nil {
		s.meter(x)
	}
	if x.Response.Tunnel != nil && s.proxy.cfg.Mesh != nil {
		s.cutInTime(x)
	}
}

var headerAltSvc = []byte("Alt-Svc")

// advertise tells clients of HTTP/3 (RFC 7838), unless the service or a filter
// has something else to say about that.
func (s *session) advertise(x *exchange.Exchange) {
	value := s.altSvc.Load()
	if value == nil || s.secured.quic == nil || s.secured.mesh || x.Protocol == exchange.HTTP3 || x.Response.Tunnel != nil || x.Response.Fields.Has("alt-svc") {
		return
	}
	x.Response.Fields.AddParsed(headerAltSvc, *value)
}

func (s *session) serve(x *exchange.Exchange) *Error {
	if s.proxy.cfg.Overload.Shedding() {
		s.proxy.shed.Add(1)
		return errShed
	}
	if err := normalisePath(x); err != nil {
		return err
	}
	if s.generation.challenges != nil && s.answerChallenge(x) {
		return nil
	}
	if err := s.checkConnection(x); err != nil {
		return err
	}
	if n := len(x.Request.Method); n == len("OPTIONS") || n == len("TRACE") {
		if answered, err := s.countHop(x); answered || err != nil {
			return err
		}
	}
	port := uint16(s.port.Load())
	hit, ok := s.generation.table.Match(port, x)
	if len(x.Request.Method) == len("OPTIONS") && s.preflight(x, port, &hit, ok) {
		return nil
	}
	if !ok && x.Request.Connect {
		return s.connectUnrouted(x, port)
	}
	if !ok {
		return s.proxy.noRoute(port)
	}
	s.enter(x, &hit)
	s.addForwarded(x) // before policies decide by it
	chain := s.chainFor(hit.Listener)
	if x.TLS != nil && chain.Len() > 0 {
		noteConnection(x)
	}
	s.run = chain.Begin(x)
	if s.run != nil {
		s.limitPolicies(x)
	}
	outcome, err := s.run.Request()
	switch {
	case err != nil: // of a policy, or of the body that it held
		return upstreamError(&upstream.Error{Client: true, Err: err})
	case outcome == policy.Answered:
		return s.policyAnswered(x)
	}
	if x.RouteChanged {
		if hit, ok = s.generation.table.Match(port, x); !ok {
			return errNoRoute
		}
		s.enter(x, &hit) // the policies that have begun stay in charge
		s.chosen = nil
	}
	return s.act(x, &hit)
}

// chainFor is the policies that run on the exchange. Where the services of its rule have
// their own, the service is chosen now.
func (s *session) chainFor(l *router.Listener) *policy.Chain {
	r := s.rule
	s.chosen = nil
	if r.ofBackends == nil {
		return r.chains.at(l)
	}
	which := r.split.Next()
	if which == balancer.None {
		return r.chains.at(l)
	}
	s.chosen = r.backends[which]
	return r.ofBackends[which].at(l)
}

// Endpoints implements exchange.Endpoints. Where the rule has several services, the
// one that the exchange goes to is chosen now.
func (s *session) Endpoints(yield func(address string, healthy bool) bool) {
	b := s.backend(s.rule)
	if s.rule.sole == nil {
		s.chosen = b
	}
	if b != nil {
		b.Endpoints(yield)
	}
}

// limitPolicies says how long policies may wait, for the body or for what they have
// asked, and what they may ask about where the exchange goes.
func (s *session) limitPolicies(x *exchange.Exchange) {
	x.Endpoints = s
	x.Done = s.life.now().Done()
	x.Deadline = callDeadline(x)
	if s.rule.timeout <= 0 {
		return
	}
	x.Request.Deadline = x.Start.Add(s.rule.timeout)
	if x.Deadline.IsZero() || x.Request.Deadline.Before(x.Deadline) {
		x.Deadline = x.Request.Deadline
	}
}

// policyAnswered: the answer is a policy's, which may have said why in a word of
// its own.
func (s *session) policyAnswered(x *exchange.Exchange) *Error {
	if x.Details == "" {
		x.Details = "policy"
	}
	shapeForGRPC(x)
	return s.finishResponse(x)
}

// enter notes which rule serves the exchange.
func (s *session) enter(x *exchange.Exchange, hit *router.Hit[*rule]) {
	s.rule = hit.Rule.Value
	x.Route, x.Rule = s.rule.route, s.rule.name
}

// act does what the rule says: forward and relay, or what its filters say.
func (s *session) act(x *exchange.Exchange, hit *router.Hit[*rule]) *Error {
	changed := s.run != nil
	if f := s.rule.filters; f != nil {
		if answered, err := s.filter(x, hit, f); answered || err != nil {
			return err
		}
		changed = changed || f.rewrite != nil
	}
	if changed {
		if err := http1.CheckRequest(&x.Request); err != nil {
			return s.notSendable(err)
		}
	}
	if err := s.pass(x, s.rule); err != nil {
		if errors.Is(err, policy.ErrAnswered) {
			return s.policyAnswered(x)
		}
		return err
	}
	return s.finishResponse(x)
}

// pass lets the rule's service answer.
func (s *session) pass(x *exchange.Exchange, r *rule) *Error {
	if x.Request.Connect {
		return s.connect(x, r)
	}
	return s.forward(x, r)
}

// notSendable: a policy or a filter left a request line that would break out of
// its place.
func (s *session) notSendable(err error) *Error {
	e := &Error{Status: 500, Blame: Weir, Code: "bad_rewrite", Detail: "The request cannot be sent as it was changed.", Err: err}
	if s.run != nil {
		e.Blame = Policy
	}
	return e
}

// finishResponse takes the answer, whoever made it, back through the filters
// and the policies.
func (s *session) finishResponse(x *exchange.Exchange) *Error {
	if f := s.rule.filters; f != nil {
		f.response.apply(&x.Response.Fields)
	}
	if err := s.run.Response(); err != nil {
		return answerFailed(err)
	}
	return nil
}

// answerFailed: a policy failed on the answer, or its body did while a policy
// held it.
func answerFailed(err error) *Error {
	return upstreamError(&upstream.Error{Sent: true, Timeout: errors.Is(err, os.ErrDeadlineExceeded), Err: err})
}

// fail answers with a problem; policies that have seen the request see it too.
func (s *session) fail(x *exchange.Exchange, err *Error) {
	err.answer(x)
	if e := s.run.Response(); e != nil {
		answerFailed(e).answer(x)
	}
	if err.Status >= 500 && err.Blame != Client && err.Code != overloaded { // which is counted: a line for each would be load, too
		s.proxy.cfg.Logger.Warn("request failed", "request_id", string(x.ID), "route", x.Route, "service", x.Service,
			"endpoint", x.Endpoint, "blame", err.Blame.String(), "error", err)
	}
}

// Reject implements listener.Session.
func (s *session) Reject(x *exchange.Exchange, status int, reason string) {
	s.generation = s.proxy.acquire()
	x.Revision = s.generation.revision
	identify(x)
	(&Error{Status: status, Blame: Client, Code: "bad_request", Detail: "The request is malformed: " + reason + "."}).answer(x)
	s.addDate(x)
	x.Response.Fields.Set(headerRequestID, x.ID)
	s.proxy.cfg.Metrics.Rejected(status)
	s.rejected = true
}

// Finish implements listener.Session.
func (s *session) Finish(x *exchange.Exchange, sent int64, err error) {
	now := time.Now()
	if s.overdue != nil {
		s.overdue()
		s.overdue = nil
	}
	s.requests[x.Protocol].Add(1)
	switch {
	case s.rule != nil:
		s.rule.metrics.Answered(x.Response.Status, now.Sub(x.Start))
	case !s.rejected: // counted already, as what it was
		s.proxy.unrouted.Answered(x.Response.Status, now.Sub(x.Start))
	}
	s.proxy.cfg.Access.Log(x, sent, now, s.blameCut(x, err))
	s.serving.judge(false)
	s.run.Close()
	s.closeStream(x)
	if t := s.tunnel.Swap(nil); t != nil {
		t.close(err != nil)
	}
	s.permits.End()
	s.record, s.recorder.Body, s.recorder.whole = nil, nil, nil
	if cap(s.recorder.kept) > wire.SmallBuffer {
		s.recorder.kept = nil
	}
	if s.extra != nil {
		s.extra.end()
	}
	s.generation.release()
	s.generation, s.rule, s.run, s.whole, s.secured, s.rejected, s.late = nil, nil, nil, nil, nil, false, false
}

// Cut implements listener.Session.
func (s *session) Cut() {
	s.life.end() // before Abort: a stream that is opened after it sees that
	if r := s.race.Load(); r != nil {
		r.cut()
	}
	s.stream.Abort()
	if t := s.tunnel.Load(); t != nil {
		t.close(true)
	}
}

var (
	headerRequestID = []byte("X-Request-Id")
	headerFor       = []byte("X-Forwarded-For")
	headerProto     = []byte("X-Forwarded-Proto")
	headerHost      = []byte("X-Forwarded-Host")
)

// identify gives the exchange an id of 128 random bits. What a client sends as
// one is not trusted.
func identify(x *exchange.Exchange) {
	const digits = "0123456789abcdef"
	var id [32]byte
	for half, bits := range [2]uint64{rand.Uint64(), rand.Uint64()} {
		for i := range 16 {
			id[half*16+i] = digits[bits&15]
			bits >>= 4
		}
	}
	x.ID = x.CopyBytes(id[:])
}

// addForwarded tells the policies and the service who asks. What the client sent
// in these fields is not trusted, and replaced; in Forwarded, dropped.
func (s *session) addForwarded(x *exchange.Exchange) {
	f := &x.Request.Fields
	if s.secured != nil && s.secured.mesh { // another proxy has, and tells the truth
		s.forwardClient(x)
		return
	}
	var ip [48]byte
	f.Set(headerFor, x.CopyBytes(x.Client.Addr().AppendTo(ip[:0])))
	f.Set(headerProto, x.Request.Scheme)
	f.Set(headerHost, x.Request.Authority)
	f.Set(headerRequestID, x.ID)
	f.Del("forwarded")
	s.forwardClient(x)
}
