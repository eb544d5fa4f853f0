// Package fuel rewrites a WASM module so that every call into it ends.
//
// A guest that loops cannot be preempted, and the next garbage collection would
// stop the whole process until it returns. So the module is made to count: it
// gets one global of its own, [Global], an i64 that the host fills before a call
// and that every path through the code draws from. Below zero it traps.
//
//	module ─▶ read sections ─▶ check ─▶ charge each function ─▶ module
//
// # What is charged
//
// Code between two charges runs forward only, so it is charged for as a whole,
// at its start: at every function's entry and every loop's header, where the
// tank is also looked at, and where paths of different price meet (code.go says
// exactly where). An instruction costs 1, dear ones more, and what works on a
// length (memory.fill, table.copy, …) charges for the length before it starts.
// Nothing depends on time or on the machine: the same call burns the same fuel
// everywhere, to the unit.
//
// Between two looks at the tank no more code can run than one function is long,
// so the tank may be overdrawn by that much. The trap reads "unreachable"; that
// the global is negative tells it from others.
//
// # What is checked
//
// Rewriting is the first reading of foreign bytes, so it trusts nothing: every
// count is held against the bytes that are left before memory is taken, and
// against [Limits]. It knows WASM 2.0 (with sign extension, saturating
// truncation, bulk memory, reference types, multiple values, SIMD) and refuses
// later proposals by name. It does not check types: the engine does that, and
// finds the rewritten module valid exactly when the original was. For this to
// hold, and for the tank to be out of the guest's reach, every index that the
// module could use to name what is added is checked here: globals, locals,
// exports.
//
// The engine's decoder is not the specification's in all corners. Where they
// differ (the opcodes of SIMD are one byte for it) only encodings that both read
// alike are accepted.
package fuel

import (
	"errors"
	"fmt"
)

// Global is the name under which a rewritten module exports its tank.
const Global = "weir:fuel"

// PageSize is the unit of linear memory.
const PageSize = 64 << 10

// Limits bounds a module. Zero values mean the defaults.
type Limits struct {
	// ModuleBytes bounds the module itself. Default 32 MiB.
	ModuleBytes int
	// MemoryPages bounds the linear memory, in pages of 64 KiB. Default 256.
	// A module that needs more at its start is refused; one that may grow
	// further is rewritten not to.
	MemoryPages uint32
	// TableElements bounds every table in the same manner. Default 131,072.
	TableElements uint32
}

func (l Limits) withDefaults() Limits {
	if l.ModuleBytes == 0 {
		l.ModuleBytes = 32 << 20
	}
	if l.MemoryPages == 0 {
		l.MemoryPages = 256
	}
	if l.TableElements == 0 {
		l.TableElements = 1 << 17
	}
	return l
}

// Fixed bounds, each beyond what compilers make and below what hurts.
const (
	maxTypes      = 20_000
	maxArity      = 1_000
	maxImports    = 2_000
	maxFunctions  = 200_000
	maxGlobals    = 50_000
	maxTables     = 16
	maxExports    = 50_000
	maxSegments   = 100_000
	maxBody       = 4 << 20
	maxLocals     = 50_000
	maxAllLocals  = 4 << 20
	maxDepth      = 50_000
	maxNameLength = 4 << 10
	// maxWork bounds what the engine has to do to compile a module beyond what
	// its length says, in units of about 20 ns: see coder.work. Ten times as much
	// as the largest programs of stock Go need.
	maxWork = 500_000_000
)

// ErrNotWASM says that the bytes are no module of any kind.
var ErrNotWASM = errors.New("not a WASM module")

// Module is what a module says about itself.
type Module struct {
	Imports []Import
	// Exports are the names of the exported functions.
	Exports []string
	// HasMemory and MinPages describe its linear memory.
	HasMemory bool
	MinPages  uint32
	// Functions counts those it defines.
	Functions int
}

// Import is a function that the module asks for.
type Import struct {
	Module, Name string
}

// Rewrite returns the module with its fuel, and what it says about itself. The
// original is not changed and not kept.
func Rewrite(module []byte, limits Limits) ([]byte, *Module, error) {
	limits = limits.withDefaults()
	if err := checkHeader(module, limits); err != nil {
		return nil, nil, err
	}
	m := &rewriter{limits: limits, in: reader{b: module, at: len(header)}}
	// Charges make small modules about a quarter larger, large ones less.
	m.out = make([]byte, 0, len(module)+len(module)/3+64)
	m.out = append(m.out, header...)
	if err := m.run(); err != nil {
		return nil, nil, err
	}
	return m.out, &m.about, nil
}

const header = "\x00asm\x01\x00\x00\x00"

func checkHeader(module []byte, limits Limits) error {
	if len(module) < len(header) || string(module[:4]) != header[:4] {
		return ErrNotWASM
	}
	if len(module) > limits.ModuleBytes {
		return fmt.Errorf("module has %d bytes: at most %d are allowed", len(module), limits.ModuleBytes)
	}
	switch version := string(module[4:8]); {
	case version == header[4:]:
		return nil
	case module[6] == 1:
		return errors.New("this is a component (WASI 0.2), not a core module: build it for wasip1 or wasm32-unknown-unknown")
	default:
		return fmt.Errorf("WASM version %x is not known", version)
	}
}
