package proxy

import (
	"bytes"
	"fmt"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/compress"
	"github.com/weirmesh/weir/proxy/cors"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/fault"
	"github.com/weirmesh/weir/proxy/mirror"
	"github.com/weirmesh/weir/proxy/router"
	"github.com/weirmesh/weir/telemetry"
)

// compileTraffic compiles the filters that are packages of their own.
func (p *Proxy) compileTraffic(r *rule, f *filters, tenant string, spec *weirv1.RouteFilter) error {
	if c := spec.GetCors(); c != nil {
		f.cors = cors.New(c)
	}
	if c := spec.GetCompression(); c != nil {
		f.compression = compress.New(c)
	}
	if m := spec.GetRequestMirror(); m != nil {
		target, err := p.compileMirror(r, tenant, m)
		if err != nil {
			return fmt.Errorf("mirror to %s: %w", m.GetBackendRef().GetName(), err)
		}
		f.mirrors = append(f.mirrors, target)
	}
	if spec.GetFault() == nil {
		return nil
	}
	compiled, err := fault.New(spec.GetFault())
	if err != nil {
		return fmt.Errorf("fault: %w", err)
	}
	f.faults = append(f.faults, compiled)
	for k := range f.faultCounts {
		if f.faultCounts[k] == nil {
			counter, forget := p.cfg.Metrics.Fault(r.route, fault.Kind(k).String())
			f.faultCounts[k] = counter
			r.held = append(r.held, forget)
		}
	}
	return nil
}

func (p *Proxy) compileMirror(r *rule, tenant string, spec *weirv1.RequestMirror) (*mirror.Target, error) {
	b, give, err := p.acquireBackend(tenant, spec.GetBackendRef())
	if err != nil {
		return nil, err
	}
	r.held = append(r.held, give)
	return &mirror.Target{Backend: b.Backend, Chance: mirrorChance(spec), Told: p.mirrorTold(r, b)}, nil
}

// mirrorTold counts what becomes of copies.
func (p *Proxy) mirrorTold(r *rule, b *backend) func(mirror.Outcome, int, time.Duration) {
	var counters [mirror.Outcomes]*telemetry.Counter
	for o := range counters {
		counter, forget := p.cfg.Metrics.Mirrored(r.route, b.Service(), mirror.Outcome(o).String())
		counters[o] = counter
		r.held = append(r.held, forget)
	}
	return func(o mirror.Outcome, status int, took time.Duration) {
		counters[o].Inc()
		if o == mirror.Answered || o == mirror.Failed {
			b.countCopy(status, took)
		}
	}
}

func mirrorChance(spec *weirv1.RequestMirror) float64 {
	switch f := spec.GetFraction(); {
	case f != nil && f.Denominator != nil:
		return float64(f.GetNumerator()) / float64(f.GetDenominator())
	case f != nil:
		return float64(f.GetNumerator()) / 100
	case spec.Percent != nil:
		return float64(spec.GetPercent()) / 100
	}
	return 1
}

// extra is what filters keep of one exchange.
type extra struct {
	verdict  fault.Verdict
	copy     *mirror.Copy
	packed   compress.Body
	throttle *fault.Throttle
	asked    bool // it was a preflight, and is answered
}

func (s *session) more() *extra {
	if s.extra == nil {
		s.extra = new(extra)
	}
	return s.extra
}

// end gives back what is held, once the service's stream is closed.
func (e *extra) end() {
	if e.copy != nil {
		e.copy.GiveUp(mirror.Incomplete)
	}
	e.packed.Close()
	e.verdict, e.copy, e.throttle, e.asked = fault.Verdict{}, nil, nil, false
}

// preflight answers what a browser asks before it sends a request, and reports
// whether it was that. It is for the rule that would serve that request, whose
// method is not the preflight's; else for the one that hit found.
func (s *session) preflight(x *exchange.Exchange, port uint16, hit *router.Hit[*rule], ok bool) bool {
	if !cors.IsPreflight(x) {
		return false
	}
	asked := x.Request.Method
	x.Request.Method = cors.Wanted(x)
	wanted, found := s.generation.table.Match(port, x)
	x.Request.Method = asked
	switch {
	case found && shares(wanted.Rule.Value):
		s.enter(x, &wanted)
	case ok && shares(hit.Rule.Value):
		s.enter(x, hit)
	default:
		return false
	}
	s.more().asked = true
	x.Details = "preflight"
	if !s.rule.filters.cors.Preflight(x) {
		errOrigin.answer(x)
	}
	return true
}

