package main

import (
	"strings"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// headerEdit is a headerConfig made ready.
type headerEdit struct {
	rename []pair
	remove []string
	set    []pair
	add    []pair
}

func newHeaderEdit(c headerConfig) headerEdit {
	e := headerEdit{rename: sorted(c.Rename), set: sorted(c.Set), add: sorted(c.Add)}
	for i := range e.rename {
		e.rename[i] = pair{strings.ToLower(e.rename[i].name), strings.ToLower(e.rename[i].value)}
	}
	for _, name := range c.Remove {
		e.remove = append(e.remove, strings.ToLower(name))
	}
	for _, fields := range [][]pair{e.set, e.add} {
		for i := range fields {
			fields[i].name = strings.ToLower(fields[i].name)
		}
	}
	return e
}

func (e *headerEdit) apply(h sdk.Header) {
	for _, r := range e.rename {
		renameHeader(h, r.name, r.value)
	}
	for _, name := range e.remove {
		h.Del(name)
	}
	for _, f := range e.set {
		h.Set(f.name, f.value)
	}
	for _, f := range e.add {
		h.Add(f.name, f.value)
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
