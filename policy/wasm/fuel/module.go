package fuel

import (
	"fmt"
)

// The sections, in the order in which they must stand.
const (
	secCustom    = 0
	secType      = 1
	secImport    = 2
	secFunction  = 3
	secTable     = 4
	secMemory    = 5
	secGlobal    = 6
	secExport    = 7
	secStart     = 8
	secElement   = 9
	secCode      = 10
	secData      = 11
	secDataCount = 12
	secTag       = 13
)

// sections is the order of the sections by id, and what errors call them.
var sections = [...]struct {
	order int
	name  string
}{
	secCustom:    {0, "custom"},
	secType:      {1, "type"},
	secImport:    {2, "import"},
	secFunction:  {3, "function"},
	secTable:     {4, "table"},
	secMemory:    {5, "memory"},
	secGlobal:    {6, "global"},
	secExport:    {7, "export"},
	secStart:     {8, "start"},
	secElement:   {9, "element"},
	secDataCount: {10, "data count"},
	secCode:      {11, "code"},
	secData:      {12, "data"},
}

const (
	orderGlobal = 6
	orderExport = 7
	orderEnd    = 13
)

// rewriter copies a module section by section and changes what must change.
type rewriter struct {
	limits Limits
	in     reader
	out    []byte
	about  Module

	order     int   // of the last section that was not custom
	params    []int // by type
	functions []uint32
	codes     int
	globals   uint32 // the module's own; the tank comes after them
	locals    int    // of all functions
	work      uint64 // of all functions
	named     bool   // a name section has been seen

	code coder
}

func (m *rewriter) run() error {
	for m.in.left() > 0 && m.in.err == nil {
		start := m.in.at
		id := m.in.byte()
		size := m.in.u32()
		body := m.in.bytes(int(size))
		if m.in.err != nil {
			return fmt.Errorf("read section at byte %d: %w", start, m.in.err)
		}
		if err := m.section(id, body); err != nil {
			return err
		}
	}
	if err := m.advance(orderEnd); err != nil {
		return err
	}
	if m.codes != len(m.functions) {
		return fmt.Errorf("%d functions are declared, %d have code", len(m.functions), m.codes)
	}
	return nil
}

// advance passes the places where a section is made that the module lacks.
func (m *rewriter) advance(order int) error {
	if order <= m.order {
		return fmt.Errorf("a section stands out of order or twice")
	}
	if m.order < orderGlobal && order > orderGlobal {
		m.emit(secGlobal, m.globalSection(nil, 0))
	}
	if m.order < orderExport && order > orderExport {
		m.emit(secExport, m.exportSection(nil, 0))
	}
	m.order = order
	return nil
}

func (m *rewriter) section(id byte, body []byte) error {
	if id == secTag {
		return errFeature("exception handling")
	}
	if int(id) >= len(sections) {
		return fmt.Errorf("section %d is not known", id)
	}
	if id != secCustom {
		if err := m.advance(sections[id].order); err != nil {
			return err
		}
	}
	r := &reader{b: body}
	rewritten := m.rewriteSection(id, r)
	if r.err == nil && r.left() > 0 {
		r.failf("%d bytes too many", r.left())
	}
	if r.err != nil {
		return fmt.Errorf("read %s section, byte %d: %w", sections[id].name, r.at, r.err)
	}
	if rewritten != nil {
		m.emit(id, rewritten)
	}
	return nil
}

func (m *rewriter) emit(id byte, body []byte) {
	m.out = append(m.out, id)
	m.out = appendU32(m.out, uint32(len(body)))
	m.out = append(m.out, body...)
}

