package sdk

import "github.com/weirmesh/weir/plugins-sdk/internal/abi"

// HeaderEdit is changes of a head that are known before there is one. Weir is told
// of them once; then [Request.Continue] and [Response.Continue] make all of them
// without a call of the host, which is most of what a small handler costs. In other
// hosts each change is a call, to the same effect. Write one down when the handler
// is made:
//
//	h.edit.Del("x-debug").Set("x-shop", "bookshop") // in New
//	return r.Continue(&h.edit)                       // in OnRequest
//
// The zero value changes nothing.
type HeaderEdit struct {
	// encoded are the changes, as weir.edit takes them.
	encoded []byte
	// told: the host was told of them, or has refused to be.
	told bool
	// action is Continue with the number that the host gave them; 0: it gave none.
	action Action
}

// Set is [Header.Set], for Continue to make.
func (e *HeaderEdit) Set(name, value string) *HeaderEdit { return e.note(abi.EditSet, name, value) }

// Add is [Header.Add], for Continue to make.
func (e *HeaderEdit) Add(name, value string) *HeaderEdit { return e.note(abi.EditAdd, name, value) }

// Del is [Header.Del], for Continue to make.
func (e *HeaderEdit) Del(name string) *HeaderEdit { return e.note(abi.EditDel, name, "") }

func (e *HeaderEdit) note(kind abi.Edit, name, value string) *HeaderEdit {
	e.encoded = abi.AppendEdit(e.encoded, kind, name, value)
	e.told, e.action = false, 0
	return e
}

// Continue is the action [Continue], and makes the changes of an edit: it is for the
// return statement, as the changes are made when the method has returned.
func (r *Request) Continue(e *HeaderEdit) Action {
	if e.action == 0 || r.replying {
		return e.apply(r.Header, r.replying)
	}
	return e.action
}

// Continue is as that of a request.
func (r *Response) Continue(e *HeaderEdit) Action {
	if e.action == 0 || r.replying {
		return e.apply(r.Header, r.replying)
	}
	return e.action
}

// apply is Continue where the host does not have the changes, or is not asked for an
// action: it makes them by a call each.
func (e *HeaderEdit) apply(h Header, now bool) Action {
	if len(e.encoded) == 0 {
		return Continue
	}
	if !e.told && !now {
		e.told = true
		if e.action = e.tell(); e.action != 0 {
			return e.action
		}
	}
	abi.Edits(e.encoded, func(kind abi.Edit, name, value string) {
		switch kind {
		case abi.EditSet:
			h.Set(name, value)
		case abi.EditAdd:
			h.Add(name, value)
		case abi.EditDel:
			h.Del(name)
		}
	})
	return Continue
}

// tell gives the changes to the host, and returns 0 if it does not take them.
func (e *HeaderEdit) tell() Action {
	number, s := abi.Foreign("weir.edit", e.encoded)
	if s != abi.OK || len(number) != 1 {
		return 0
	}
	return Action(number[0]) << editShift
}

// editShift is where an action has the number of its edit.
const editShift = 16
