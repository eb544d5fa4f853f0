// Package policytest runs a plugin's handler in plain `go test`, against a
// host made of maps: no sandbox, no build for wasip1, so the debugger and the
// race detector work.
//
//	p := policytest.Start(t, newStamp, `{"header": "x-stamp", "value": "yes"}`)
//	x := p.Do(policytest.Exchange{Request: policytest.Message{
//		Header: policytest.Fields(":method", "GET", ":path", "/books"),
//	}})
//	if got := x.Response.Header.Get("x-stamp"); got != "yes" { … }
//
// [Policy.Do] goes through the very callbacks that a proxy makes, in its order,
// with bodies chunk by chunk. What a Hold means is what it means in Weir, and so
// is an exchange without State: it is another one in the next method. What the
// handler logs goes to the test's log.
package policytest

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// Header is a header section in order.
type Header []sdk.Field

// Fields makes a section of names and values in turn.
func Fields(nameValue ...string) Header {
	var h Header
	for i := 0; i+1 < len(nameValue); i += 2 {
		h = append(h, sdk.Field{Name: nameValue[i], Value: nameValue[i+1]})
	}
	return h
}

// Get returns the first value of that name, "" where there is none.
func (h Header) Get(name string) string {
	if i := h.index(name); i >= 0 {
		return h[i].Value
	}
	return ""
}

// Values returns every value of that name.
func (h Header) Values(name string) []string {
	var values []string
	for _, f := range h {
		if strings.EqualFold(f.Name, name) {
			values = append(values, f.Value)
		}
	}
	return values
}

func (h Header) index(name string) int {
	return slices.IndexFunc(h, func(f sdk.Field) bool { return strings.EqualFold(f.Name, name) })
}

func (h Header) without(name string) Header {
	return slices.DeleteFunc(h, func(f sdk.Field) bool { return strings.EqualFold(f.Name, name) })
}

// Message is a request or a response.
type Message struct {
	Header Header
	// Body is sent in one chunk; with Chunks, in those instead. In what Do
	// returns, Body is all of it.
	Body   string
	Chunks []string
	// Trailers follow the body.
	Trailers Header
}

func (m Message) chunks() []string {
	if m.Chunks != nil {
		return m.Chunks
	}
	if m.Body != "" {
		return []string{m.Body}
	}
	return nil
}

// Exchange is what a handler is shown, and from Do what it made of it.
type Exchange struct {
	// Request is what the client sends; afterwards, what the upstream gets.
	Request Message
	// Response is what the upstream answers (without a header: 200);
	// afterwards, what the client gets.
	Response Message
	// Properties by path, divided by dots: "source.address".
	Properties map[string]string
	// Answered is set when the policy itself has answered; Details is then the
	// word for the access log.
	Answered bool
	Details  string
}

// Status is the response's.
func (x Exchange) Status() string { return x.Response.Header.Get(":status") }

// Policy is a handler in its sandbox.
type Policy struct {
	host   *Host
	vm     *sdk.VM
	lastID uint32
	// told: the sandbox has asked for light exchanges, and gets them.
	told bool
	// trailing is the trailers that the handler has methods for, as weir.phases has it.
	trailing byte
	streams  []*Stream // that are open
}

const rootID = 1

// Start makes a handler on a host of its own, and fails the test when the
// configuration is refused.
func Start[C any](t testing.TB, new func(C) (sdk.Handler, error), config string) *Policy {
	t.Helper()
	return StartOn(t, NewHost(), new, config)
}

// StartOn is Start on a host that several sandboxes may share.
func StartOn[C any](t testing.TB, h *Host, new func(C) (sdk.Handler, error), config string) *Policy {
	t.Helper()
	h.mu.Lock()
	h.log = t
	h.mu.Unlock()
	p, refusal := start(h, checked(t, new), config)
	if refusal != "" {
		t.Fatalf("configuration refused: %s", refusal)
	}
	return p
}

// Refusal returns why a configuration is refused, "" when it is not.
func Refusal[C any](t testing.TB, new func(C) (sdk.Handler, error), config string) string {
	t.Helper()
	_, refusal := start(NewHost(), new, config)
	return refusal
}

