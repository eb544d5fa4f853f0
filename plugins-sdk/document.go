package sdk

import (
	"errors"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// Value is something that was looked for, as text, and whether it was there.
type Value struct {
	Text  string
	There bool
}

// JSONPaths are places in JSON documents: order.items[0].price, $['a b'][*].
type JSONPaths struct {
	handle uint32
	count  int
}

// CompilePaths reads paths: those of RFC 9535 that name members, elements, or all.
func CompilePaths(paths ...string) (JSONPaths, error) {
	var list []byte
	for _, p := range paths {
		list = sized(list, p)
	}
	h, err := made("weir.json_paths", list)
	return JSONPaths{h, len(paths)}, err
}

// Of returns what stands at each path, as JSON.
func (p JSONPaths) Of(document string) ([]Value, error) {
	const given = 1<<32 - 1
	message = append(number(number(message[:0], p.handle), given), document...)
	return p.get()
}

// In is as Of, for the chunk of a body that is being shown, which need not come into
// the sandbox for it.
func (p JSONPaths) In(b Body) ([]Value, error) {
	message = number(number(message[:0], p.handle), uint32(b.buffer))
	return p.get()
}

func (p JSONPaths) get() ([]Value, error) {
	result, err := Foreign("weir.json_get", message)
	if err = failed(result, err); err != nil {
		return nil, err
	}
	found := make([]Value, p.count)
	err = values(result[1:], func(i int, value string, there bool) {
		if i < len(found) {
			found[i] = Value{value, there}
		}
	})
	return found, err
}

// failed makes an error of a result that says why there is none.
func failed(result []byte, err error) error {
	switch {
	case err != nil:
		return err
	case len(result) == 0:
		return errCut
	case result[0] != 0:
		return errors.New(abi.Text(result[1:]))
	}
	return nil
}

// JSONEdit is a list of changes of JSON, made where they belong.
type JSONEdit struct{ list []byte }

// Set replaces the value at a path, or makes it. The value is JSON.
func (e *JSONEdit) Set(path string, value []byte) { e.add(0, path, value) }

// Remove takes away what stands at a path.
func (e *JSONEdit) Remove(path string) { e.add(1, path, nil) }

// Rename gives the member at a path another name.
func (e *JSONEdit) Rename(path, name string) { e.add(2, path, []byte(name)) }

func (e *JSONEdit) add(op uint32, path string, value []byte) {
	e.list = sized(sized(number(e.list, op), path), value)
}

// JSONEdits are changes that the host has read.
type JSONEdits struct{ handle uint32 }

// Compile hands the changes to the host.
func (e *JSONEdit) Compile() (JSONEdits, error) {
	h, err := made("weir.json_edits", e.list)
	return JSONEdits{h}, err
}

// Apply changes the chunk of a body that is being shown: hold the body until it is
// whole. A body that is no JSON stays as it is, and the error says why.
func (e JSONEdits) Apply(b Body) error {
	message = number(number(message[:0], e.handle), uint32(b.buffer))
	return failed(Foreign("weir.json_edit", message))
}
