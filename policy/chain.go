package policy

import (
	"errors"
	"sync"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// DefaultHoldLimit is how much of a body a filter may hold.
const DefaultHoldLimit = 1 << 20

// Chain is the policies of one rule in their order. It is immutable and may
// serve any number of exchanges at once; each of them is a [Run]. A chain that
// has served an exchange serves the next one without allocating.
//
//	run := chain.Begin(x)
//	defer run.Close()
//	outcome, err := run.Request() // Proceed: ask the upstream, reading x.Request.Body
//	err = run.Response()          // whoever answered; then relay x.Response.Body
//
// # Bodies
//
// A filter that wants a body gets one chunk at a time while the body is pulled
// through it: the chain puts itself around Exchange.Request.Body and
// Exchange.Response.Body. Only Hold makes it wait: then Request (or Response)
// reads until the filter lets go, so that the filter may still change the head,
// and no more than the hold limit. Hold from a filter that has no body callback,
// or when there is no body, is Continue.
//
// A filter may change a body's length, so the chain owns Content-Length of a
// body that passes through a filter: it is what is left when that is known (all
// was held, or came in one piece), and is removed otherwise. Codecs frame by
// Body.Length, never by the field. From Pass on a body goes through untouched, and
// its length is what its source says.
//
// # Errors
//
// A filter's failure is an *[Error], returned by Request or Response, or by
// Body.Next when it happens in the middle of a body. Two more come out of a body
// that passes through a filter: what its source returned, as it is, and
// [ErrAnswered]: a filter answered while the upstream was being asked, and its
// answer is in Exchange.Response.
type Chain struct {
	policies []Policy
	phases   []Phases
	config   ChainConfig
	runs     sync.Pool
}

// ChainConfig is what chains have in common. The zero value is ready.
type ChainConfig struct {
	// HoldLimit is how many bytes of a body a filter may hold; 0 means
	// DefaultHoldLimit. Beyond it a request is answered with 413 and a response
	// with 500, whatever the failure mode: without the rest the filter has not
	// decided, and to pass it on would be to decide for it.
	HoldLimit int
	// OnFailure, when not nil, is told of every failure, also of those that
	// failureMode OPEN lets pass. It is called on the exchange's goroutine.
	OnFailure func(*exchange.Exchange, *Error)
}

// NewChain makes a chain of policies that are already in order. It does not own
// them: who made them releases them, after the chain's last exchange.
func NewChain(policies []Policy, config ChainConfig) *Chain {
	if config.HoldLimit <= 0 {
		config.HoldLimit = DefaultHoldLimit
	}
	c := &Chain{policies: policies, phases: make([]Phases, len(policies)), config: config}
	for i, p := range policies {
		c.phases[i] = p.Phases()
	}
	c.runs.New = func() any { return newRun(c) }
	return c
}

// Len counts the policies. A nil chain is an empty one.
func (c *Chain) Len() int {
	if c == nil {
		return 0
	}
	return len(c.policies)
}

// Begin starts the chain for one exchange. The Run of an empty chain is nil,
// and a nil Run does nothing.
func (c *Chain) Begin(x *exchange.Exchange) *Run {
	if c.Len() == 0 {
		return nil
	}
	r := c.runs.Get().(*Run)
	r.x = x
	return r
}

// Outcome is what the filters made of a request.
type Outcome uint8

const (
	// Proceed: ask the upstream.
	Proceed Outcome = iota
	// Answered: a filter has put the answer into Exchange.Response.
	Answered
)

// ErrAnswered ends a request body whose filter has answered.
var ErrAnswered = errors.New("a policy has answered")

// ErrWaited is what a filter's failure wraps that waited for something until the
// exchange's deadline.
var ErrWaited = errors.New("it has waited until the exchange's deadline")

// ErrOutOfFuel is what a filter's failure wraps that burned more than it may.
var ErrOutOfFuel = errors.New("it is out of fuel")

// errTooLarge is what Error wraps when a body does not fit the hold limit.
var errTooLarge = errors.New("body is larger than a policy may hold")

// Error says which policy failed, where, and what the client should be told.
type Error struct {
	// Policy is "tenant/name".
	Policy string
	// Phase is "request", "request body", "response" or "response body".
	Phase string
	// Status is 500, 413 for a request body that is too large, or 504 for a filter
	// that has waited too long.
	Status int
	Err    error
}

func (e *Error) Error() string {
	return "run policy " + e.Policy + " on " + e.Phase + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Run is a chain at work on one exchange. Like the exchange it belongs to one
// goroutine at a time.
type Run struct {
	chain *Chain
	x     *exchange.Exchange
	steps []step
	begun int // steps that were asked to begin
	left  int // steps that have yet to see the response; set by the first Response
	reply bool
}

// step is one policy's part in a run. Its filter serves as long as the run does,
// exchange after exchange.
type step struct {
	run    *Run
	index  int
	phases Phases
	filter Filter
	begun  bool // the filter has this exchange
	// silent: asked no more, because it failed or wrote the answer itself.
	silent bool
	// streams: one of them was begun. They are large, and stay untouched in an
	// exchange without bodies.
	streams           bool
	request, response stream
}

func newRun(c *Chain) *Run {
	r := &Run{chain: c, steps: make([]step, len(c.policies))}
	for i := range r.steps {
		s := &r.steps[i]
		s.run, s.index, s.phases = r, i, c.phases[i]
		s.filter = c.policies[i].NewFilter()
		s.request.step, s.response.step = s, s
		s.response.isResponse = true
	}
	return r
}

// Request shows the request to the filters, first to last. When it returns
// Proceed, Exchange.Request.Body is what the filters make of the body, to be
// read while the upstream is asked.
func (r *Run) Request() (Outcome, error) {
	if r == nil {
		return Proceed, nil
	}
	for i := range r.steps {
		err := r.steps[i].onRequest()
		if err == ErrAnswered {
			return Answered, nil
		}
		if err != nil {
			return Proceed, err
		}
	}
	return Proceed, nil
}

// Response shows Exchange.Response, whoever made it, to the filters that saw
// the request, last to first. After an error the caller puts its own answer
// there and calls Response again: the filters that are left see that one.
func (r *Run) Response() error {
	if r == nil {
		return nil
	}
	if !r.reply {
		r.reply, r.left = true, r.begun
	}
	for r.left > 0 {
		r.left--
		if err := r.steps[r.left].onResponse(); err != nil && err != ErrAnswered {
			return err
		}
	}
	return nil
}

// Close ends the exchange for every filter that saw it. The bodies that came
// out of the chain must not be read afterwards.
func (r *Run) Close() {
	if r == nil {
		return
	}
	for i := range r.begun {
		s := &r.steps[i]
		if s.begun {
			s.filter.Close(r.x)
		}
		if s.streams {
			s.request.reset()
			s.response.reset()
		}
		s.begun, s.silent, s.streams = false, false, false
	}
	r.x, r.begun, r.left, r.reply = nil, 0, 0, false
	r.chain.runs.Put(r)
}

func (s *step) wants(p Phases) bool { return s.phases&p != 0 }

func (s *step) onRequest() error {
	x := s.run.x
	s.run.begun = s.index + 1
	err := s.filter.Begin(x)
	if err != nil {
		return s.fail("request", err)
	}
	s.begun = true
	verdict := Continue
	if s.wants(RequestHead) {
		if verdict, err = s.filter.OnRequest(x, x.Request.Body == nil); err != nil {
			return s.fail("request", err)
		}
	}
	if verdict == Respond {
		s.silent = true
		return ErrAnswered
	}
	if x.Request.Body == nil || !s.wants(RequestBody) || verdict == Pass {
		return nil
	}
	return s.request.begin(&x.Request.Body, &x.Request.Fields, verdict == Hold)
}

func (s *step) onResponse() error {
	if !s.begun || s.silent {
		return nil
	}
	x := s.run.x
	verdict := Continue
	if s.wants(ResponseHead) {
		var err error
		if verdict, err = s.filter.OnResponse(x, x.Response.Body == nil); err != nil {
			return s.fail("response", err)
		}
	}
	if verdict == Respond {
		s.silent = true
		return ErrAnswered
	}
	if x.Response.Body == nil || !s.wants(ResponseBody) || verdict == Pass {
		return nil
	}
	return s.response.begin(&x.Response.Body, &x.Response.Fields, verdict == Hold)
}

// fail applies the failure mode: nil when the exchange goes on without the
// filter.
func (s *step) fail(phase string, cause error) error {
	s.silent = true
	c := s.run.chain
	return c.forgive(c.failure(s.run.x, s.index, phase, 500, cause), s.index)
}

// tooLarge fails whatever the failure mode is.
func (s *step) tooLarge(phase string, status int) error {
	s.silent = true
	return s.run.chain.failure(s.run.x, s.index, phase, status, errTooLarge)
}

// failure says that a policy has failed, and tells who wants to know.
func (c *Chain) failure(x *exchange.Exchange, i int, phase string, status int, cause error) *Error {
	spec := c.policies[i].Spec()
	err := &Error{Policy: spec.Tenant + "/" + spec.Name, Phase: phase, Status: status, Err: cause}
	if errors.Is(cause, ErrWaited) {
		err.Status = 504
	}
	if f := c.config.OnFailure; f != nil {
		f(x, err)
	}
	return err
}

// forgive is nil for a failure that failureMode OPEN lets pass.
func (c *Chain) forgive(err *Error, i int) error {
	if c.policies[i].Spec().FailureMode == weirv1.PolicySpec_OPEN {
		return nil
	}
	return err
}