func start[C any](h *Host, new func(C) (sdk.Handler, error), config string) (*Policy, string) {
	p := &Policy{host: h, vm: sdk.NewVM(sdk.Define(new)), lastID: rootID}
	accepted := false
	c := &call{config: []byte(config)}
	p.during(c, func() {
		p.vm.OnContextCreate(rootID, 0)
		accepted = p.vm.OnConfigure(rootID, len(config))
	})
	p.answer(c, sdk.Continue)
	p.told, p.trailing = c.told, c.trailing
	if accepted {
		return p, ""
	}
	logged := h.Logged()
	if len(logged) == 0 {
		return p, "no reason given"
	}
	return p, logged[len(logged)-1]
}

// checked catches what the compiler cannot: a method that is meant for a
// callback, but is misspelt or takes other arguments, would silently not be called.
func checked[C any](t testing.TB, new func(C) (sdk.Handler, error)) func(C) (sdk.Handler, error) {
	return func(c C) (sdk.Handler, error) {
		handler, err := new(c)
		if err != nil {
			return nil, err
		}
		of := reflect.TypeOf(handler)
		for i := range of.NumMethod() {
			if name := of.Method(i).Name; strings.HasPrefix(name, "On") && !isCallback(of, name) {
				t.Errorf("%s has a method %s that is never called: it is not one of the SDK's interfaces", of, name)
			}
		}
		return handler, nil
	}
}

func isCallback(handler reflect.Type, name string) bool {
	for _, callback := range []reflect.Type{
		reflect.TypeFor[sdk.RequestHandler](), reflect.TypeFor[sdk.RequestBodyHandler](),
		reflect.TypeFor[sdk.ResponseHandler](), reflect.TypeFor[sdk.ResponseBodyHandler](),
		reflect.TypeFor[sdk.RequestTrailersHandler](), reflect.TypeFor[sdk.ResponseTrailersHandler](),
		reflect.TypeFor[sdk.GRPCMessageHandler](), reflect.TypeFor[sdk.GRPCMetadataHandler](),
		reflect.TypeFor[sdk.GRPCTrailersHandler](), reflect.TypeFor[sdk.GRPCCloseHandler](),
		reflect.TypeFor[sdk.DoneHandler](), reflect.TypeFor[sdk.TickHandler](), reflect.TypeFor[sdk.QueueHandler](),
	} {
		if callback.Method(0).Name == name {
			return handler.Implements(callback)
		}
	}
	return false
}

// Tick lets the policy's clock strike.
func (p *Policy) Tick() {
	c := &call{}
	p.during(c, func() { p.vm.OnTick(rootID) })
	p.answer(c, sdk.Continue)
}

// during calls f, which makes callbacks, with the host answering for the call.
func (p *Policy) during(c *call, f func()) {
	c.policy = p
	p.host.during(c, func() { p.vm.Run(f) })
}

// Do shows one exchange to the handler, from its head to its end.
func (p *Policy) Do(x Exchange) Exchange {
	c := newCall(x)
	p.begin(c)
	p.pass(c, 0, x.Request.chunks(),
		func(end bool) sdk.Action { return p.vm.OnRequestHeaders(c.id, end) },
		func(size int, end bool) sdk.Action { return p.vm.OnRequestBody(c.id, size, end) },
		func() sdk.Action { return p.vm.OnRequestTrailers(c.id) })
	if !c.answered {
		p.pass(c, 1, x.Response.chunks(),
			func(end bool) sdk.Action { return p.vm.OnResponseHeaders(c.id, end) },
			func(size int, end bool) sdk.Action { return p.vm.OnResponseBody(c.id, size, end) },
			func() sdk.Action { return p.vm.OnResponseTrailers(c.id) })
	}
	if c.live {
		p.during(c, func() {
			p.vm.OnLog(c.id)
			p.vm.OnDelete(c.id)
		})
		p.answer(c, sdk.Continue)
	}
	return c.result(x)
}

// begin makes the exchange a context, unless it may be light.
func (p *Policy) begin(c *call) {
	p.lastID++
	c.id = p.lastID
	if c.live = !p.told; c.live {
		p.during(c, func() { p.vm.OnContextCreate(c.id, rootID) })
	}
}

