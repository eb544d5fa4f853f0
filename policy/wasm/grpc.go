package wasm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weirmesh/weir/policy/wasm/abi"
	"github.com/weirmesh/weir/proxy/exchange"
)

// The statuses of gRPC that the host itself ends calls with.
const (
	grpcOK          = 0
	grpcCancelled   = 1
	grpcUnknown     = 2
	grpcDeadline    = 4
	grpcExhausted   = 8
	grpcInternal    = 13
	grpcUnavailable = 14
)

// grpcCall is what a call of gRPC has beside those of HTTP.
//
// A unary call ends with one callback: proxy_on_grpc_receive with the answer, or
// proxy_on_grpc_close with the status of the failure. A stream has
// proxy_on_grpc_receive_initial_metadata, one proxy_on_grpc_receive for each message,
// proxy_on_grpc_receive_trailing_metadata, and ends with proxy_on_grpc_close,
// whatever its status.
type grpcCall struct {
	streams bool
	out     *outbox // of a stream: what the guest sends
}

// outbox is the body of a stream's request: what the guest has sent and the
// connection has not taken.
type outbox struct {
	limit int

	mu     sync.Mutex
	ready  sync.Cond
	bytes  []byte
	given  []byte // the chunk before, whose memory is used again
	ended  bool
	broken bool
}

func newOutbox(limit int) *outbox {
	o := &outbox{limit: limit}
	o.ready.L = &o.mu
	return o
}

var errCancelled = errors.New("the call was cancelled")

// Next implements exchange.Body.
func (o *outbox) Next() ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.bytes) == 0 && !o.ended && !o.broken {
		o.ready.Wait()
	}
	switch {
	case o.broken:
		return nil, errCancelled
	case len(o.bytes) == 0:
		return nil, io.EOF
	}
	o.bytes, o.given = o.given[:0], o.bytes
	return o.given, nil
}

// Length implements exchange.Body.
func (o *outbox) Length() int64 { return -1 }

// Ready says whether Next would not wait.
func (o *outbox) Ready() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.bytes) > 0 || o.ended || o.broken
}

// Abort ends a Next that waits.
func (o *outbox) Abort() {
	o.mu.Lock()
	o.broken = true
	o.mu.Unlock()
	o.ready.Broadcast()
}

// put appends a message, or says that there is no room for it.
func (o *outbox) put(message []byte, end bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended || len(o.bytes)+len(message) > o.limit {
		return false
	}
	o.bytes = appendFrame(o.bytes, message)
	o.ended = end
	o.ready.Broadcast()
	return true
}

func (o *outbox) end() {
	o.mu.Lock()
	o.ended = true
	o.mu.Unlock()
	o.ready.Broadcast()
}

// frameHead is what stands before a message: whether it is compressed, its length.
const frameHead = 5

func appendFrame(dst, message []byte) []byte {
	dst = append(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(message)))
	return append(dst, message...)
}

var (
	errCompressed = errors.New("its answer is compressed, which was not asked for")
	errCut        = errors.New("its answer ends in the middle of a message")
)

// frames cuts a body into messages.
type frames struct {
	body   exchange.Body
	limit  int
	buffer []byte
	used   int // of the buffer
}

// next returns the next message, valid until the following call; io.EOF at the end.
func (f *frames) next() ([]byte, error) {
	f.buffer = append(f.buffer[:0], f.buffer[f.used:]...)
	f.used = 0
	for {
		if len(f.buffer) >= frameHead {
			n := int64(binary.BigEndian.Uint32(f.buffer[1:]))
			switch {
			case f.buffer[0] != 0:
				return nil, errCompressed
			case n > int64(f.limit):
				return nil, errAnswerTooLarge
			case int64(len(f.buffer)) >= frameHead+n:
				f.used = frameHead + int(n)
				return f.buffer[frameHead:f.used], nil
			}
		}
		if f.body == nil {
			return nil, f.atEnd()
		}
		chunk, err := f.body.Next()
		if err == io.EOF {
			return nil, f.atEnd()
		}
		if err != nil {
			return nil, err
		}
		f.buffer = append(f.buffer, chunk...)
	}
}

func (f *frames) atEnd() error {
	if len(f.buffer) > 0 {
		return errCut
	}
	return io.EOF
}

