package sdk

import (
	"errors"
	"fmt"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// GRPCStream is a call of gRPC whose messages come and go one by one. It is open until
// its handler is told of its end, or until Cancel.
type GRPCStream struct {
	vm      *VM
	token   uint32
	x       *Exchange // nil: of no exchange
	id      uint32
	handler any
	waits   bool // the exchange does, for this stream
	replies bool // with its response
	over    bool
}

// What is heard of a stream goes to the methods that its handler has of these. Of the
// stream of an exchange the exchange can be looked at, as in the method that opened
// the stream; what they return ends a [GRPCStream.Wait] if it is Continue.
type (
	// GRPCMessageHandler is given each message of the service.
	GRPCMessageHandler interface {
		OnGRPCMessage(s *GRPCStream, message []byte) Action
	}
	// GRPCMetadataHandler sees the metadata that comes before the first message.
	GRPCMetadataHandler interface {
		OnGRPCMetadata(s *GRPCStream, metadata Header) Action
	}
	// GRPCTrailersHandler sees the metadata that comes after the last one.
	GRPCTrailersHandler interface {
		OnGRPCTrailers(s *GRPCStream, metadata Header) Action
	}
	// GRPCCloseHandler is told of the end, last: nil, or a [GRPCError]. Without it the
	// end is Continue.
	GRPCCloseHandler interface {
		OnGRPCClose(s *GRPCStream, err error) Action
	}
)

// OpenGRPC opens a stream of the sandbox's own; Message and Timeout mean nothing. The
// handler's methods see no exchange. It is for when a handler is made and for its clock:
// opened in an exchange, it is of the exchange for the host ([Exchange.Detach]).
func OpenGRPC(c GRPCCall, handler any) (*GRPCStream, error) {
	vm := running()
	if vm == nil {
		return nil, errors.New("open a stream: no method of a handler runs")
	}
	return vm.open(&c, &GRPCStream{vm: vm, handler: handler})
}

// OpenGRPC opens a stream of the exchange, which ends with it at the latest:
//
//	s, err := r.OpenGRPC(sdk.GRPCCall{Service: "guard", Method: "guard.Guard/Watch"}, &watch{r})
//	if err != nil { … }
//	s.Send(question)
//	return s.Wait()
//
// An exchange with an open stream keeps its sandbox.
func (r *Request) OpenGRPC(c GRPCCall, handler any) (*GRPCStream, error) {
	return r.openGRPC(&c, handler, false)
}

// OpenGRPC is as that of a request.
func (r *Response) OpenGRPC(c GRPCCall, handler any) (*GRPCStream, error) {
	return r.openGRPC(&c, handler, true)
}

func (x *Exchange) openGRPC(c *GRPCCall, handler any, response bool) (*GRPCStream, error) {
	s, err := x.policy.vm.open(c, &GRPCStream{vm: x.policy.vm, x: x, id: x.id, handler: handler, replies: response})
	if err == nil {
		x.open++
		x.spare = false
	}
	return s, err
}

func (vm *VM) open(c *GRPCCall, s *GRPCStream) (*GRPCStream, error) {
	of, method, err := c.split()
	if err != nil {
		return nil, err
	}
	token, status := abi.GRPCStream(c.Service, of, method, c.metadata())
	if status != abi.OK {
		return nil, fmt.Errorf("open a stream to service %s: %w", c.Service, status)
	}
	s.token = token
	if vm.streams == nil {
		vm.streams = map[uint32]*GRPCStream{}
	}
	vm.streams[token] = s
	return s, nil
}

// Send sends a message, encoded. It does not wait for the service: the host keeps what
// that has not taken, and refuses more than it may keep.
func (s *GRPCStream) Send(message []byte) error { return s.send(message, false) }

// SendLast is Send and CloseSend.
func (s *GRPCStream) SendLast(message []byte) error { return s.send(message, true) }

func (s *GRPCStream) send(message []byte, end bool) error {
	if s.over {
		return errStreamOver
	}
	if status := abi.GRPCSend(s.token, message, end); status != abi.OK {
		return fmt.Errorf("send on a stream: %w", status)
	}
	return nil
}

var errStreamOver = errors.New("the stream is over")

// CloseSend says that nothing more is sent. What the service still answers comes.
func (s *GRPCStream) CloseSend() error {
	if s.over {
		return errStreamOver
	}
	return abi.GRPCClose(s.token).Err()
}

// Cancel ends the stream at once, of which the handler hears no more. An exchange that
// waits for it waits on: return what is to be done with it, or Respond.
func (s *GRPCStream) Cancel() {
	if !s.over {
		s.end()
		abi.GRPCCancel(s.token)
	}
}

// Wait has the exchange wait until a method of the stream's handler says Continue.
// Return its result, from a method that [Request.Call] may be returned from.
func (s *GRPCStream) Wait() Action {
	if s.over || s.x == nil {
		return Continue
	}
	s.waits = true
	return wait
}

// end forgets the stream.
func (s *GRPCStream) end() {
	s.over = true
	delete(s.vm.streams, s.token)
	if s.x != nil {
		s.x.open--
	}
}

// hangUp cancels the streams of an exchange that is over.
func (vm *VM) hangUp(x *Exchange) {
	if x.open == 0 {
		return
	}
	for _, s := range vm.streams {
		if s.x == x {
			s.Cancel()
		}
	}
}

// tell lets a method of the handler be called, with the stream's exchange, and has the
// exchange go on if it waits for that.
func (s *GRPCStream) tell(method func() Action) {
	x := s.x
	if x == nil {
		method()
		return
	}
	abi.SetEffectiveContext(s.id)
	x.replying = true
	action := method()
	if action == Continue && s.waits && x.due && !x.answered {
		action = x.duly(s.replies)
	}
	x.replying = false
	if action == Continue && s.waits && !x.answered {
		s.waits = false
		abi.ContinueStream(s.replies)
	}
}

// OnGRPCInitialMetadata tells a handler of what comes before a stream's messages.
func (vm *VM) OnGRPCInitialMetadata(token uint32) {
	if s := vm.streams[token]; s != nil {
		if h, ok := s.handler.(GRPCMetadataHandler); ok {
			s.tell(func() Action { return h.OnGRPCMetadata(s, Header{abi.GRPCInitialMetadata}) })
		}
	}
}

// OnGRPCTrailingMetadata tells a handler of what comes after them.
func (vm *VM) OnGRPCTrailingMetadata(token uint32) {
	if s := vm.streams[token]; s != nil {
		if h, ok := s.handler.(GRPCTrailersHandler); ok {
			s.tell(func() Action { return h.OnGRPCTrailers(s, Header{abi.GRPCTrailingMetadata}) })
		}
	}
}

func (s *GRPCStream) received(size int) {
	h, ok := s.handler.(GRPCMessageHandler)
	if !ok {
		return
	}
	message, status := abi.GetBuffer(abi.GRPCMessage, 0, uint32(size))
	if status != abi.OK && size > 0 {
		Errorf("read a message: %v", status)
		return
	}
	s.tell(func() Action { return h.OnGRPCMessage(s, message) })
}

func (s *GRPCStream) closed(code uint32, why string) {
	var err error
	if code != 0 {
		err = &GRPCError{code, why}
	}
	s.end()
	h, ok := s.handler.(GRPCCloseHandler)
	s.tell(func() Action {
		if !ok {
			return Continue
		}
		return h.OnGRPCClose(s, err)
	})
}
