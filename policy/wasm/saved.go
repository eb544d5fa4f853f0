package wasm

import "github.com/weirmesh/weir/proxy/exchange"

// head is a head as it was before a callback changed it, for policies whose
// failure must leave no trace.
type head struct {
	of                              stage
	method, scheme, authority, path []byte
	status                          int
	changed                         bool // Exchange.RouteChanged
	fields                          exchange.Fields
}

func (h *head) reset() {
	fields := h.fields
	fields.Reset()
	*h = head{fields: fields}
}

// save notes the head before the first change of a callback.
func (f *filter) save() {
	h, x, s := &f.saved, f.x, f.stage
	if !f.policy.open || f.dirty && h.of == s {
		return
	}
	h.reset()
	h.of, f.dirty = s, true
	from := &x.Request.Fields
	if s >= stageResponseHead {
		from, h.status = &x.Response.Fields, x.Response.Status
	}
	h.method, h.scheme, h.authority, h.path = x.Request.Method, x.Request.Scheme, x.Request.Authority, x.Request.Path
	h.changed = x.RouteChanged
	copyFields(&h.fields, from)
}

// restore undoes what a callback that failed did to a head.
func (f *filter) restore(s stage) {
	h, x := &f.saved, f.x
	if !f.dirty || h.of != s || s == stageIdle {
		return
	}
	if s >= stageResponseHead {
		x.Response.Status = h.status
		copyFields(&x.Response.Fields, &h.fields)
		return
	}
	x.Request.Method, x.Request.Scheme, x.Request.Authority, x.Request.Path = h.method, h.scheme, h.authority, h.path
	x.RouteChanged = h.changed
	copyFields(&x.Request.Fields, &h.fields)
}

func copyFields(to, from *exchange.Fields) {
	to.Reset()
	for i := range from.Len() {
		field := from.At(i)
		to.AddParsed(field.Name, field.Value)
	}
}