// run is the call's goroutine.
func (g *grpcCall) run(c *call) {
	if g.streams {
		g.stream(c)
		return
	}
	message, err := g.ask(c)
	if err != nil {
		g.failed(c, err)
		c.tell(true, cbGRPCClose, c.token, c.code)
		return
	}
	r := &c.x.Response
	c.heads, c.trails, c.body = &r.Fields, &r.Trailers, message
	c.tell(true, cbGRPCReceive, c.token, uint32(len(message)))
}

// statusError is a status of gRPC that is not OK.
type statusError struct {
	code    uint32
	message string
}

func (e *statusError) Error() string { return e.message }

// ask makes a unary call.
func (g *grpcCall) ask(c *call) ([]byte, error) {
	if err := c.do.Do(c.ctx, &c.x); err != nil {
		return nil, err
	}
	in := frames{body: c.x.Response.Body, limit: c.vm.policy.host.config.CallBytes}
	message, err := in.next()
	if err == nil {
		message = append([]byte{}, message...)
		if _, err = in.next(); err == nil {
			return nil, &statusError{grpcInternal, "the service has answered more than once"}
		}
	}
	if err != io.EOF {
		return nil, err
	}
	if err := grpcStatus(&c.x.Response); err != nil {
		return nil, err
	}
	if message == nil {
		return nil, &statusError{grpcInternal, "the service has answered nothing"}
	}
	return message, nil
}

// stream makes a call whose messages come and go one by one.
func (g *grpcCall) stream(c *call) {
	defer context.AfterFunc(c.ctx, g.out.Abort)()
	err := g.relay(c)
	g.out.Abort()
	c.code, c.message = grpcOK, ""
	if err != nil {
		g.failed(c, err)
	}
	c.heads, c.trails, c.body = nil, nil, nil
	c.tell(true, cbGRPCClose, c.token, c.code)
}

func (g *grpcCall) relay(c *call) error {
	if err := c.do.Do(c.ctx, &c.x); err != nil {
		return err
	}
	r := &c.x.Response
	c.heads = &r.Fields
	if !c.tell(false, cbGRPCInitialMetadata, c.token, uint32(r.Fields.Len())) {
		return errCancelled
	}
	in := frames{body: r.Body, limit: c.vm.policy.host.config.CallBytes}
	for {
		message, err := in.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if c.body = message; !c.tell(false, cbGRPCReceive, c.token, uint32(len(message))) {
			return errCancelled
		}
	}
	if c.trails, c.body = &r.Trailers, nil; !c.tell(false, cbGRPCTrailingMetadata, c.token, uint32(r.Trailers.Len())) {
		return errCancelled
	}
	return grpcStatus(r)
}

// failed notes how a call ended that did not end well.
func (g *grpcCall) failed(c *call, err error) {
	c.fail(err)
	var status *statusError
	switch {
	case errors.As(err, &status):
		c.code, c.message = status.code, status.message
	case errors.Is(err, errCompressed), errors.Is(err, errCut):
		c.code = grpcInternal
	}
}

// grpcStatus reads how the service says that a call has ended: in the trailers, or
// in a head that nothing follows.
func grpcStatus(r *exchange.Response) error {
	if r.Status != 200 {
		return &statusError{httpToGRPC(r.Status), fmt.Sprintf("the service answered with status %d", r.Status)}
	}
	from := &r.Trailers
	value := from.Get("grpc-status")
	if value == nil {
		from = &r.Fields
		value = from.Get("grpc-status")
	}
	code, err := strconv.ParseUint(string(value[:min(len(value), maxStatusDigits)]), 10, 32)
	if err != nil {
		return &statusError{grpcUnknown, "the service ended the call without a status"}
	}
	if code == grpcOK {
		return nil
	}
	message, err := url.PathUnescape(string(from.Get("grpc-message")))
	if err != nil {
		message = string(from.Get("grpc-message"))
	}
	return &statusError{uint32(code), message}
}

// httpToGRPC is gRPC's own table of what statuses of HTTP mean.
func httpToGRPC(status int) uint32 {
	switch status {
	case 400:
		return grpcInternal
	case 401:
		return 16
	case 403:
		return 7
	case 404:
		return 12
	case 429, 502, 503, 504:
		return grpcUnavailable
	}
	return grpcUnknown
}

