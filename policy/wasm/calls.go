package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
	"github.com/weirmesh/weir/proxy/exchange"
)

// call is one that a guest has made to a service that its policy was granted.
//
//	host function ─▶ begin ─▶ its own goroutine: policy.Call ─▶ callback in the same VM
//
// # Whose it is
//
// The answer comes to the VM that asked, as a callback of the root context; the
// guest switches to the exchange that it is about. So a call holds its VM, which no
// exchange is given as idle meanwhile, and counts as inside the pool, which is not
// freed before the last call has ended. It belongs to the exchange for which it was
// made (owner) until that ends: an exchange that ends while it waits takes its calls
// with it, one that has gone on leaves them to run to their end, for nobody but the
// root. The Host owns the goroutines.
//
// # What is bounded
//
// Time (at most [maxCallTime]), calls in flight of a policy and of a tenant, the size
// of what is sent and of what is answered, and the time that the callback takes, by
// its fuel. When the VM is closed its calls are cancelled, and nobody is told.
type call struct {
	vm    *vm
	token uint32
	// owner is under vm.mu; nil: the root.
	owner  *filter
	grpc   *grpcCall  // nil: it is one of HTTP, or
	redis  *redisCall // one of Redis
	do     policy.Call
	ctx    context.Context
	cancel context.CancelFunc
	x      exchange.Exchange

	// What the guest may read in the callback that runs.
	heads, trails *exchange.Fields
	pseudo        int
	body          []byte
	// What get_status tells there.
	code    uint32
	message string
}

var errAnswerTooLarge = errors.New("its answer is larger than a policy may keep")

// request is what a guest has asked for, before it is sent.
type request struct {
	service        []byte
	head, trailers abi.Pairs
	body           []byte
	timeout        time.Duration
	grpc           *grpcCall
	path           string // of gRPC
}

// begin makes a call and sends it off, or says why not. It is called by a host
// function, with the floor in the VM, so no answer can come before it returns.
func (v *vm) begin(r *request) (*call, abi.Status) {
	p := v.policy
	v.draw(fuelPerRequest)
	c := &call{vm: v, grpc: r.grpc}
	if !c.compose(r) {
		return nil, abi.BadArgument
	}
	services := p.services()
	if f := v.effective; f != nil {
		services = f.services
	}
	if p.pool.closed.Load() && v.effective == nil {
		return nil, abi.InternalFailure // nothing that the root begins would matter
	}
	if !p.admitCall() {
		p.log.line(v, abi.Warn, "cannot call a service: too many calls are in flight")
		return nil, abi.InternalFailure
	}
	name := string(r.service) // whoever is asked may keep it, and the guest its memory
	var granted bool
	if services != nil {
		c.do, granted = services.Call(name)
	}
	if !granted {
		p.endCall()
		p.log.line(v, abi.Error, fmt.Sprintf("cannot call service %q: %s", clip(name), p.grants(services)))
		return nil, abi.BadArgument
	}
	if r.timeout <= 0 || r.timeout > maxCallTime {
		r.timeout = maxCallTime
	}
	if r.grpc != nil && r.grpc.streams {
		c.ctx, c.cancel = context.WithCancel(p.streams)
	} else {
		c.ctx, c.cancel = context.WithTimeout(p.host.ctx, r.timeout)
	}
	v.launch(c)
	return c, abi.OK
}

// launch sends off a call that was admitted, for the exchange that makes it.
func (v *vm) launch(c *call) {
	if f := v.effective; f != nil && (f.live || v.current == f && v.stage != stageEnd) {
		c.owner = f
		f.calls++
		f.called = true
	}
	c.token = v.newToken()
	v.calls[c.token] = c
	v.holders.Add(1)
	v.policy.host.calls.Go(c.run)
}

// clip is a guest's text, for a line of the log.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 128)], "\uFFFD") }

// grants says what a policy may call, for who has named something else.
func (p *Policy) grants(s policy.Services) string {
	if s == nil || len(s.Names()) == 0 {
		return "the policy is granted none (spec.services)"
	}
	return "the policy is granted " + strings.Join(s.Names(), ", ") + " (spec.services)"
}

func (p *Policy) admitCall() bool {
	p.pool.calls.begun.Add(1)
	if p.calling.Add(1) > int64(p.host.config.Calls) || p.data.calling.Add(1) > int64(p.host.config.TenantCalls) {
		p.endCall()
		return false
	}
	return true
}