// show makes one callback. An exchange of which the sandbox keeps nothing comes
// back under another number.
func (p *Policy) show(c *call, callback func() sdk.Action) (action sdk.Action) {
	const light = sdk.Action(abi.ActionLight)
	p.during(c, func() { action = callback() })
	if c.live = !p.told || action&light == 0; !c.live {
		p.lastID++
		c.id = p.lastID
	}
	return p.answer(c, action&^light)
}

// pass takes one message through its two callbacks, as a proxy does: what was
// held is shown again, together with what came since. Where trailers follow that the
// handler wants to see, these are the end.
func (p *Policy) pass(c *call, way int, chunks []string, head func(bool) sdk.Action, body func(int, bool) sdk.Action, trailers func() sdk.Action) {
	m := &c.messages[way]
	if len(m.trailers.header) > 0 && len(chunks) == 0 {
		chunks = []string{""}
	}
	follow := len(m.trailers.header) > 0 && p.trailing&(1<<way) != 0
	m.headOpen = true
	action := p.show(c, func() sdk.Action { return head(len(chunks) == 0) })
	m.headOpen = action == sdk.Hold
	for i, chunk := range chunks {
		if c.answered {
			return
		}
		m.held = append(m.held, chunk...)
		m.bodyOpen = true
		last := i == len(chunks)-1
		action = p.show(c, func() sdk.Action { return body(len(m.held), last && !follow) })
		if last && follow && !c.answered {
			m.trailers.headOpen = true
			action = p.show(c, trailers)
			m.trailers.headOpen = false
		}
		m.bodyOpen = false
		if action == sdk.Continue {
			m.headOpen = false
			m.sent, m.held = append(m.sent, m.held...), nil
		}
	}
	m.headOpen = false
	m.sent, m.held = append(m.sent, m.held...), nil
}

// call is what the host knows while it calls the plugin.
type call struct {
	id         uint32
	policy     *Policy
	live       bool // the sandbox keeps something of it
	told       bool // the sandbox has asked for light exchanges
	trailing   byte // and for these trailers
	config     []byte
	messages   [2]message // the request, the response
	properties map[string]string
	answered   bool
	details    string
	calls      []outgoing
	reply      *reply // that the handler is being told about
	resumed    bool
}

// message is a request or response on its way.
type message struct {
	section
	held, sent []byte
	bodyOpen   bool
	trailers   section
}

// section is fields that may be changed while they are open.
type section struct {
	header   Header
	headOpen bool
}

func newCall(x Exchange) *call {
	c := &call{properties: map[string]string{}}
	for path, value := range x.Properties {
		c.properties[strings.ReplaceAll(path, ".", "\x00")] = value
	}
	c.messages[0].header = slices.Clone(x.Request.Header)
	c.messages[1].header = slices.Clone(x.Response.Header)
	c.messages[0].trailers.header = slices.Clone(x.Request.Trailers)
	c.messages[1].trailers.header = slices.Clone(x.Response.Trailers)
	if c.messages[1].header.index(":status") < 0 {
		c.messages[1].header = slices.Insert(c.messages[1].header, 0, sdk.Field{Name: ":status", Value: "200"})
	}
	return c
}

func (c *call) result(x Exchange) Exchange {
	return Exchange{
		Request:    Message{Header: c.messages[0].header, Body: string(c.messages[0].sent), Trailers: c.messages[0].trailers.header},
		Response:   Message{Header: c.messages[1].header, Body: string(c.messages[1].sent), Trailers: c.messages[1].trailers.header},
		Properties: x.Properties,
		Answered:   c.answered,
		Details:    c.details,
	}
}

func (c *call) section(m abi.MapType) *section {
	switch m {
	case abi.RequestHeaders:
		return &c.messages[0].section
	case abi.RequestTrailers:
		return &c.messages[0].trailers
	case abi.ResponseHeaders:
		return &c.messages[1].section
	case abi.ResponseTrailers:
		return &c.messages[1].trailers
	case abi.HTTPCallHeaders, abi.GRPCInitialMetadata, abi.GRPCTrailingMetadata:
		if c.reply != nil {
			return &c.reply.section
		}
	}
	return nil
}
