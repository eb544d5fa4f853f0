package fuel

import "unicode/utf8"

// Element and data segments, constant expressions and the name section: read to
// be sure of their bounds, and otherwise copied.

// constant reads an initialiser. Globals cannot be read in one, because only
// imported ones could be and none can be imported.
func constant(r *reader) {
	for r.err == nil {
		switch op := r.byte(); op {
		case opEnd:
			return
		case opI32Const:
			r.skipLEB(5)
		case opI64Const:
			r.skipLEB(10)
		case opF32Const:
			r.bytes(4)
		case opF64Const:
			r.bytes(8)
		case opRefNull:
			heapType(r)
		case opRefFunc:
			r.u32()
		case opPrefixSIMD:
			if sub := r.byte(); sub != 12 {
				r.failf("SIMD instruction %d is not constant", sub)
			}
			r.bytes(16)
		case opGlobalGet:
			r.failf("a constant reads a global")
		case 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e:
			r.fail(errFeature("extended constant expressions"))
		default:
			r.failf("instruction %#x is not constant", op)
		}
	}
}

func heapType(r *reader) {
	if t := r.byte(); t != 0x70 && t != 0x6f && r.err == nil {
		r.fail(errFeature("typed function references"))
	}
}

// elements reads the segments that fill tables. The low bits of a segment's
// kind say: 1 passive or declarative, 2 with a table or declarative, 4 made of
// expressions.
func (m *rewriter) elements(r *reader) {
	for range r.count("element segments", maxSegments) {
		kind := r.u32()
		if kind > 7 {
			r.failf("element segment of kind %d is not known", kind)
		}
		if kind&1 == 0 {
			if kind&2 != 0 {
				r.u32()
			}
			constant(r)
		}
		if kind&3 != 0 {
			elementType(r, kind&4 != 0)
		}
		for range r.count("elements", maxSegmentItems) {
			if kind&4 != 0 {
				constant(r)
			} else {
				r.u32()
			}
			if r.err != nil {
				return
			}
		}
		if r.err != nil {
			return
		}
	}
}

const maxSegmentItems = 1 << 22

func elementType(r *reader, typed bool) {
	if typed {
		heapType(r)
	} else if kind := r.byte(); kind != 0 {
		r.failf("elements of kind %d are not known", kind)
	}
}

func (m *rewriter) data(r *reader) {
	for range r.count("data segments", maxSegments) {
		kind := r.u32()
		switch {
		case kind > 2:
			r.failf("data segment of kind %d is not known", kind)
		case kind == 2 && r.u32() != 0:
			r.fail(errFeature("several memories"))
		case kind != 1:
			constant(r)
		}
		r.bytes(int(r.u32()))
		if r.err != nil {
			return
		}
	}
}

// custom keeps of the custom sections the names of functions, which make traps
// readable. A name section that is broken is left out, as the specification
// asks; so is all else: debug information, build notes.
func (m *rewriter) custom(r *reader) []byte {
	name := r.name()
	content := reader{b: r.b, at: r.at}
	r.bytes(r.left())
	if r.err != nil || name != "name" || m.named {
		return nil
	}
	for content.left() > 0 {
		id := content.byte()
		names := content.bytes(int(content.u32()))
		if content.err != nil {
			return nil
		}
		if id == 1 && validNames(names) {
			m.named = true
			out := append(appendName(nil, "name"), 1)
			return append(appendU32(out, uint32(len(names))), names...)
		}
	}
	return nil
}

func validNames(b []byte) bool {
	r := reader{b: b}
	for range r.count("names", maxFunctions+maxImports) {
		r.u32()
		if name := r.name(); r.err != nil || !utf8.ValidString(name) {
			return false
		}
	}
	return r.err == nil && r.left() == 0
}
