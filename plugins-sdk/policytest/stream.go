package policytest

import (
	"slices"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// Stream is a stream of gRPC as its service has it.
type Stream struct {
	// Method is "package.Service/Method", Metadata what the handler sent with it.
	Method   string
	Metadata Header
	// Cancelled is set when the handler has cancelled the stream.
	Cancelled bool

	token   uint32
	hears   func(s *Stream, message string, end bool)
	ended   bool // the handler sends no more
	over    bool
	begun   bool
	pending []func(p *Policy, c *call) // what the handler is still to be told
}

// Stream grants a service of gRPC with streams: hears is called with each message that
// a handler sends, and, once it sends no more, with the end; that is the last message's
// if the handler says so, else it comes by itself, without one.
func (h *Host) Stream(name string, hears func(s *Stream, message string, end bool)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.talkers[name] = hears
}

// Head answers with metadata; without it there is none when the first message comes.
func (s *Stream) Head(metadata Header) {
	if s.begun {
		return
	}
	s.begun = true
	s.tell(&reply{message: message{section: section{header: metadata}}}, func(vm *sdk.VM) { vm.OnGRPCInitialMetadata(s.token) })
}

// Send answers with a message.
func (s *Stream) Send(m string) {
	s.Head(nil)
	s.tell(&reply{message: message{held: []byte(m), bodyOpen: true}}, func(vm *sdk.VM) { vm.OnGRPCReceive(s.token, len(m)) })
}

// End ends the stream, with a status of gRPC and what comes with that.
func (s *Stream) End(code uint32, why string, trailers Header) {
	s.Head(nil)
	s.tell(&reply{message: message{section: section{header: trailers}}}, func(vm *sdk.VM) { vm.OnGRPCTrailingMetadata(s.token) })
	s.tell(&reply{why: why}, func(vm *sdk.VM) {
		s.over = true
		vm.OnGRPCClose(s.token, code)
	})
}

func (s *Stream) tell(r *reply, callback func(vm *sdk.VM)) {
	s.pending = append(s.pending, func(p *Policy, c *call) {
		c.reply = r
		defer func() { c.reply = nil }()
		p.during(c, func() { callback(p.vm) })
	})
}

// speak lets a service say something to the handler, and reports whether one has.
func (p *Policy) speak(c *call) bool {
	p.streams = slices.DeleteFunc(p.streams, func(s *Stream) bool { return s.over })
	for _, s := range p.streams {
		if len(s.pending) > 0 {
			next := s.pending[0]
			s.pending = s.pending[1:]
			next(p, c)
			return true
		}
	}
	return false
}

// GRPCStream opens a stream to a service of [Host.Stream].
func (s *side) GRPCStream(service, of, method string, metadata []byte) (uint32, abi.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hears := s.talkers[service]
	if hears == nil {
		return 0, abi.BadArgument
	}
	s.lastToken++
	stream := &Stream{Method: of + "/" + method, token: s.lastToken, hears: hears}
	abi.Pairs(slices.Clone(metadata), func(name, value string) bool {
		stream.Metadata = append(stream.Metadata, sdk.Field{Name: name, Value: value})
		return true
	})
	s.call.policy.streams = append(s.call.policy.streams, stream)
	return s.lastToken, abi.OK
}

// stream finds an open stream.
func (s *side) stream(token uint32) (*Stream, abi.Status) {
	for _, stream := range s.call.policy.streams {
		if stream.token == token && !stream.over {
			return stream, abi.OK
		}
	}
	return nil, abi.NotFound
}

func (s *side) GRPCSend(token uint32, message []byte, end bool) abi.Status {
	stream, status := s.stream(token)
	switch {
	case status != abi.OK:
		return status
	case stream.ended:
		return abi.Internal
	}
	stream.ended = end
	stream.hears(stream, string(message), end)
	return abi.OK
}

func (s *side) GRPCClose(token uint32) abi.Status {
	stream, status := s.stream(token)
	if status == abi.OK && !stream.ended {
		stream.ended = true
		stream.hears(stream, "", true)
	}
	return status
}

func (s *side) GRPCCancel(token uint32) abi.Status {
	stream, status := s.stream(token)
	if status == abi.OK {
		stream.over, stream.Cancelled = true, true
	}
	return status
}
