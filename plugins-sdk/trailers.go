package sdk

// RequestTrailersHandler sees the trailers of each request that has some, in
// r.Trailers, when all of its body was shown. Where there is a [RequestBodyHandler]
// too, that is told of the end first, of a request with trailers by a call of its own:
// its body is what was held, if anything.
type RequestTrailersHandler interface {
	OnRequestTrailers(r *Request) Action
}

// ResponseTrailersHandler sees the trailers of each response that has some.
type ResponseTrailersHandler interface {
	OnResponseTrailers(r *Response) Action
}

// Which trailers there is a method for, as the second byte of weir.phases has it.
const (
	requestTrailers byte = 1 << iota
	responseTrailers
)

// trailers is the set of trailers with a method.
func (p *policy) trailers() (set byte) {
	if p.onRequestTrailers != nil {
		set |= requestTrailers
	}
	if p.onResponseTrailers != nil {
		set |= responseTrailers
	}
	return set
}

// OnRequestTrailers brings the end of a request that has trailers to its handler. To
// hosts that do not know weir.phases the body's method owes its end to it.
func (vm *VM) OnRequestTrailers(id uint32) Action {
	x := vm.enter(id)
	if x == nil || x.answered {
		return vm.unseen(x)
	}
	action, p := Continue, x.policy
	if p.onRequestBody != nil {
		x.request.End = true
		x.request.Body.finish()
		x.replying = true // an action of its own cannot bear an edit
		action = p.onRequestBody.OnRequestBody(&x.request)
		x.replying = false
		x.request.Body.start = 0
	}
	x.due = action == wait && p.onRequestTrailers != nil
	if action != wait && !x.answered && p.onRequestTrailers != nil {
		action = p.onRequestTrailers.OnRequestTrailers(&x.request)
	}
	return vm.leave(x, inBody(action), requestBody)
}

// OnResponseTrailers is as that of a request.
func (vm *VM) OnResponseTrailers(id uint32) Action {
	x := vm.enter(id)
	if x == nil || x.answered {
		return vm.unseen(x)
	}
	action, p := Continue, x.policy
	if p.onResponseBody != nil {
		x.response.End = true
		x.response.Body.finish()
		x.replying = true
		action = p.onResponseBody.OnResponseBody(&x.response)
		x.replying = false
		x.response.Body.start = 0
	}
	x.due = action == wait && p.onResponseTrailers != nil
	if action != wait && !x.answered && p.onResponseTrailers != nil {
		action = p.onResponseTrailers.OnResponseTrailers(&x.response)
	}
	x.response.End = true
	return vm.leave(x, inBody(action), responseBody)
}

// duly shows the trailers that the body's method has had wait for an answer.
func (x *Exchange) duly(response bool) Action {
	x.due = false
	if response {
		return x.policy.onResponseTrailers.OnResponseTrailers(&x.response)
	}
	return x.policy.onRequestTrailers.OnRequestTrailers(&x.request)
}

// finish makes the body what there is at its end: what was held, or nothing.
func (b *Body) finish() {
	if !b.held {
		b.start, b.size = uint32(b.size), 0
	}
}
