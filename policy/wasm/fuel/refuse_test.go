package fuel

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tetratelabs/wazero"
)

func TestRefusals(t *testing.T) {
	code := func(parts ...any) []byte { return assembly{funcs: []function{{code: cat(parts...)}}}.bytes() }
	good := code(get(0))
	for _, test := range []struct {
		name   string
		module []byte
		want   string
	}{
		{"nothing", nil, "not a WASM module"},
		{"text", []byte("(module)"), "not a WASM module"},
		{"a component", []byte("\x00asm\x0d\x00\x01\x00"), "this is a component (WASI 0.2), not a core module: build it for wasip1 or wasm32-unknown-unknown"},
		{"another version", []byte("\x00asm\x02\x00\x00\x00"), "WASM version 02000000 is not known"},
		{"a cut module", good[:len(good)-3], "read section at byte"},
		{"a section twice", append(good, good[8:]...), "a section stands out of order or twice"},
		{"an unknown section", append([]byte(header), 77, 0), "section 77 is not known"},
		{"a count without items", append([]byte(header), 1, 2, 0xff, 0x7f), "read type section, byte 2: unexpected end"},
		{"shared memory", assembly{memory: []byte{3, 1, 2}}.bytes(), "it uses threads (shared memory), which is not supported"},
		{"64-bit memory", assembly{memory: []byte{4, 1}}.bytes(), "it uses 64-bit memory, which is not supported"},
		{"atomics", code(get(0), 0xfe, 0x10, 2, 0), "function 0: byte 4: it uses threads (atomic instructions), which is not supported"},
		{"tail calls", code(get(0), 0x12, 0), "it uses tail calls, which is not supported"},
		{"exceptions", code(0x06, typeVoid, opEnd, get(0)), "it uses exception handling, which is not supported"},
		{"exception tags", append([]byte(header), 13, 0), "it uses exception handling, which is not supported"},
		{"garbage collection", code(0xfb, 1), "it uses garbage collection, which is not supported"},
		{"types for garbage collection", assembly{types: [][]byte{{0x5f, 0}}}.bytes(), "it uses garbage collection, which is not supported"},
		{"function references", code(get(0), 0x14, 0), "it uses typed function references, which is not supported"},
		{"relaxed SIMD", code(opPrefixSIMD, 0x80, 2), "it uses relaxed SIMD, which is not supported"},
		{"a second memory", code(get(0), 0x2d, 0x40, 0, 0), "it uses several memories, which is not supported"},
		{"an unknown instruction", code(0x27), "instruction 0x27 is not known"},
		{"too much memory", assembly{memory: []byte{0, 0x81, 2}}.bytes(), "its memory needs 257 pages of 64 KiB: at most 256 are allowed"},
		{"too large a table", assembly{tables: [][]byte{{0x70, 0, 0x80, 0x80, 0x10}}}.bytes(), "a table needs 262144 elements: at most 131072 are allowed"},
		{"imported memory", assembly{imports: [][]byte{cat(3, []byte("env"), 1, []byte("m"), 2, 0, 1)}}.bytes(),
			"import env.m is a memory: only functions can be imported"},
		{"too many locals", assembly{funcs: []function{{locals: cat(1, 0xff, 0xff, 0xff, 0xff, 0x0f, i32), code: get(0)}}}.bytes(),
			"4294967296 locals: at most 50000 are allowed"},
		{"code after the end", code(get(0), opEnd, get(0)), "code goes on after its end"},
		{"a block too many", code(bytes.Repeat([]byte{opI32Const, 0, opIf, typeVoid, opEnd}, 30_000), get(0)),
			"its blocks are too many, or too deep, to be compiled"},
		{"loops too deep", code(bytes.Repeat([]byte{opLoop, typeVoid}, 6_000), bytes.Repeat([]byte{opEnd}, 6_000), get(0)),
			"its blocks are too many, or too deep, to be compiled"},
		{"labels too many", code(opBlock, typeVoid, get(0), opBrTable, appendU32(nil, 100_000), make([]byte, 100_001), opEnd, get(0)),
			"its blocks are too many, or too deep, to be compiled"},
		{"else without if", code(opElse, get(0)), "else without if"},
		{"a branch to nowhere", code(opBr, 1), "a branch to a block that is not there"},
		{"a block type from nowhere", code(opBlock, 9, opEnd), "block type 9 of 1"},

		// What would reach the things that are added.
		{"reading the tank", code(opGlobalGet, 0, drop, get(0)), "a global that is not there"},
		{"filling the tank", code(opI64Const, 1, opGlobalSet, 0, get(0)), "a global that is not there"},
		{"a tank in a longer number", code(opGlobalGet, 0x80, 0x80, 0, drop, get(0)), "a global that is not there"},
		{"using the added local", code(opLocalGet, 1, drop, get(0)), "a local that is not there"},
		{"exporting the tank", assembly{exports: [][]byte{append(appendName(nil, "t"), 3, 0)}}.bytes(), `export "t" is global 0 of 0`},
		{"taking the tank's name", assembly{globals: [][]byte{cat(i64, 1, opI64Const, 0, opEnd)},
			exports: [][]byte{append(appendName(nil, Global), 3, 0)}}.bytes(), `the export "weir:fuel" is reserved`},
		{"a constant from the tank", assembly{globals: [][]byte{cat(i64, 1, opGlobalGet, 0, opEnd)}}.bytes(), "a constant reads a global"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := Rewrite(test.module, Limits{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
	if _, _, err := Rewrite(good, Limits{ModuleBytes: 10}); err == nil || !strings.Contains(err.Error(), "at most 10 are allowed") {
		t.Errorf("too long a module: %v", err)
	}
}

func TestWhatAModuleSaysAboutItself(t *testing.T) {
	module := assembly{
		memory:  []byte{0, 5},
		imports: [][]byte{cat(3, []byte("env"), 3, []byte("log"), 0, 0)},
		funcs:   []function{{code: get(0)}, {code: get(0)}},
	}.bytes()
	_, got, err := Rewrite(module, Limits{})
	want := &Module{Imports: []Import{{"env", "log"}}, Exports: []string{"f", "g"}, HasMemory: true, MinPages: 5, Functions: 2}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestMemoryAndTablesGrowNoFurtherThanAllowed(t *testing.T) {
	grow := cat(opRefNull, 0x70, get(0), opPrefixMisc, 15, 0, opBlock, i32, get(0), opMemoryGrow, 0, opEnd, add)
	a := assembly{memory: []byte{0, 1}, tables: [][]byte{{0x70, 0, 1}}, funcs: []function{{code: grow}}}
	out, _, err := Rewrite(a.bytes(), Limits{MemoryPages: 4, TableElements: 4})
	if err != nil {
		t.Fatal(err)
	}
	i := newEngine(t, wazero.NewRuntimeConfigCompiler()).start(out)
	for _, want := range []string{"[2]", "[4294967294]"} { // 1+1, then -1-1
		if got, _ := i.call("f", 1<<40, 3); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// FuzzRewrite: no bytes make it panic, and what it accepts the engine accepts
// exactly when it accepts the original.
func FuzzRewrite(f *testing.F) {
	for _, a := range corpus() {
		f.Add(a.bytes())
	}
	f.Add([]byte("\x00asm\x0d\x00\x01\x00"))
	e := newEngine(f, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(256))
	f.Fuzz(func(t *testing.T, module []byte) {
		out, _, err := Rewrite(module, Limits{})
		if err != nil {
			return
		}
		before, after := e.validate(module), e.validate(out)
		if before == nil && after != nil {
			t.Errorf("valid before; after: %v", after)
		}
		if before != nil && after == nil && strings.HasPrefix(before.Error(), "invalid function") {
			t.Errorf("valid only after; before: %v", before)
		}
		if _, _, err := Rewrite(out, Limits{}); err == nil {
			t.Error("a module can be rewritten twice: its export is not reserved")
		}
	})
}

func (e engine) validate(module []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("the engine panics")
		}
	}()
	compiled, err := e.rt.CompileModule(context.Background(), module)
	if err == nil {
		err = compiled.Close(context.Background())
	}
	return err
}
