package wasm

import (
	"bytes"
	"unsafe"

	"github.com/weirmesh/weir/policy/wasm/abi"
)

// buffer returns what is in a buffer and whether it exists in this stage. Empty
// configurations exist: guests ask for them.
func (v *vm) buffer(b abi.Buffer) ([]byte, bool) {
	switch b {
	case abi.VMConfiguration:
		return nil, true
	case abi.PluginConfiguration:
		// Only read, so a view of the string will do: guests may ask often.
		return unsafe.Slice(unsafe.StringData(v.policy.spec.Config), len(v.policy.spec.Config)), true
	}
	if c := v.told; c != nil && b == c.buffer() {
		return c.body, true
	}
	if b := v.body(b); b != nil {
		return b.view, true
	}
	return nil, false
}

// buffer is where the guest reads what it is answered.
func (c *call) buffer() abi.Buffer {
	switch {
	case c.grpc != nil:
		return abi.GRPCMessage
	case c.redis != nil:
		return abi.RedisCallResponse
	}
	return abi.HTTPCallResponse
}

// body returns the chunk of that body that is being shown, or the bytes of that
// direction.
func (v *vm) body(b abi.Buffer) *body {
	if w := v.flow(b); w != nil {
		return &w.body
	}
	f := v.shown()
	if f == nil || !f.body.shown {
		return nil
	}
	if b == abi.RequestBody && f.stage == stageRequestBody || b == abi.ResponseBody && f.stage == stageResponseBody {
		return &f.body
	}
	return nil
}

func proxyGetBufferStatus(v *vm, s stack) abi.Status {
	data, ok := v.buffer(abi.Buffer(s.u32(0)))
	if !ok {
		return abi.NotFound
	}
	if !v.writable(s.u32(1)) || !v.writable(s.u32(2)) {
		return abi.InvalidMemoryAccess
	}
	v.mem.WriteUint32Le(s.u32(1), uint32(len(data)))
	v.mem.WriteUint32Le(s.u32(2), 0)
	return abi.OK
}

// proxyGetBuffer: what begins behind the end is empty, what ends there is cut.
func proxyGetBuffer(v *vm, s stack) abi.Status {
	start, size := s.u32(1), s.u32(2)
	if start+size < start {
		return abi.BadArgument
	}
	data, ok := v.buffer(abi.Buffer(s.u32(0)))
	if !ok {
		return abi.NotFound
	}
	start = min(start, uint32(len(data)))
	end := min(start+size, uint32(len(data)))
	return v.give(data[start:end], s.u32(3), s.u32(4))
}

// proxySetBuffer replaces a range of the chunk: an empty one at the start
// prepends, one behind the end appends, the whole replaces.
func proxySetBuffer(v *vm, s stack) abi.Status {
	data, inside := v.read(s.u32(3), s.u32(4))
	if !inside {
		return abi.InvalidMemoryAccess
	}
	b := v.body(abi.Buffer(s.u32(0)))
	if b == nil {
		return abi.NotFound
	}
	v.drawBytes(len(data) + len(b.view))
	return b.splice(s.u32(1), s.u32(2), data)
}

func proxyGetConfiguration(v *vm, s stack) abi.Status {
	data, _ := v.buffer(abi.PluginConfiguration)
	return v.give(data, s.u32(0), s.u32(1))
}

// proxySendLocalResponse notes the answer; it is made when the callback has
// returned.
func proxySendLocalResponse(v *vm, s stack) abi.Status {
	details, a := v.read(s.u32(1), s.u32(2))
	body, b := v.read(s.u32(3), s.u32(4))
	list, c := v.read(s.u32(5), s.u32(6))
	if !a || !b || !c {
		return abi.InvalidMemoryAccess
	}
	f := v.effective
	if f == nil || f.stage == stageEnd || f.connection != nil || !validStatus(s.u32(0)) {
		return abi.BadArgument
	}
	if f.isGone() {
		v.policy.log.line(v, abi.Warn, "cannot answer: the exchange has gone on")
		return abi.OK
	}
	v.drawBytes(len(body) + len(list))
	if f.replied || f.abort { // the first counts, as in Envoy, where each is told OK
		if _, err := abi.ParsePairs(list); err != nil {
			return abi.SerializationFailure
		}
		return abi.OK
	}
	if !f.spend(len(body) + len(list)) {
		return abi.BadArgument
	}
	fields, err := abi.ParsePairs(f.copy(list))
	if err != nil {
		return abi.SerializationFailure
	}
	r := &f.reply
	f.replied, f.dirty = true, true
	r.status, r.fields, r.grpc = int(s.u32(0)), fields, int32(s.u32(7))
	r.body, r.details = f.copy(body), detailsPlugin
	if len(details) > 0 {
		r.details = string(details[:min(len(details), maxDetails)])
	}
	return abi.OK
}

// detailsPlugin is Exchange.Details when the guest gives none of its own.
const detailsPlugin = "policy"

// isGone: the exchange is past what the guest was asked about, and was not stopped.
func (f *filter) isGone() bool { return f.stage == stageIdle && !f.holding }

// copy keeps bytes as long as the exchange; in its arena, unless that is in other
// hands.
func (f *filter) copy(b []byte) []byte {
	if f.stage == stageIdle {
		return bytes.Clone(b)
	}
	return f.x.CopyBytes(b)
}

// proceed ends a pause of a request, or of a response. What is not paused, or not
// any more, need not be continued.
func (v *vm) proceed(response bool) abi.Status {
	f := v.effective
	switch {
	case f == nil || f.connection != nil:
		return abi.BadArgument
	case f.stage == stageEnd:
	case f.stage == stageIdle:
		f.resume = f.holding
	case response == (f.stage >= stageResponseHead):
		f.resume = true
	}
	return abi.OK
}

func proxyContinueRequest(v *vm, _ stack) abi.Status  { return v.proceed(false) }
func proxyContinueResponse(v *vm, _ stack) abi.Status { return v.proceed(true) }

func proxyContinueStream(v *vm, s stack) abi.Status {
	stream := abi.Stream(s.u32(0))
	if d, ok := direction(stream); ok {
		return v.proceedOn(d)
	}
	if stream > abi.ResponseStream {
		return abi.BadArgument
	}
	return v.proceed(stream == abi.ResponseStream)
}

func proxyCloseStream(v *vm, s stack) abi.Status {
	f := v.effective
	_, bytes := direction(abi.Stream(s.u32(0)))
	if f == nil || f.stage == stageEnd || bytes != (f.connection != nil) || abi.Stream(s.u32(0)) > abi.UpstreamStream {
		return abi.BadArgument
	}
	f.abort = bytes || !f.isGone() // a connection is not gone as long as it is a context
	return abi.OK
}

func proxyClearRoute(v *vm, _ stack) abi.Status {
	f := v.shown()
	if f == nil {
		return abi.BadArgument
	}
	f.x.RouteChanged = true
	return abi.OK
}
