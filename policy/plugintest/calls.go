package plugintest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/proxy/exchange"
)

// services are what a case says of those that its plugin calls. Calls are answered in
// the order in which they were made, one at a time, so that a run is as the next one.
type services struct {
	names []string
	// always: what a case says is answered holds for every exchange.
	always bool

	mu    sync.Mutex
	left  []Call
	asked []asked
	turn  chan struct{} // closed when the call before is over
	open  sync.WaitGroup
}

// asked is a call as it was made.
type asked struct {
	want    *Call // nil: none was expected
	service string
	request message
}

var _ policy.Services = (*services)(nil)

func newServices(c *Case) *services {
	s := &services{names: slices.Clone(c.Services), left: c.Calls, turn: make(chan struct{})}
	close(s.turn)
	for _, call := range c.Calls {
		s.names = append(s.names, call.Service)
	}
	slices.Sort(s.names)
	s.names = slices.Compact(s.names)
	return s
}

// repeated are services for a case's exchange that happens over and over.
func repeated(c *Case) *services {
	s := newServices(c)
	s.always = true
	return s
}

// Names implements policy.Services.
func (s *services) Names() []string { return s.names }

// Call implements policy.Services.
func (s *services) Call(name string) (policy.Call, bool) {
	if !slices.Contains(s.names, name) {
		return nil, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &serviceCall{of: s, service: name, before: s.turn, over: make(chan struct{})}
	s.turn = c.over
	s.open.Add(1)
	return c, true
}

// Bytes implements policy.Services: a case says nothing of bytes.
func (s *services) Bytes(name string) (policy.Bytes, error) {
	if !slices.Contains(s.names, name) {
		return nil, policy.ErrNotGranted
	}
	return nil, policy.ErrNotBytes
}

// settle waits until every call is over, and the plugin has been told.
func (s *services) settle() { s.open.Wait() }

type serviceCall struct {
	of           *services
	service      string
	before, over chan struct{}
}

var errNotExpected = errors.New("the case has no such call")

// Do implements policy.Call.
func (c *serviceCall) Do(ctx context.Context, x *exchange.Exchange) error {
	select {
	case <-c.before:
	case <-ctx.Done():
		return ctx.Err()
	}
	request := requestOf(x)
	var err error
	if request.body, err = readAll(x.Request.Body); err != nil {
		return err
	}
	call := c.of.next(c.service, request)
	switch {
	case call == nil:
		return errNotExpected
	case call.Timeout:
		return context.DeadlineExceeded
	case call.Error != "":
		return errors.New(call.Error)
	}
	call.Response.answer(x)
	return nil
}

// next is what the case says of the call that is being made, nil: nothing.
func (s *services) next(service string, request message) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.always {
		i := slices.IndexFunc(s.left, func(c Call) bool { return c.Service == service })
		if i < 0 {
			return nil
		}
		return &s.left[i]
	}
	a := asked{service: service, request: request}
	if len(s.left) > 0 && s.left[0].Service == service {
		a.want = &s.left[0]
		s.left = s.left[1:]
	}
	s.asked = append(s.asked, a)
	return a.want
}

// Close implements policy.Call.
func (c *serviceCall) Close(*exchange.Exchange) {
	select {
	case <-c.over:
	default:
		close(c.over)
		c.of.open.Done()
	}
}

// calls judges the calls that were made.
func (r *Result) calls(c *Case, s *services) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, a := range s.asked {
		if a.want == nil {
			r.problem("call %d, of service %s: the case has no such call (%s %s)", i+1, a.service, a.request.method, a.request.path)
			continue
		}
		r.message(fmt.Sprintf("call %d request", i+1), &a.want.Request, &a.request, nil)
	}
	for _, call := range s.left {
		r.problem("calls: service %s was not called", call.Service)
	}
}
