package wasm

import (
	"strconv"
	"unsafe"

	"github.com/weirmesh/weir/policy/wasm/abi"
	"github.com/weirmesh/weir/proxy/exchange"
)

// How many pseudo-fields come before the fields: :method, :path, :authority and
// :scheme; :status.
const (
	requestPseudo  = 4
	responsePseudo = 1
)

// headers is a head or a trailer section as a guest sees it: pseudo-fields
// first, then the fields.
type headers struct {
	x        *exchange.Exchange
	fields   *exchange.Fields
	pseudo   int
	writable bool
	digits   []byte // the status
}

// headers opens a map, which costs as much as to look at every field of it once.
// What does not exist in the stage is not there: a response has no head before
// there is a response.
func (v *vm) headers(m abi.Map) (h headers, ok bool) {
	if h, ok = v.mapOf(m); ok {
		v.draw(int64(h.len()))
	}
	return h, ok
}

// drawSearch is for looking for a name among so many fields: each may be the same
// but for its last letter.
func (v *vm) drawSearch(name []byte, fields int) {
	v.draw(int64(len(name)) * int64(fields) / 4 * fuelPerByte4)
}

func (v *vm) mapOf(m abi.Map) (h headers, ok bool) {
	if m >= abi.GRPCInitialMetadata {
		return v.answerMap(m)
	}
	f := v.shown()
	if f == nil || f.connection != nil {
		return h, false
	}
	h.x = f.x
	request := f.stage == stageRequestHead || f.stage == stageRequestBody
	switch m {
	case abi.RequestHeaders:
		h.fields, h.pseudo, h.writable = &f.x.Request.Fields, requestPseudo, request
		return h, true
	case abi.RequestTrailers:
		h.fields, h.writable = &f.x.Request.Trailers, f.stage == stageRequestBody
		return h, f.stage > stageRequestHead
	case abi.ResponseHeaders:
		h.fields, h.pseudo, h.writable = &f.x.Response.Fields, responsePseudo, f.stage != stageEnd
		h.digits = strconv.AppendInt(v.digits[:0], int64(f.x.Response.Status), 10)
		return h, !request
	case abi.ResponseTrailers:
		h.fields, h.writable = &f.x.Response.Trailers, f.stage == stageResponseBody
		return h, f.stage > stageResponseHead
	}
	return h, false
}

// answerMap is a map of the answer that the guest is told about.
func (v *vm) answerMap(m abi.Map) (h headers, ok bool) {
	c := v.told
	if c == nil || (c.grpc != nil) != (m == abi.GRPCInitialMetadata || m == abi.GRPCTrailingMetadata) {
		return h, false
	}
	h.x = &c.x
	switch m {
	case abi.HTTPCallHeaders, abi.GRPCInitialMetadata:
		h.fields, h.pseudo = c.heads, c.pseudo
		h.digits = strconv.AppendInt(v.digits[:0], int64(c.x.Response.Status), 10)
	case abi.HTTPCallTrailers, abi.GRPCTrailingMetadata:
		h.fields = c.trails
	}
	return h, h.fields != nil
}

func (h *headers) len() int { return h.pseudo + h.fields.Len() }

func (h *headers) at(i int) (name, value []byte) {
	if i >= h.pseudo {
		f := h.fields.At(i - h.pseudo)
		return f.Name, f.Value
	}
	if h.pseudo == responsePseudo {
		return nameStatus, h.digits
	}
	r := &h.x.Request
	switch i {
	case 0:
		return nameMethod, r.Method
	case 1:
		return namePath, r.Path
	case 2:
		return nameAuthority, r.Authority
	}
	return nameScheme, r.Scheme
}

var (
	nameMethod    = []byte(":method")
	namePath      = []byte(":path")
	nameAuthority = []byte(":authority")
	nameScheme    = []byte(":scheme")
	nameStatus    = []byte(":status")
)

