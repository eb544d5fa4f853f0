package transform

import (
	"strings"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// headerEdit is a headerConfig made ready. What does not depend on what a head holds
// is one edit.
type headerEdit struct {
	rename []pair
	rest   sdk.HeaderEdit
}

func newHeaderEdit(c headerConfig) headerEdit {
	e := headerEdit{rename: sorted(c.Rename)}
	for i := range e.rename {
		e.rename[i] = pair{strings.ToLower(e.rename[i].name), strings.ToLower(e.rename[i].value)}
	}
	for _, name := range c.Remove {
		e.rest.Del(strings.ToLower(name))
	}
	for _, f := range sorted(c.Set) {
		e.rest.Set(strings.ToLower(f.name), f.value)
	}
	for _, f := range sorted(c.Add) {
		e.rest.Add(strings.ToLower(f.name), f.value)
	}
	return e
}

// renameIn does what depends on it.
func (e *headerEdit) renameIn(h sdk.Header) {
	for _, r := range e.rename {
		renameHeader(h, r.name, r.value)
	}
}

// renameHeader keeps every value of a repeated field.
func renameHeader(h sdk.Header, from, to string) {
	if _, ok := h.Lookup(from); !ok || from == to {
		return
	}
	h.Del(to)
	for name, value := range h.All() {
		if strings.EqualFold(name, from) {
			h.Add(to, value)
		}
	}
	h.Del(from)
}