// rewriteSection returns the section's new content, nil to leave it out.
func (m *rewriter) rewriteSection(id byte, r *reader) []byte {
	switch id {
	case secCustom:
		return m.custom(r)
	case secType:
		m.types(r)
	case secImport:
		m.imports(r)
	case secFunction:
		m.declare(r)
	case secTable:
		return m.tableSection(r)
	case secMemory:
		return m.memorySection(r)
	case secGlobal:
		count := m.readGlobals(r)
		return m.globalSection(r.b, count)
	case secExport:
		count := m.exports(r)
		return m.exportSection(r.b, count)
	case secStart:
		r.u32()
	case secElement:
		m.elements(r)
	case secDataCount:
		r.u32()
	case secCode:
		return m.codeSection(r)
	case secData:
		m.data(r)
	}
	return r.b
}

func (m *rewriter) types(r *reader) {
	for range r.count("types", maxTypes) {
		switch form := r.byte(); form {
		case 0x60:
		case 0x4e, 0x4f, 0x50, 0x5e, 0x5f:
			r.fail(errFeature("garbage collection"))
		default:
			r.failf("type form %#x is not known", form)
		}
		m.params = append(m.params, skipTypes(r, "parameters"))
		skipTypes(r, "results")
		if r.err != nil {
			return
		}
	}
}

func skipTypes(r *reader, what string) int {
	n := r.count(what, maxArity)
	for range n {
		valueType(r)
	}
	return n
}

func valueType(r *reader) {
	switch t := r.byte(); t {
	case 0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f: // i32 i64 f32 f64 v128 funcref externref
	case 0x69:
		r.fail(errFeature("exception handling"))
	case 0x63, 0x64:
		r.fail(errFeature("typed function references"))
	default:
		r.failf("value type %#x is not known", t)
	}
}

func (m *rewriter) imports(r *reader) {
	for range r.count("imports", maxImports) {
		module, name := r.name(), r.name()
		switch kind := r.byte(); {
		case r.err != nil:
		case kind == 0:
			if t := r.u32(); int64(t) >= int64(len(m.params)) {
				r.failf("import %s.%s has type %d of %d", module, name, t, len(m.params))
			}
		case kind <= 4:
			kinds := [...]string{1: "table", "memory", "global", "tag"}
			r.failf("import %s.%s is a %s: only functions can be imported", module, name, kinds[kind])
		default:
			r.failf("import kind %d is not known", kind)
		}
		if r.err != nil {
			return
		}
		m.about.Imports = append(m.about.Imports, Import{Module: module, Name: name})
	}
}

func (m *rewriter) declare(r *reader) {
	n := r.count("functions", maxFunctions)
	m.functions = make([]uint32, n)
	m.about.Functions = n
	for i := range m.functions {
		t := r.u32()
		if r.err == nil && int64(t) >= int64(len(m.params)) {
			r.failf("function %d has type %d of %d", i, t, len(m.params))
		}
		if r.err != nil {
			return
		}
		m.functions[i] = t
	}
}

func (m *rewriter) tableSection(r *reader) []byte {
	n := r.count("tables", maxTables)
	out := appendU32(nil, uint32(n))
	for range n {
		kind := r.byte()
		if kind != 0x70 && kind != 0x6f {
			r.failf("a table of type %#x is not known", kind)
		}
		out = append(out, kind)
		out = capLimits(r, out, "a table", m.limits.TableElements, "elements")
		if r.err != nil {
			return nil
		}
	}
	return out
}

func (m *rewriter) memorySection(r *reader) []byte {
	if r.count("memories", 1) == 0 {
		return r.b
	}
	before := r.at
	out := capLimits(r, []byte{1}, "its memory", m.limits.MemoryPages, "pages of 64 KiB")
	peek := reader{b: r.b, at: before + 1}
	m.about.HasMemory, m.about.MinPages = true, peek.u32()
	return out
}