// get returns the first value of a name. Host is :authority by its old name.
func (h *headers) get(name []byte) ([]byte, bool) {
	if h.pseudo == requestPseudo && exchange.EqualFold(name, "host") {
		return h.x.Request.Authority, true
	}
	for i := range h.len() {
		if n, value := h.at(i); exchange.EqualFold(n, text(name)) {
			return value, true
		}
	}
	return nil, false
}

// text views bytes as a string for a comparison. The bytes must not change
// before it ends.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// check says whether a field may be set, before anything is changed.
func (h *headers) check(name, value []byte) bool {
	if h.isPseudo(name) {
		_, ok := h.pseudoPart(name, value)
		return ok
	}
	return exchange.ValidName(name)
}

func (h *headers) isPseudo(name []byte) bool {
	return len(name) > 0 && name[0] == ':' || h.pseudo == requestPseudo && exchange.EqualFold(name, "host")
}

// set replaces what is there, add leaves it. The caller has checked both and
// accounted for them.
func (f *filter) set(h *headers, name, value []byte, replace bool) {
	if h.isPseudo(name) {
		f.setPseudo(h, name, value)
		return
	}
	if isFraming(name) {
		return // the codec's affair, and it will get it right
	}
	name, value = h.x.CopyBytes(name), h.x.CopyBytes(value)
	if replace {
		h.fields.Set(name, value)
	} else {
		h.fields.Add(name, value)
	}
}

// isFraming tells fields that belong to a connection or to the framing of a
// message from those of the message itself.
func isFraming(name []byte) bool {
	switch len(name) {
	case 7:
		return exchange.EqualFold(name, "upgrade")
	case 10:
		return exchange.EqualFold(name, "connection") || exchange.EqualFold(name, "keep-alive")
	case 14:
		return exchange.EqualFold(name, "content-length")
	case 16:
		return exchange.EqualFold(name, "proxy-connection")
	case 17:
		return exchange.EqualFold(name, "transfer-encoding")
	}
	return false
}

// pseudoPart finds what a pseudo-field of a request stands for (nil for the
// status) and whether it may have the value. Such values go upstream as they
// are, so a guest must not put anything in that would end them.
func (h *headers) pseudoPart(name, value []byte) (part *[]byte, ok bool) {
	r := &h.x.Request
	switch {
	case h.pseudo == responsePseudo:
		_, ok = parseStatus(value)
		return nil, ok && text(name) == ":status"
	case h.pseudo == 0:
		return nil, false
	case text(name) == ":method":
		return &r.Method, exchange.ValidName(value)
	case text(name) == ":path":
		return &r.Path, visible(value) && (value[0] == '/' || text(value) == "*")
	case text(name) == ":authority", exchange.EqualFold(name, "host"):
		return &r.Authority, visible(value)
	case text(name) == ":scheme":
		return &r.Scheme, text(value) == "http" || text(value) == "https"
	}
	return nil, false
}

func (f *filter) setPseudo(h *headers, name, value []byte) {
	part, _ := h.pseudoPart(name, value)
	if part == nil {
		h.x.Response.Status, _ = parseStatus(value)
		return
	}
	if part != &h.x.Request.Scheme && text(*part) != text(value) {
		h.x.RouteChanged = true
	}
	*part = h.x.CopyBytes(value)
}

// visible reports whether there is something, and no control character or space.
func visible(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return len(b) > 0
}

func parseStatus(b []byte) (int, bool) {
	if len(b) != 3 {
		return 0, false
	}
	n, err := strconv.Atoi(text(b))
	return n, err == nil && validStatus(uint32(n))
}

// validStatus: a final response, which an interim one (1xx) is not.
func validStatus(n uint32) bool { return n >= 200 && n <= 599 }

func proxyGetHeaderSize(v *vm, s stack) abi.Status {
	h, ok := v.headers(abi.Map(s.u32(0)))
	if !ok {
		return abi.BadArgument
	}
	size := 0
	for i := range h.len() {
		name, value := h.at(i)
		size += len(name) + len(value)
	}
	return v.putU32(s.u32(1), uint32(size))
}

