package wasm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/weirmesh/weir/policy/jsonpath"
	"github.com/weirmesh/weir/policy/wasm/abi"
)

// JSON is read and changed where it is, in the chunk of a body that is being shown: it
// need not come into the guest at all.

var documentCalls = []foreign{
	{"weir.json_paths", "reads JSON paths", readPaths},
	{"weir.json_get", "reads JSON by paths", getDocument},
	{"weir.json_edits", "reads edits of JSON", readEdits},
	{"weir.json_edit", "changes a body that is JSON", editDocument},
}

// given is the buffer that is sent along.
const given = 1<<32 - 1

// readPaths takes paths, each after its length.
func readPaths(v *vm, b []byte) ([]byte, abi.Status) {
	return v.made("json paths", b, func(b []byte) (any, error) {
		var paths []jsonpath.Path
		for a := argumentsOf(b); len(a.left) > 0; {
			text := a.bytes()
			if a.bad || len(text) > maxName || len(paths) == maxPaths {
				return nil, fmt.Errorf("want at most %d paths of at most %d bytes, each after its length", maxPaths, maxName)
			}
			p, err := jsonpath.Parse(string(text))
			if err != nil {
				return nil, err
			}
			paths = append(paths, p)
		}
		return paths, nil
	})
}

// readEdits takes edits: an operation, a path and a value, the latter two after their
// lengths.
func readEdits(v *vm, b []byte) ([]byte, abi.Status) {
	return v.made("json edits", b, func(b []byte) (any, error) {
		var edits []jsonpath.Edit
		for a := argumentsOf(b); len(a.left) > 0; {
			op, path, value := a.number(), a.bytes(), a.bytes()
			if a.bad || len(path) > maxName || len(edits) == maxPaths {
				return nil, fmt.Errorf("want at most %d edits with paths of at most %d bytes", maxPaths, maxName)
			}
			p, err := jsonpath.Parse(string(path))
			if err != nil {
				return nil, err
			}
			e := jsonpath.Edit{Op: jsonpath.Op(min(op, 255)), Path: p, Value: value}
			if err := e.Check(); err != nil {
				return nil, fmt.Errorf("edit of %q: %w", path, err)
			}
			edits = append(edits, e)
		}
		return edits, nil
	})
}

// getDocument returns a zero byte and the values, each after its length, or a byte
// that is none and why the document cannot be read.
func getDocument(v *vm, b []byte) ([]byte, abi.Status) {
	a := argumentsOf(b)
	paths, _, ok := objectOf[[]jsonpath.Path](v, a.number())
	buffer, doc := a.number(), a.rest()
	if !ok || a.bad {
		return nil, abi.BadArgument
	}
	if buffer != given {
		if doc, ok = v.buffer(abi.Buffer(buffer)); !ok {
			return nil, abi.NotFound
		}
	}
	v.payDocument(doc, len(paths))
	values, err := jsonpath.Get(doc, paths)
	if err != nil {
		return v.unmade(err)
	}
	v.scratch = append(v.scratch[:0], 0)
	for _, value := range values {
		size := uint32(len(value))
		if value == nil {
			size = noValue
		}
		v.scratch = append(binary.LittleEndian.AppendUint32(v.scratch, size), value...)
		if len(v.scratch) > maxReplaced {
			return v.unmade(errors.New("the values are too long"))
		}
	}
	return v.scratch, abi.OK
}

// editDocument is as getDocument, and returns no values.
func editDocument(v *vm, b []byte) ([]byte, abi.Status) {
	a := argumentsOf(b)
	edits, _, ok := objectOf[[]jsonpath.Edit](v, a.number())
	buffer := abi.Buffer(a.number())
	if !ok || !a.done() {
		return nil, abi.BadArgument
	}
	shown := v.body(buffer)
	if shown == nil {
		return nil, abi.NotFound
	}
	v.payDocument(shown.view, len(edits))
	changed, err := jsonpath.Apply(shown.view, edits, maxBodyBytes)
	if err != nil {
		return v.unmade(err)
	}
	const all = 1<<32 - 1
	if status := shown.splice(0, all, changed); status != abi.OK {
		return nil, status
	}
	v.scratch = append(v.scratch[:0], 0)
	return v.scratch, abi.OK
}

// payDocument: it is checked once, and gone through for each path or edit.
func (v *vm) payDocument(doc []byte, times int) {
	v.draw(int64(len(doc)) * int64(1+times) * fuelPerJSONByte)
	v.settle()
}