func (p *Policy) endCall() {
	p.calling.Add(-1)
	p.data.calling.Add(-1)
	p.pool.exit(&p.pool.calls)
}

func (v *vm) newToken() uint32 {
	for {
		v.lastToken++
		if _, taken := v.calls[v.lastToken]; !taken && v.lastToken != 0 {
			return v.lastToken
		}
	}
}

// compose makes the exchange, if what the guest has given can be sent.
func (c *call) compose(r *request) bool {
	q := &c.x.Request
	c.x.Start = time.Now()
	q.Scheme = []byte("http")
	h := headers{x: &c.x, fields: &q.Fields, pseudo: requestPseudo}
	if r.grpc != nil {
		h.pseudo = 0
		c.composeGRPC(r)
	}
	for name, value := range r.head.All {
		if h.isPseudo(name) {
			part, ok := h.pseudoPart(name, value)
			if !ok {
				return false
			}
			*part = c.x.CopyBytes(value)
			continue
		}
		if !exchange.ValidName(name) {
			return false
		}
		if isFraming(name) {
			continue
		}
		q.Fields.Add(c.x.CopyBytes(name), c.x.CopyBytes(value))
	}
	for name, value := range r.trailers.All {
		if !exchange.ValidName(name) || isFraming(name) {
			return false
		}
		q.Trailers.Add(c.x.CopyBytes(name), c.x.CopyBytes(value))
	}
	if len(q.Method) == 0 || len(q.Path) == 0 || len(q.Authority) == 0 {
		return false
	}
	body := slices.Clone(r.body)
	switch {
	case r.grpc != nil && r.grpc.streams:
		q.Body = r.grpc.out
	case r.trailers.Len() > 0:
		q.Body = &openEnded{rest: body}
	case len(body) > 0:
		q.Body = exchange.Bytes(body)
	}
	return true
}

// composeGRPC is the head of a call of gRPC, but for its metadata.
func (c *call) composeGRPC(r *request) {
	q := &c.x.Request
	q.Method, q.Path, q.Authority = c.x.Copy("POST"), c.x.Copy(r.path), c.x.CopyBytes(r.service)
	q.Trailing = true
	q.Fields.Add(c.x.Copy("content-type"), c.x.Copy("application/grpc"))
	if r.timeout > 0 {
		q.Fields.Add(c.x.Copy("grpc-timeout"), c.x.Copy(strconv.FormatInt(r.timeout.Milliseconds(), 10), "m"))
	}
}

// openEnded is a body that trailers follow, so that its length is not told.
type openEnded struct{ rest []byte }

// Next implements exchange.Body.
func (b *openEnded) Next() ([]byte, error) {
	if len(b.rest) == 0 {
		return nil, io.EOF
	}
	chunk := b.rest
	b.rest = nil
	return chunk, nil
}

// Length implements exchange.Body.
func (b *openEnded) Length() int64 { return -1 }

// Complete says that Next never waits.
func (b *openEnded) Complete() bool { return true }

// run is the call's goroutine.
func (c *call) run() {
	switch {
	case c.grpc != nil:
		c.grpc.run(c)
	case c.redis != nil:
		c.redis.run(c)
	default:
		c.ask()
	}
	c.end()
}

// ask sends the request, and tells the guest what came of it.
func (c *call) ask() {
	body, err := c.fetch()
	r := &c.x.Response
	if err != nil {
		// No field at all says that there is no answer.
		c.fail(err)
		c.tell(true, cbHTTPCallResponse, c.token, 0, 0, 0)
		return
	}
	c.heads, c.trails, c.pseudo, c.body = &r.Fields, &r.Trailers, responsePseudo, body
	c.tell(true, cbHTTPCallResponse, c.token, uint32(responsePseudo+r.Fields.Len()), uint32(len(body)), uint32(r.Trailers.Len()))
}

// fetch sends the request and reads all of the answer.
func (c *call) fetch() ([]byte, error) {
	if err := c.do.Do(c.ctx, &c.x); err != nil {
		return nil, err
	}
	var body []byte
	for c.x.Response.Body != nil {
		chunk, err := c.x.Response.Body.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(body)+len(chunk) > c.vm.policy.host.config.CallBytes {
			return nil, errAnswerTooLarge
		}
		body = append(body, chunk...)
	}
	return body, nil
}

