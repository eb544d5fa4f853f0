package transform

import (
	"bytes"
	"fmt"
	"slices"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// bodyEdit is a bodyConfig made ready.
type bodyEdit struct {
	// members are those that do not pass as they are. They are few: going
	// through the list is quicker in a sandbox than a map.
	members []memberEdit
	// lengths has a bit for the length of each of their names.
	lengths uint64
	// set are the members put at the end: `"currency":"EUR"`.
	set [][]byte

	// out and list are memory to use again: a sandbox edits one document at a
	// time.
	out  []byte
	list []member
}

// keptBytes is the largest memory that is kept from document to document.
const keptBytes = 64 << 10

// memberEdit says what becomes of a member.
type memberEdit struct {
	name string
	// drop: it is removed, or set anew.
	drop bool
	// to is its new name, quoted; nil: it keeps its name.
	to []byte
	// replacedBy names the member that takes its place, if that is there.
	replacedBy string
}

// newBodyEdit returns nil when there is nothing to do.
func newBodyEdit(c bodyConfig) (*bodyEdit, error) {
	if len(c.Rename)+len(c.Remove)+len(c.Set) == 0 {
		return nil, nil
	}
	e := new(bodyEdit)
	for _, name := range c.Remove {
		e.edit(name).drop = true
	}
	values := map[string]string{}
	for name, value := range c.Set {
		e.edit(name).drop = true
		values[name] = string(value)
	}
	for _, p := range sorted(values) {
		e.set = append(e.set, append(append(sdk.AppendJSON(nil, p.name), ':'), p.value...))
	}
	for _, p := range sorted(c.Rename) {
		if err := e.addRename(p.name, p.value); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *bodyEdit) addRename(from, to string) error {
	if from == to {
		return nil
	}
	if target := e.edit(to); target.drop {
		e.edit(from).drop = true // Renamed to what is removed or set.
		return nil
	} else if target.to != nil || target.replacedBy != "" {
		return fmt.Errorf("responseBody.rename: %q is renamed and renamed to", to)
	}
	if source := e.edit(from); source.replacedBy != "" {
		return fmt.Errorf("responseBody.rename: %q is renamed and renamed to", from)
	}
	e.edit(from).to = sdk.AppendJSON(nil, to)
	e.edit(from).drop = false // Renaming comes before removing.
	e.edit(to).replacedBy = from
	return nil
}

// edit returns what becomes of a name, to be changed.
func (e *bodyEdit) edit(name string) *memberEdit {
	if found := e.find([]byte(name)); found != nil {
		return found
	}
	e.members = append(e.members, memberEdit{name: name})
	e.lengths |= 1 << min(len(name), 63)
	return &e.members[len(e.members)-1]
}

func (e *bodyEdit) find(name []byte) *memberEdit {
	for i := range e.members {
		if m := &e.members[i]; len(m.name) == len(name) && m.name == string(name) {
			return m
		}
	}
	return nil
}

// concerns tells quickly whether find may find a name of this length.
func (e *bodyEdit) concerns(length int) bool {
	return e.lengths>>min(length, 63)&1 != 0
}

// apply returns the edited document, which is valid until the next call, or
// false for one that it leaves alone: what is neither an object nor an array of
// objects, and what is not JSON.
func (e *bodyEdit) apply(doc []byte) ([]byte, bool) {
	w := editing{bodyEdit: e, doc: doc, out: e.out[:0], list: e.list}
	w.escapes = bytes.IndexByte(doc, '\\') >= 0
	defer w.keep()
	at := space(doc, 0)
	switch peek(doc, at) {
	case '{':
		at = w.object(at)
	case '[':
		at = w.array(at)
	default:
		return nil, false
	}
	if at == broken || space(doc, at) != len(doc) {
		return nil, false
	}
	w.out = append(w.out, doc[w.copied:]...)
	return w.out, true
}

func (w *editing) keep() {
	if cap(w.out) <= keptBytes {
		w.bodyEdit.out, w.bodyEdit.list = w.out, w.list
	}
}

// editing is one document on its way. What is not edited is copied as it is,
// in pieces as long as can be.
type editing struct {
	*bodyEdit
	doc, out []byte
	// copied is how much of doc is dealt with.
	copied int
	// escapes: there is a backslash somewhere, so there may be one in a name.
	escapes bool
	list    []member // of the object that is edited, kept for the next one
}

// array edits the objects of the array at a position and returns the position
// behind it, or broken.
func (w *editing) array(at int) int {
	at = space(w.doc, at+1)
	if peek(w.doc, at) == ']' {
		return at + 1
	}
	for {
		if peek(w.doc, at) == '{' {
			at = w.object(at)
		} else {
			at = value(w.doc, at)
		}
		if at == broken {
			return broken
		}
		at = space(w.doc, at)
		switch peek(w.doc, at) {
		case ',':
			at = space(w.doc, at+1)
		case ']':
			return at + 1
		default:
			return broken
		}
	}
}

// object is as array. A run is a sequence of members that pass as they are.
func (w *editing) object(at int) int {
	at++
	w.out = append(w.out, w.doc[w.copied:at]...)
	w.list, at = members(w.doc, at, w.list[:0])
	if at == broken {
		return broken
	}
	start, run := len(w.out), 0
	var put edited
	for i := range w.list {
		m := &w.list[i]
		if edit := w.editOf(m); edit != nil {
			w.pass(start, w.list[run:i])
			w.change(start, edit, m, &put)
			run = i + 1
		}
	}
	w.pass(start, w.list[run:])
	for _, m := range put.waiting {
		if !slices.Contains(put.renamed, m.edit.replacedBy) {
			w.write(start, w.doc[m.from:m.end])
		}
	}
	for _, member := range w.set {
		w.write(start, member)
	}
	w.copied = at
	return at + 1
}

// editOf returns what becomes of a member, nil when it passes as it is.
func (w *editing) editOf(m *member) *memberEdit {
	name := w.doc[m.from+1 : m.nameEnd-1]
	if w.escapes && bytes.IndexByte(name, '\\') >= 0 {
		return w.find(unquote(w.doc[m.from:m.nameEnd]))
	}
	if !w.concerns(len(name)) {
		return nil
	}
	return w.find(name)
}

// edited is what an object must be remembered for until its end.
type edited struct {
	renamed []string
	// waiting are members that give way if another was renamed to their name.
	waiting []waiting
}

type waiting struct {
	edit *memberEdit
	member
}

// change deals with a member that is edited.
func (w *editing) change(start int, edit *memberEdit, m *member, put *edited) {
	switch {
	case edit.drop:
	case edit.to != nil:
		put.renamed = append(put.renamed, edit.name)
		w.write(start, edit.to)
		w.out = append(append(w.out, ':'), w.doc[m.value:m.end]...)
	default:
		put.waiting = append(put.waiting, waiting{edit, *m})
	}
}

// pass writes neighbouring members as they are.
func (w *editing) pass(start int, run []member) {
	if len(run) > 0 {
		w.write(start, w.doc[run[0].from:run[len(run)-1].end])
	}
}

// write writes members, and a comma where there were some before.
func (w *editing) write(start int, members []byte) {
	if len(w.out) > start {
		w.out = append(w.out, ',')
	}
	w.out = append(w.out, members...)
}