// capLimits copies limits with the maximum lowered to what is allowed.
func capLimits(r *reader, out []byte, what string, allowed uint32, unit string) []byte {
	flags := r.byte()
	switch {
	case flags == 2 || flags == 3:
		r.fail(errFeature("threads (shared memory)"))
	case flags > 1:
		r.fail(errFeature("64-bit memory"))
	}
	least, most := r.u32(), allowed
	if flags == 1 {
		if declared := r.u32(); declared < least {
			r.failf("%s is at least %d and at most %d %s", what, least, declared, unit)
		} else {
			most = min(declared, allowed)
		}
	}
	if r.err == nil && least > allowed {
		r.failf("%s needs %d %s: at most %d are allowed", what, least, unit, allowed)
	}
	return appendU32(appendU32(append(out, 1), least), most)
}

func (m *rewriter) readGlobals(r *reader) int {
	n := r.count("globals", maxGlobals)
	for range n {
		valueType(r)
		if mutable := r.byte(); mutable > 1 {
			r.failf("mutability %d is not known", mutable)
		}
		constant(r)
		if r.err != nil {
			return 0
		}
	}
	m.globals = uint32(n)
	return n
}

// globalSection is the module's own globals and the tank. It is made full
// enough for a start function that does little; the host fills it before calls.
func (m *rewriter) globalSection(own []byte, count int) []byte {
	out := appendU32(nil, uint32(count)+1)
	out = appendRest(out, own)
	out = append(out, 0x7e, 1, opI64Const) // a mutable i64
	return append(appendS64(out, startFuel), opEnd)
}

// startFuel is for the start function, which runs before the host can fill the
// tank. It is part of the rewritten bytes, so it is the same for every policy.
const startFuel = 10_000_000

// appendRest appends a section's content without its leading count.
func appendRest(out, own []byte) []byte {
	if own == nil {
		return out
	}
	r := reader{b: own}
	r.u32()
	return append(out, own[r.at:]...)
}

func (m *rewriter) exports(r *reader) int {
	n := r.count("exports", maxExports)
	for range n {
		name, kind, index := r.name(), r.byte(), r.u32()
		switch {
		case r.err != nil:
			return 0
		case name == Global:
			r.failf("the export %q is reserved", Global)
		case kind == 0:
			m.about.Exports = append(m.about.Exports, name)
		case kind == 3 && index >= m.globals:
			r.failf("export %q is global %d of %d", name, index, m.globals)
		case kind > 3:
			r.fail(errFeature("exception handling"))
		}
		if r.err != nil {
			return 0
		}
	}
	return n
}

func (m *rewriter) exportSection(own []byte, count int) []byte {
	out := appendU32(nil, uint32(count)+1)
	out = appendRest(out, own)
	out = append(appendName(out, Global), 3)
	return appendU32(out, m.globals)
}

func (m *rewriter) codeSection(r *reader) []byte {
	m.codes = r.count("functions", maxFunctions)
	if m.codes != len(m.functions) {
		r.failf("%d functions are declared, %d have code", len(m.functions), m.codes)
		return nil
	}
	out := make([]byte, 0, len(r.b)+len(r.b)/3)
	out = appendU32(out, uint32(m.codes))
	m.code.tank, m.code.types = m.globals, uint32(len(m.params))
	for i := range m.codes {
		size := r.u32()
		if size > maxBody {
			r.failf("function %d has %d bytes: at most %d are allowed", i, size, maxBody)
		}
		body := r.bytes(int(size))
		if r.err != nil {
			return nil
		}
		charged, err := m.code.charge(body, m.params[m.functions[i]])
		if m.locals += int(m.code.locals); m.locals > maxAllLocals {
			r.failf("more than %d locals in all", maxAllLocals)
			return nil
		}
		if err != nil {
			r.failf("function %d: %w", len(m.about.Imports)+i, err)
			return nil
		}
		if m.work += m.code.work; m.work > maxWork {
			r.failf("function %d: its blocks are too many, or too deep, to be compiled", len(m.about.Imports)+i)
			return nil
		}
		out = appendU32(out, uint32(len(charged)))
		out = append(out, charged...)
	}
	return out
}
