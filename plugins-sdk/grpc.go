package sdk

import (
	"fmt"
	"strings"
	"time"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// GRPCCall is a unary call of gRPC to a service that the policy was granted, of which
// the protocol is HTTP2.
type GRPCCall struct {
	Service string
	// Method is "package.Service/Method".
	Method   string
	Metadata []Field
	// Message is the request, encoded.
	Message []byte
	// Timeout is as in [Call].
	Timeout time.Duration
}

// GRPCReply is what came of a [GRPCCall].
type GRPCReply struct {
	// Err says why there is no message: a [GRPCError] if the call was made.
	Err error
	// Message is the answer, encoded.
	Message []byte
}

// GRPCError is how a call has ended that has failed.
type GRPCError struct {
	// Code is a status of gRPC's: 14 where the service cannot be reached, 4 where it
	// does not answer in time.
	Code    uint32
	Message string
}

func (e *GRPCError) Error() string { return fmt.Sprintf("grpc status %d: %s", e.Code, e.Message) }

// CallGRPC is [Request.Call] for gRPC. Return its result.
func (r *Request) CallGRPC(c GRPCCall, then func(*GRPCReply) Action) Action {
	return r.askGRPC(&c, false, then)
}

// CallGRPC is as that of a request.
func (r *Response) CallGRPC(c GRPCCall, then func(*GRPCReply) Action) Action {
	return r.askGRPC(&c, true, then)
}

func (x *Exchange) askGRPC(c *GRPCCall, response bool, then func(*GRPCReply) Action) Action {
	token, err := c.send()
	if err != nil {
		return then(&GRPCReply{Err: err})
	}
	return x.await(token, response, func(r *Reply) Action { return then(r.grpc()) })
}

// SendGRPC is [Send] for gRPC.
func SendGRPC(c GRPCCall, then func(*GRPCReply)) error {
	return sendOff(c.send, func(r *Reply) {
		if then != nil {
			then(r.grpc())
		}
	})
}

func (c *GRPCCall) send() (token uint32, err error) {
	of, method, err := c.split()
	if err != nil {
		return 0, err
	}
	token, s := abi.GRPCCall(c.Service, of, method, c.metadata(), c.Message, milliseconds(c.Timeout))
	if s != abi.OK {
		return 0, fmt.Errorf("call service %s: %w", c.Service, s)
	}
	return token, nil
}

// split is the method as the host wants it.
func (c *GRPCCall) split() (of, method string, err error) {
	slash := strings.LastIndexByte(c.Method, '/')
	if slash <= 0 {
		return "", "", fmt.Errorf("call method %q: want package.Service/Method", c.Method)
	}
	return c.Method[:slash], c.Method[slash+1:], nil
}

func (c *GRPCCall) metadata() []byte {
	return abi.AppendPairs(nil, len(c.Metadata), func(i int) (string, string) { return c.Metadata[i].Name, c.Metadata[i].Value })
}

// grpc is the answer to a call of gRPC.
func (r *Reply) grpc() *GRPCReply {
	if r.Err != nil {
		return &GRPCReply{Err: r.Err}
	}
	message, s := abi.GetBuffer(abi.GRPCMessage, 0, uint32(r.size))
	if s != abi.OK && r.size > 0 {
		return &GRPCReply{Err: s}
	}
	return &GRPCReply{Message: message}
}

// OnGRPCReceive tells a handler the answer to its call, or a message of a stream.
func (vm *VM) OnGRPCReceive(token uint32, size int) {
	if s := vm.streams[token]; s != nil {
		s.received(size)
		return
	}
	vm.answered(token, &Reply{size: size})
}

// OnGRPCClose tells a handler that its call has failed, or how a stream has ended.
func (vm *VM) OnGRPCClose(token, code uint32) {
	_, why := abi.CallStatus()
	if s := vm.streams[token]; s != nil {
		s.closed(code, why)
		return
	}
	vm.answered(token, &Reply{Err: &GRPCError{code, why}})
}