// fail notes why there is no answer.
func (c *call) fail(err error) {
	c.heads, c.trails, c.body = nil, nil, nil
	c.code, c.message = grpcUnavailable, err.Error()
	switch {
	case c.ctx.Err() == context.Canceled:
		c.code = grpcCancelled
	case c.overdue(), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		c.code = grpcDeadline
	case errors.Is(err, errAnswerTooLarge):
		c.code = grpcExhausted
	}
}

// overdue tells whether the time that the call had is over. By the clock, since the
// service has the same time: it may give the call up, and its word be here, before
// the context hears of it.
func (c *call) overdue() bool {
	deadline, limited := c.ctx.Deadline()
	return c.ctx.Err() != nil || limited && !time.Now().Before(deadline)
}

// tell makes a callback about the call, as the root context, and reports whether
// there is a VM left for the next. last: the call is over.
func (c *call) tell(last bool, cb int, arguments ...uint32) bool {
	v := c.vm
	v.mu.Lock()
	if v.dead || v.calls[c.token] != c { // or it was cancelled by the guest
		v.mu.Unlock()
		return false
	}
	f := c.owner
	if last {
		c.leave()
	}
	v.told = c
	err := v.root(cb, arguments...)
	v.told = nil
	if f != nil && f.parked { // whose exchange waits pays for what it waits for
		f.fuel += v.burned
		v.burned = 0
		f.lost = err
	}
	return v.quit(err)
}

// leave takes the call off its VM's list. The VM's floor is the caller's.
func (c *call) leave() {
	delete(c.vm.calls, c.token)
	if c.owner != nil {
		c.owner.calls--
		c.owner = nil
	}
}

// end gives back what the call held.
func (c *call) end() {
	v := c.vm
	c.cancel()
	c.do.Close(&c.x)
	v.mu.Lock()
	if v.calls[c.token] == c {
		c.leave()
	}
	v.mu.Unlock()
	p := v.policy
	p.pool.put(v)
	p.endCall()
}

// root makes a callback of the root context; the floor is the caller's.
func (v *vm) root(cb int, arguments ...uint32) error {
	v.uses++
	v.stage, v.current, v.effective = stageRoot, nil, nil
	v.stack[0] = rootID
	for i, a := range arguments {
		v.stack[i+1] = uint64(a)
	}
	return v.run(cb, 1)
}

// quit gives up the floor after a callback of the root context. What that failed
// with concerns every exchange of the VM.
func (v *vm) quit(err error) bool {
	p := v.policy
	v.stage, v.effective = stageIdle, nil
	p.pool.book(v)
	if cap(v.scratch) > keptScratch {
		v.scratch = nil
	}
	if err != nil {
		v.close()
	}
	v.rouse()
	v.mu.Unlock()
	if err == nil {
		return true
	}
	p.pool.retire(v)
	p.log.warn("plugin failed outside of an exchange", "error", err)
	p.failed(err)
	return false
}

func proxyHTTPCall(v *vm, s stack) abi.Status {
	service, a := v.read(s.u32(0), s.u32(1))
	head, b := v.read(s.u32(2), s.u32(3))
	body, c := v.read(s.u32(4), s.u32(5))
	trailers, d := v.read(s.u32(6), s.u32(7))
	if !a || !b || !c || !d || !v.writable(s.u32(9)) {
		return abi.InvalidMemoryAccess
	}
	v.drawBytes(len(head) + len(body) + len(trailers))
	if len(body) > v.policy.host.config.CallBytes {
		return abi.BadArgument
	}
	r := request{service: service, body: body, timeout: time.Duration(s.u32(8)) * time.Millisecond}
	var err, err2 error
	r.head, err = abi.ParsePairs(head)
	r.trailers, err2 = abi.ParsePairs(trailers)
	if err != nil || err2 != nil {
		return abi.SerializationFailure
	}
	made, status := v.begin(&r)
	if status == abi.OK {
		v.mem.WriteUint32Le(s.u32(9), made.token)
	}
	return status
}

// proxyGetStatus tells how the call ended that the guest is being told about. To
// one of HTTP without an answer gRPC's numbers are lent.
func proxyGetStatus(v *vm, s stack) abi.Status {
	if !v.writable(s.u32(0)) {
		return abi.InvalidMemoryAccess
	}
	code, message := uint32(0), ""
	if v.told != nil {
		code, message = v.told.code, v.told.message
	}
	v.mem.WriteUint32Le(s.u32(0), code)
	return v.give([]byte(message), s.u32(1), s.u32(2))
}
