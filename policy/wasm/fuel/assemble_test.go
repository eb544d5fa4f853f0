package fuel

// A small assembler: tests are easier to read as code than as bytes.

const (
	i32 = 0x7f
	i64 = 0x7e
)

// assembly is a module of functions that all have type i32 → i32 unless said
// otherwise. Function i is exported as "f", "g", "h", ….
type assembly struct {
	types     [][]byte // whole types; type 0 is i32 → i32
	imports   [][]byte
	funcs     []function
	tables    [][]byte
	memory    []byte
	globals   [][]byte
	exports   [][]byte
	start     []byte
	elements  [][]byte
	dataCount []byte
	data      [][]byte
	custom    []byte
}

type function struct {
	typ    byte
	locals []byte // groups, with their count
	code   []byte // without the last end
}

func (a assembly) bytes() []byte {
	out := []byte(header)
	section := func(id byte, items [][]byte) {
		if len(items) > 0 {
			out = appendSection(out, id, vector(items))
		}
	}
	section(secType, append([][]byte{{0x60, 1, i32, 1, i32}}, a.types...))
	section(secImport, a.imports)
	var types, codes [][]byte
	exports := a.exports
	for i, f := range a.funcs {
		types = append(types, []byte{f.typ})
		body := f.locals
		if body == nil {
			body = []byte{0}
		}
		body = append(append([]byte(nil), body...), f.code...)
		body = append(body, opEnd)
		codes = append(codes, append(appendU32(nil, uint32(len(body))), body...))
		exports = append(exports, append(appendName(nil, string(rune('f'+i))), 0, byte(len(a.imports)+i)))
	}
	section(secFunction, types)
	section(secTable, a.tables)
	if a.memory != nil {
		section(secMemory, [][]byte{a.memory})
	}
	section(secGlobal, a.globals)
	section(secExport, exports)
	if a.start != nil {
		out = appendSection(out, secStart, a.start)
	}
	section(secElement, a.elements)
	if a.dataCount != nil {
		out = appendSection(out, secDataCount, a.dataCount)
	}
	section(secCode, codes)
	section(secData, a.data)
	if a.custom != nil {
		out = appendSection(out, secCustom, a.custom)
	}
	return out
}

func appendSection(out []byte, id byte, body []byte) []byte {
	out = appendU32(append(out, id), uint32(len(body)))
	return append(out, body...)
}

func vector(items [][]byte) []byte {
	out := appendU32(nil, uint32(len(items)))
	for _, item := range items {
		out = append(out, item...)
	}
	return out
}

// cat joins pieces of code: bytes, slices and small numbers.
func cat(parts ...any) []byte {
	var out []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			out = append(out, byte(p))
		case []byte:
			out = append(out, p...)
		}
	}
	return out
}

func constI32(v int) []byte { return appendS64([]byte{opI32Const}, int64(v)) }

func get(i int) []byte { return []byte{opLocalGet, byte(i)} }
func set(i int) []byte { return []byte{opLocalSet, byte(i)} }

const (
	add    = 0x6a
	sub    = 0x6b
	mul    = 0x6c
	eqz    = 0x45
	gtS    = 0x4a
	call   = 0x10
	drop   = 0x1a
	load8  = 0x2d
	store8 = 0x3a
)