// serviceName finds the name in what a guest gives for a service: the name itself,
// or Envoy's message GrpcService with the cluster in envoy_grpc.
func serviceName(given []byte) []byte {
	const envoyGRPC, clusterName = 1, 1
	if inner, ok := stringField(given, envoyGRPC); ok {
		if name, ok := stringField(inner, clusterName); ok {
			return name
		}
	}
	return given
}

// stringField finds a field of bytes in an encoded message.
func stringField(message []byte, field protowire.Number) (value []byte, ok bool) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, false
		}
		message = message[n:]
		size := protowire.ConsumeFieldValue(number, kind, message)
		if size < 0 {
			return nil, false
		}
		if number == field && kind == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(message)
			ok = true
		}
		message = message[size:]
	}
	return value, ok
}

// dial begins a call of gRPC. The first eight parameters of both functions are the
// same; then come the message and the timeout of a unary one.
func (v *vm) dial(s stack, streams bool) abi.Status {
	service, a := v.read(s.u32(0), s.u32(1))
	name, b := v.read(s.u32(2), s.u32(3))
	method, c := v.read(s.u32(4), s.u32(5))
	metadata, d := v.read(s.u32(6), s.u32(7))
	var message []byte
	out, e, timeout := 8, true, time.Duration(0)
	if !streams {
		message, e = v.read(s.u32(8), s.u32(9))
		timeout, out = time.Duration(s.u32(10))*time.Millisecond, 11
	}
	if !a || !b || !c || !d || !e || !v.writable(s.u32(out)) {
		return abi.InvalidMemoryAccess
	}
	v.drawBytes(len(metadata) + len(message) + len(name) + len(method))
	limit := v.policy.host.config.CallBytes
	pairs, err := abi.ParsePairs(metadata)
	if err != nil {
		return abi.SerializationFailure
	}
	if len(message) > limit || !exchange.ValidName(method) || !visible(name) {
		return abi.BadArgument
	}
	g := &grpcCall{streams: streams}
	r := request{service: serviceName(service), head: pairs, timeout: timeout, grpc: g, path: "/" + string(name) + "/" + string(method)}
	if streams {
		g.out = newOutbox(limit)
	} else {
		r.body = appendFrame(nil, message)
	}
	made, status := v.begin(&r)
	if status == abi.OK {
		v.mem.WriteUint32Le(s.u32(out), made.token)
	}
	return status
}

func proxyGRPCCall(v *vm, s stack) abi.Status   { return v.dial(s, false) }
func proxyGRPCStream(v *vm, s stack) abi.Status { return v.dial(s, true) }

// grpcCall finds a call of gRPC by its token: BadArgument where the VM has never had
// such a call, NotFound where it is over.
func (v *vm) grpcCall(token uint32) (*call, abi.Status) {
	c := v.calls[token]
	switch {
	case c != nil && c.grpc != nil:
		return c, abi.OK
	case c != nil, token == 0, token > v.lastToken:
		return nil, abi.BadArgument
	}
	return nil, abi.NotFound
}

func proxyGRPCSend(v *vm, s stack) abi.Status {
	message, inside := v.read(s.u32(1), s.u32(2))
	if !inside {
		return abi.InvalidMemoryAccess
	}
	c, status := v.grpcCall(s.u32(0))
	if status != abi.OK {
		return status
	}
	if !c.grpc.streams {
		return abi.BadArgument
	}
	v.drawBytes(len(message))
	if !c.grpc.out.put(message, s.u32(3) != 0) {
		return abi.InternalFailure
	}
	return abi.OK
}

// proxyGRPCCancel ends a call, of which the guest hears no more.
func proxyGRPCCancel(v *vm, s stack) abi.Status {
	c, status := v.grpcCall(s.u32(0))
	if status == abi.OK {
		c.leave()
		c.cancel()
	}
	return status
}

// proxyGRPCClose says that the guest sends no more on a stream, whose answers come
// nevertheless; of a unary call it is the end.
func proxyGRPCClose(v *vm, s stack) abi.Status {
	c, status := v.grpcCall(s.u32(0))
	if status != abi.OK {
		return status
	}
	if !c.grpc.streams {
		return proxyGRPCCancel(v, s)
	}
	c.grpc.out.end()
	return abi.OK
}
