// Package sections reads what a WASM module says about itself: imports, exports,
// memory, and the notes that compilers leave in custom sections.
//
// It is for people who ask what a file is, so it reads on where a host would
// refuse: features that the engine does not have, functions that no host has.
// What must be sound before a module runs is package fuel's to check. It trusts
// nothing all the same: every count is held against the bytes that are left, and
// names against a length.
package sections

import (
	"errors"
	"fmt"
)

// Module is what a module says about itself.
type Module struct {
	// Component: it is a component (WASI 0.2). Nothing else is known of one.
	Component bool
	Imports   []Import
	Exports   []Export
	// Memory is the first linear memory, its own or an imported one; nil: none.
	Memory *Memory
	// Functions counts those that it defines.
	Functions int
	// CodeBytes and DataBytes are the sizes of those sections.
	CodeBytes, DataBytes int
	Custom               []Custom
	// Producers says what made it.
	Producers []Producer
	// Named: functions have names, so that traps can tell where they happened.
	Named bool
}

// Kind is what is imported or exported.
type Kind byte

// The kinds.
const (
	Function Kind = iota
	Table
	MemoryKind
	Global
	Tag
)

// String is the kind's name.
func (k Kind) String() string {
	if k > Tag {
		return "thing"
	}
	return [...]string{"function", "table", "memory", "global", "tag"}[k]
}

// Import is what a module asks for.
type Import struct {
	Module, Name string
	Kind         Kind
}

// Export is what it offers.
type Export struct {
	Name string
	Kind Kind
}

// Memory is the bounds of a linear memory, in pages of 64 KiB.
type Memory struct {
	Min uint64
	// Max is the most that it may grow to, if Bounded.
	Max             uint64
	Bounded, Shared bool
}

// Custom is a custom section.
type Custom struct {
	Name string
	Size int
}

// Producer is a line of the producers section: field is "language", "sdk" or
// "processed-by".
type Producer struct {
	Field, Name, Version string
}

// ErrNotWASM says that the bytes are no module of any kind.
var ErrNotWASM = errors.New("not a WASM module")

// Bounds, each beyond what compilers make.
const (
	maxListed = 100_000 // imports, exports, custom sections
	maxName   = 4 << 10
	maxNotes  = 1_000 // producers
)

// Read reads a module. With an error comes what was read before it.
func Read(module []byte) (Module, error) {
	var m Module
	if len(module) < 8 || string(module[:4]) != "\x00asm" {
		return m, ErrNotWASM
	}
	if module[6] == 1 { // the layer
		m.Component = true
		return m, nil
	}
	if string(module[4:8]) != "\x01\x00\x00\x00" {
		return m, fmt.Errorf("WASM version %x is not known", module[4:8])
	}
	r := &reader{b: module, at: 8}
	for r.left() > 0 && r.err == nil {
		start := r.at
		id := r.byte()
		body := &reader{b: r.bytes(r.u32())}
		if r.err == nil {
			m.section(id, body)
			r.fail(body.err)
		}
		if r.err != nil {
			return m, fmt.Errorf("read section %d at byte %d: %w", id, start, r.err)
		}
	}
	return m, nil
}

func (m *Module) section(id byte, r *reader) {
	switch id {
	case 0:
		m.custom(r)
	case 2:
		for range r.count(maxListed) {
			m.Imports = append(m.Imports, m.readImport(r))
			if r.err != nil {
				return
			}
		}
	case 3:
		m.Functions = r.count(len(r.b))
	case 5:
		if r.count(1<<10) > 0 && m.Memory == nil {
			m.Memory = r.memory()
		}
	case 7:
		for range r.count(maxListed) {
			m.Exports = append(m.Exports, Export{r.name(), Kind(r.byte())})
			r.u32()
			if r.err != nil {
				return
			}
		}
	case 10:
		m.CodeBytes = len(r.b)
	case 11:
		m.DataBytes = len(r.b)
	}
}

func (m *Module) readImport(r *reader) Import {
	i := Import{Module: r.name(), Name: r.name(), Kind: Kind(r.byte())}
	switch i.Kind {
	case Function:
		r.u32()
	case Table:
		r.byte()
		r.memory()
	case MemoryKind:
		if memory := r.memory(); m.Memory == nil {
			m.Memory = memory
		}
	case Global:
		r.bytes(2)
	case Tag:
		r.byte()
		r.u32()
	default:
		r.fail(fmt.Errorf("import kind %d is not known", i.Kind))
	}
	return i
}

func (m *Module) custom(r *reader) {
	name := r.name()
	if len(m.Custom) >= maxListed {
		r.fail(errors.New("too many custom sections"))
		return
	}
	m.Custom = append(m.Custom, Custom{name, r.left()})
	// What is wrong inside of a custom section is no fault of the module's.
	notes := &reader{b: r.b, at: r.at, err: r.err}
	switch name {
	case "producers":
		m.producers(notes)
	case "name":
		for notes.left() > 0 && notes.err == nil {
			id := notes.byte()
			names := &reader{b: notes.bytes(notes.u32())}
			m.Named = m.Named || id == 1 && names.count(len(names.b)) > 0
		}
	}
}

func (m *Module) producers(r *reader) {
	for range r.count(maxNotes) {
		field := r.name()
		for range r.count(maxNotes) {
			p := Producer{field, r.name(), r.name()}
			if r.err != nil || len(m.Producers) >= maxNotes {
				return
			}
			m.Producers = append(m.Producers, p)
		}
	}
}
