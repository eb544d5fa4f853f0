package policytest

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// Service grants a service to the policies of the host: what they ask, answer makes
// of it. The request's fields begin with :method, :path and :authority. An answer
// without :status has 200; an error is a call without an answer, as when the service
// cannot be reached or does not answer in time. Services answer in the order in which
// they were asked, before anything else happens.
func (h *Host) Service(name string, answer func(request Message) (Message, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.services[name] = answer
}

// outgoing is a call that is not answered yet.
type outgoing struct {
	token   uint32
	request Message
	answer  func(Message) (Message, error)
	wait    *waiting // nil: it is a call of a service
	grpc    bool
}

// waiting is what a handler waits for that is no service.
type waiting struct {
	key     string // "": the clock
	version uint32
	most    time.Duration
}

// beginWait is the foreign function weir.wait.
func (s *side) beginWait(args []byte) ([]byte, abi.Status) {
	if len(args) < 8 {
		return nil, abi.BadArgument
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastToken++
	s.call.calls = append(s.call.calls, outgoing{token: s.lastToken, wait: &waiting{
		most:    time.Duration(binary.LittleEndian.Uint32(args)) * time.Millisecond,
		version: binary.LittleEndian.Uint32(args[4:]), key: string(args[8:]),
	}})
	return binary.LittleEndian.AppendUint32(nil, s.lastToken), abi.OK
}

// over reports whether there is what was waited for.
func (w *waiting) over(h *Host) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	version := sdk.Absent
	if v, ok := h.shared[w.key]; ok {
		version = v.cas
	}
	return w.key != "" && version != w.version
}

// next takes the call that is answered next. What a handler waits for it gets before
// anything else happens if it is there, and otherwise when nothing else can happen: then
// the time passes.
func (c *call) next(h *Host) outgoing {
	i := slices.IndexFunc(c.calls, func(o outgoing) bool { return o.wait == nil || o.wait.over(h) })
	if i < 0 {
		i = 0
		for j, o := range c.calls {
			if o.wait.most < c.calls[i].wait.most {
				i = j
			}
		}
		for _, o := range c.calls {
			if o.wait != c.calls[i].wait {
				o.wait.most -= c.calls[i].wait.most
			}
		}
		h.Advance(c.calls[i].wait.most)
	}
	next := c.calls[i]
	c.calls = slices.Delete(c.calls, i, i+1)
	return next
}

// ask is what comes of a call.
func (o *outgoing) ask(h *Host) (Message, error) {
	switch {
	case o.wait == nil:
		return o.answer(o.request)
	case o.wait.over(h):
		return Message{Header: Fields(":status", "204")}, nil
	}
	return Message{}, errors.New("the time is over")
}

// reply is an answer that the handler is being told about.
type reply struct {
	message
	why string
}

func (s *side) HTTPCall(service string, head, body []byte, _ uint32) (uint32, abi.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := s.services[service]
	if answer == nil {
		return 0, abi.BadArgument
	}
	request := Message{Body: string(body)}
	abi.Pairs(slices.Clone(head), func(name, value string) bool {
		request.Header = append(request.Header, sdk.Field{Name: name, Value: value})
		return true
	})
	s.lastToken++
	s.call.calls = append(s.call.calls, outgoing{token: s.lastToken, request: request, answer: answer})
	return s.lastToken, abi.OK
}

// GRPCCall asks a service that answers with messages as bodies, and with grpc-status and
// grpc-message as fields where it fails.
func (s *side) GRPCCall(service, of, method string, metadata, message []byte, ms uint32) (uint32, abi.Status) {
	head := Fields(":method", "POST", ":path", "/"+of+"/"+method, ":authority", service, "content-type", "application/grpc")
	abi.Pairs(slices.Clone(metadata), func(name, value string) bool {
		head = append(head, sdk.Field{Name: name, Value: value})
		return true
	})
	token, status := s.HTTPCall(service, abi.AppendPairs(nil, len(head), func(i int) (string, string) { return head[i].Name, head[i].Value }), message, ms)
	if status == abi.OK {
		s.call.calls[len(s.call.calls)-1].grpc = true
	}
	return token, status
}

func (s *side) CallStatus() (uint32, string) {
	if s.call.reply == nil || s.call.reply.why == "" {
		return 0, ""
	}
	return unavailable, s.call.reply.why
}

// unavailable is a status of gRPC's.
const unavailable = 14

// tell tells the handler what came of a call.
func (p *Policy) tell(c *call, asked *outgoing, r *reply) {
	c.reply = r
	defer func() { c.reply = nil }()
	if !asked.grpc {
		p.during(c, func() { p.vm.OnHTTPCallResponse(asked.token, len(r.header), len(r.held)) })
		return
	}
	code, _ := strconv.Atoi(r.header.Get("grpc-status"))
	switch {
	case len(r.header) == 0:
		code = unavailable
	case code != 0:
		r.why = r.header.Get("grpc-message")
	default:
		p.during(c, func() { p.vm.OnGRPCReceive(asked.token, len(r.held)) })
		return
	}
	p.during(c, func() { p.vm.OnGRPCClose(asked.token, uint32(code)) })
}

func (s *side) SetEffectiveContext(id uint32) abi.Status {
	if id != s.call.id && id != rootID {
		return abi.BadArgument
	}
	return abi.OK
}

func (s *side) ContinueStream(bool) abi.Status {
	s.call.resumed = true
	return abi.OK
}

// answer answers the calls that were made, and those that this leads to, and returns
// what then is to be done with the exchange.
func (p *Policy) answer(c *call, action sdk.Action) sdk.Action {
	for len(c.calls) > 0 || p.speak(c) {
		if len(c.calls) == 0 {
			continue
		}
		asked := c.next(p.host)
		got, err := asked.ask(p.host)
		r := &reply{message: message{section: section{header: slices.Clone(got.Header)}, held: []byte(strings.Join(got.chunks(), "")), bodyOpen: true}}
		if r.header.index(":status") < 0 {
			r.header = slices.Insert(r.header, 0, sdk.Field{Name: ":status", Value: "200"})
		}
		if err != nil {
			r = &reply{why: err.Error()}
		}
		p.tell(c, &asked, r)
	}
	p.host.deliver()
	switch {
	case c.resumed:
		c.resumed = false
		return sdk.Continue
	case action == sdk.Action(abi.ActionWait) && !c.answered && p.host.log != nil:
		p.host.log.Error("the exchange waits for ever: an answer was neither Continue nor led to another call")
	}
	return action
}
