package sdk

import (
	"errors"
	"fmt"
	"time"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// Call is a request to a service that the policy was granted (spec.services of the
// Policy, by the name that it has there).
type Call struct {
	Service string
	// Method is GET, or POST if there is a Body, Path "/" and Authority the
	// service's name, unless they are set.
	Method, Path, Authority string
	Header                  []Field
	Body                    []byte
	// Timeout is for all of it, rounded up to milliseconds; 0: as long as the host
	// allows.
	Timeout time.Duration
}

// Reply is what came of a [Call]. It is good until the function returns that was
// given it.
type Reply struct {
	// Err says why there is no answer. Whatever status the service answers with is
	// none.
	Err error
	// Header is to be read only.
	Header Header
	size   int
	status int
}

// Status is the answer's status, 0 if there is none.
func (r *Reply) Status() int { return r.status }

// Size is how long the answer's body is.
func (r *Reply) Size() int { return r.size }

// Body is the answer's body.
func (r *Reply) Body() []byte {
	body := Body{buffer: abi.HTTPCallResponse, size: r.size}
	return body.Bytes()
}

// Call asks a service, and has the exchange wait for the answer. Return its result:
//
//	return r.Call(sdk.Call{Service: "users", Path: "/me"}, func(reply *sdk.Reply) sdk.Action {
//		if reply.Status() != 200 {
//			return r.Refuse(403, "unknown_user", "Who are you?")
//		}
//		r.Header.Set("x-user", string(reply.Body()))
//		return sdk.Continue
//	})
//
// In the function the request or the response is what it was when the call was made.
// It answers the exchange, makes another call, or says Continue. From a body's method
// a call is to be made at its end: what comes before is held meanwhile, and the next
// method sees it.
func (r *Request) Call(c Call, then func(*Reply) Action) Action { return r.ask(&c, false, then) }

// Call is as that of a request.
func (r *Response) Call(c Call, then func(*Reply) Action) Action { return r.ask(&c, true, then) }

func (x *Exchange) ask(c *Call, response bool, then func(*Reply) Action) Action {
	token, err := c.send()
	if err != nil {
		return then(&Reply{Err: err})
	}
	return x.await(token, response, then)
}

// await has the exchange wait for the answer to a call.
func (x *Exchange) await(token uint32, response bool, then func(*Reply) Action) Action {
	x.policy.vm.await(token, waiting{x: x, id: x.id, response: response, then: then})
	return wait
}

// Detach calls f, which makes calls by [Send] that are not the exchange's: they go on
// when it ends.
func (x *Exchange) Detach(f func()) {
	abi.SetEffectiveContext(x.policy.id)
	defer abi.SetEffectiveContext(x.id)
	f()
}

// wait keeps an exchange until it is continued, also where its body is there to be
// seen: Envoy's StopAllIterationAndWatermark.
const wait = Action(abi.ActionWait)

// Send asks a service and waits for nothing: the answer is told to then, which may be
// nil, when no exchange can be looked at. It is how a handler asks for something when
// it is made, or when its clock strikes.
func Send(c Call, then func(*Reply)) error {
	if then == nil {
		then = func(*Reply) {}
	}
	return sendOff(c.send, then)
}

// sendOff sends a call that nothing waits for.
func sendOff(send func() (uint32, error), then func(*Reply)) error {
	vm := running()
	if vm == nil {
		return errors.New("send a call: no method of a handler runs")
	}
	token, err := send()
	if err != nil {
		return err
	}
	vm.await(token, waiting{then: func(r *Reply) Action { then(r); return Continue }})
	return nil
}

func (c *Call) send() (token uint32, err error) {
	method, path, authority := c.Method, c.Path, c.Authority
	if method == "" {
		method = "GET"
		if len(c.Body) > 0 {
			method = "POST"
		}
	}
	if path == "" {
		path = "/"
	}
	if authority == "" {
		authority = c.Service
	}
	const pseudo = 3
	head := abi.AppendPairs(nil, pseudo+len(c.Header), func(i int) (string, string) {
		switch i {
		case 0:
			return ":method", method
		case 1:
			return ":path", path
		case 2:
			return ":authority", authority
		}
		return c.Header[i-pseudo].Name, c.Header[i-pseudo].Value
	})
	token, s := abi.HTTPCall(c.Service, head, c.Body, milliseconds(c.Timeout))
	if s != abi.OK {
		return 0, fmt.Errorf("call service %s: %w", c.Service, s)
	}
	return token, nil
}

// milliseconds are rounded up.
func milliseconds(d time.Duration) uint32 {
	return uint32((max(d, 0) + time.Millisecond - 1) / time.Millisecond)
}

// waiting is a call whose answer has not come.
type waiting struct {
	x        *Exchange // nil: of no exchange
	id       uint32
	response bool
	then     func(*Reply) Action
}

func (vm *VM) await(token uint32, w waiting) {
	if vm.waiting == nil {
		vm.waiting = map[uint32]waiting{}
	}
	vm.waiting[token] = w
}

// OnHTTPCallResponse tells a handler what it was answered. Without a field there is
// no answer.
func (vm *VM) OnHTTPCallResponse(token uint32, fields, size int) {
	reply := &Reply{Header: Header{abi.HTTPCallHeaders}, size: size}
	if fields == 0 {
		_, why := abi.CallStatus()
		if why == "" {
			why = "there is no answer"
		}
		reply.Err = errors.New(why)
	} else {
		reply.status = (&Response{Header: reply.Header}).Status()
	}
	vm.answered(token, reply)
}

// answered tells who waits for a call what came of it.
func (vm *VM) answered(token uint32, reply *Reply) {
	w, ok := vm.waiting[token]
	if !ok {
		return
	}
	delete(vm.waiting, token)
	x := w.x
	if x == nil {
		w.then(reply)
		return
	}
	if vm.live.get(w.id) != x || x.answered {
		return // it is over
	}
	abi.SetEffectiveContext(w.id)
	x.replying = true
	action := w.then(reply)
	if action == Continue && x.due && !x.answered {
		action = x.duly(w.response)
	}
	x.replying = false
	if action == Continue && !x.answered {
		abi.ContinueStream(w.response)
	}
}