func proxyGetHeaderPairs(v *vm, s stack) abi.Status {
	h, ok := v.headers(abi.Map(s.u32(0)))
	if !ok {
		return abi.BadArgument
	}
	if h.len() == 0 {
		return v.give(nil, s.u32(1), s.u32(2))
	}
	v.drawBytes(abi.PairsSize(h.len(), h.at))
	v.scratch = abi.AppendPairs(v.scratch[:0], h.len(), h.at)
	return v.hand(v.scratch, s.u32(1), s.u32(2))
}

func proxyGetHeader(v *vm, s stack) abi.Status {
	name, inside := v.read(s.u32(1), s.u32(2))
	if !inside {
		return abi.InvalidMemoryAccess
	}
	h, ok := v.headers(abi.Map(s.u32(0)))
	if !ok {
		return abi.BadArgument
	}
	v.drawSearch(name, h.len())
	value, found := h.get(name)
	if !found && v.policy.module.version != abi.V010 {
		return abi.NotFound
	}
	return v.give(value, s.u32(3), s.u32(4))
}

func proxyAddHeader(v *vm, s stack) abi.Status     { return v.changeHeader(s, false) }
func proxyReplaceHeader(v *vm, s stack) abi.Status { return v.changeHeader(s, true) }

func (v *vm) changeHeader(s stack, replace bool) abi.Status {
	name, inside := v.read(s.u32(1), s.u32(2))
	value, insideToo := v.read(s.u32(3), s.u32(4))
	if !inside || !insideToo {
		return abi.InvalidMemoryAccess
	}
	h, ok := v.headers(abi.Map(s.u32(0)))
	if !ok || !h.writable {
		return abi.BadArgument
	}
	v.drawBytes(len(name) + len(value))
	if replace {
		v.drawSearch(name, h.len())
	}
	f := v.effective
	if h.fields.Len() >= maxFields || !h.check(name, value) || !f.spend(len(name)+len(value)) {
		return abi.BadArgument
	}
	f.save()
	f.set(&h, name, value, replace)
	return abi.OK
}

func proxyRemoveHeader(v *vm, s stack) abi.Status {
	name, inside := v.read(s.u32(1), s.u32(2))
	if !inside {
		return abi.InvalidMemoryAccess
	}
	h, ok := v.headers(abi.Map(s.u32(0)))
	if !ok || !h.writable {
		return abi.BadArgument
	}
	v.drawSearch(name, h.len())
	if h.fields.Has(text(name)) {
		v.effective.save()
		h.fields.Del(text(name))
	}
	return abi.OK
}

// proxySetHeaderPairs replaces the fields, and those pseudo-fields that are in
// the list. A list with something wrong in it changes nothing.
func proxySetHeaderPairs(v *vm, s stack) abi.Status {
	b, inside := v.read(s.u32(1), s.u32(2))
	if !inside {
		return abi.InvalidMemoryAccess
	}
	pairs, err := abi.ParsePairs(b)
	if err != nil {
		return abi.SerializationFailure
	}
	h, ok := v.headers(abi.Map(s.u32(0)))
	if !ok || !h.writable {
		return abi.BadArgument
	}
	v.drawBytes(len(b))
	for name, value := range pairs.All {
		if !h.check(name, value) {
			return abi.BadArgument
		}
	}
	f := v.effective
	if pairs.Len() > maxFields || !f.spend(len(b)) {
		return abi.BadArgument
	}
	f.save()
	h.fields.Reset()
	for name, value := range pairs.All {
		f.set(&h, name, value, false)
	}
	return abi.OK
}

func (v *vm) putU32(at, value uint32) abi.Status {
	if !v.mem.WriteUint32Le(at, value) {
		return abi.InvalidMemoryAccess
	}
	return abi.OK
}