// shares reports whether pages of other origins may use what a rule serves.
func shares(r *rule) bool { return r.filters != nil && r.filters.cors != nil }

var errOrigin = &Error{Status: 403, Blame: Client, Code: "origin_not_allowed", Detail: "Pages of this origin may not use this route."}

// filter takes a request through the filters, and reports whether one of them
// answered it.
func (s *session) filter(x *exchange.Exchange, hit *router.Hit[*rule], f *filters) (answered bool, err *Error) {
	if f.faults != nil {
		if answered, err := s.injectFaults(x, f); answered || err != nil {
			return answered, err
		}
	}
	if f.redirect != nil {
		f.redirect.answer(x, hit)
		return true, s.finishResponse(x)
	}
	f.request.apply(&x.Request.Fields)
	if f.rewrite != nil && !x.Request.Connect {
		f.rewrite.apply(x, hit)
	}
	if f.mirrors != nil && !x.Request.WebSocket && !x.Request.Connect {
		s.mirror(x, f.mirrors)
	}
	return false, nil
}

// injectFaults does to a request what is drawn for it.
func (s *session) injectFaults(x *exchange.Exchange, f *filters) (answered bool, err *Error) {
	e := s.more()
	for _, rule := range f.faults {
		rule.Judge(x, &e.verdict, s.proxy.cfg.Draw, func(k fault.Kind) { f.faultCounts[k].Inc() })
	}
	v := &e.verdict
	if v.Delay > 0 {
		if err := s.holdBack(x, v.Delay); err != nil {
			return false, err
		}
	}
	switch {
	case v.Disconnect:
		x.Answer(0, nil)
		x.Response.Reset, x.Details = true, "fault"
		return true, nil
	case v.GRPCStatus != "":
		fault.AnswerGRPC(x, v.GRPCStatus)
	case v.Status != 0:
		injected := Error{Status: v.Status, Blame: Weir, Code: "fault", Detail: "This answer was injected as a fault."}
		injected.answer(x)
	default:
		return false, nil
	}
	x.Details = "fault"
	return true, s.finishResponse(x)
}

// holdBack waits, but no longer than the request has time.
func (s *session) holdBack(x *exchange.Exchange, d time.Duration) *Error {
	s.late = true
	timeout := s.rule.timeout
	over := timeout > 0 && time.Since(x.Start)+d >= timeout
	if over {
		d = timeout - time.Since(x.Start)
	}
	if !s.pause(max(d, 0)) {
		return errGone
	}
	if over {
		return errDelayed
	}
	return nil
}

var (
	errGone    = &Error{Status: 499, Blame: Client, Code: "client_left", Detail: "The client has left."}
	errDelayed = &Error{Status: 504, Blame: Weir, Code: "fault", Detail: "The request was held back by a fault until its time was over."}
)

// mirror sets a copy of the request off, or takes it as the body passes.
func (s *session) mirror(x *exchange.Exchange, targets []*mirror.Target) {
	var drawn []*mirror.Target
	for _, t := range targets {
		if t.Chance >= 1 || t.Chance > 0 && s.proxy.cfg.Draw() < t.Chance {
			drawn = append(drawn, t)
		}
	}
	if drawn == nil {
		return
	}
	g := s.generation
	c := s.proxy.mirrors.Take(x, drawn, func() func() {
		g.refs.Add(1) // the exchange holds it, so it has not ended
		return g.release
	})
	s.more().copy = c
	switch {
	case x.Request.Body == nil:
		c.Send(nil)
	case s.takeSmall(x):
		c.Send(bytes.Clone(s.whole))
	default:
		x.Request.Body = c.Body(x.Request.Body)
	}
}

// seal does what comes last to an answer, whoever made it.
func (s *session) seal(x *exchange.Exchange, f *filters) {
	if f.cors != nil {
		f.cors.Stamp(x, s.extra != nil && s.extra.asked)
	}
	if x.Response.Tunnel != nil || x.Response.Reset {
		return
	}
	if f.compression != nil {
		f.compression.Apply(x, string(x.Request.Method) == "HEAD", &s.more().packed)
	}
	if s.extra != nil && s.extra.verdict.Bandwidth > 0 && x.Response.Body != nil {
		s.extra.throttle = fault.NewThrottle(s.life.now(), x.Response.Body, s.extra.verdict.Bandwidth)
		x.Response.Body = s.extra.throttle
	}
}
