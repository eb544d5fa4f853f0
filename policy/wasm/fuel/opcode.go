package fuel

import "fmt"

// The opcodes that this package names.
const (
	opUnreachable = 0x00
	opBlock       = 0x02
	opLoop        = 0x03
	opIf          = 0x04
	opElse        = 0x05
	opEnd         = 0x0b
	opBr          = 0x0c
	opBrIf        = 0x0d
	opBrTable     = 0x0e
	opReturn      = 0x0f
	opLocalGet    = 0x20
	opLocalSet    = 0x21
	opLocalTee    = 0x22
	opGlobalGet   = 0x23
	opGlobalSet   = 0x24
	opMemoryGrow  = 0x40
	opI32Const    = 0x41
	opI64Const    = 0x42
	opF32Const    = 0x43
	opF64Const    = 0x44
	opI64LtS      = 0x53
	opI64Sub      = 0x7d
	opI64ShrU     = 0x88
	opI64ExtendU  = 0xad
	opRefNull     = 0xd0
	opRefFunc     = 0xd2
	opPrefixMisc  = 0xfc
	opPrefixSIMD  = 0xfd

	typeVoid = 0x40
)

// immediate is what follows an opcode.
type immediate uint8

const (
	immUnknown immediate = iota
	immNone
	immBlock        // a block type
	immLabel        // a label
	immTable        // br_table's labels
	immIndex        // an index that the engine checks
	immCallIndirect // a type and a table
	immTypes        // the type of a select
	immLocal
	immGlobal
	immMemArg // alignment and offset
	immMemory // the memory's index, which is one zero byte
	immI32
	immI64
	immF32
	immF64
	immRefType
	immMisc
	immSIMD
)

// operation is what the rewriter knows of an instruction.
type operation struct {
	imm immediate
	// cost is in fuel; what only gives structure is free.
	cost uint8
}

// Costs beyond 1, roughly in proportion to what the machine needs.
const (
	costCallIndirect = 4
	costDivide       = 8
	costRoot         = 8
	costGrow         = 200 // leaves the compiled code
	costReference    = 20  // likewise
	// A call is charged for in the function called, so that recursion is.
	costEntry = 8
	// costLocals spreads the price of clearing locals and of a larger frame.
	costLocals = 4 // locals per unit
)

var operations = func() (ops [256]operation) {
	set := func(imm immediate, cost uint8, from, to int) {
		for op := from; op <= to; op++ {
			ops[op] = operation{imm, cost}
		}
	}
	set(immNone, 1, 0x00, 0x01)
	set(immBlock, 0, opBlock, opLoop)
	set(immBlock, 1, opIf, opIf)
	set(immNone, 0, opElse, opElse)
	set(immNone, 0, opEnd, opEnd)
	set(immLabel, 1, opBr, opBrIf)
	set(immTable, 2, opBrTable, opBrTable)
	set(immNone, 1, opReturn, opReturn)
	set(immIndex, 1, 0x10, 0x10)
	set(immCallIndirect, costCallIndirect, 0x11, 0x11)
	set(immNone, 1, 0x1a, 0x1b)
	set(immTypes, 1, 0x1c, 0x1c)
	set(immLocal, 1, opLocalGet, opLocalTee)
	set(immGlobal, 1, opGlobalGet, opGlobalSet)
	set(immIndex, 2, 0x25, 0x26) // table.get, table.set
	set(immMemArg, 1, 0x28, 0x3e)
	set(immMemory, 1, 0x3f, 0x3f)
	set(immMemory, costGrow, opMemoryGrow, opMemoryGrow)
	set(immI32, 1, opI32Const, opI32Const)
	set(immI64, 1, opI64Const, opI64Const)
	set(immF32, 1, opF32Const, opF32Const)
	set(immF64, 1, opF64Const, opF64Const)
	set(immNone, 1, 0x45, 0xc4)
	for _, divide := range []int{0x6d, 0x6e, 0x6f, 0x70, 0x7f, 0x80, 0x81, 0x82, 0x95, 0xa3} {
		ops[divide].cost = costDivide
	}
	ops[0x91].cost, ops[0x9f].cost = costRoot, costRoot
	set(immRefType, 1, opRefNull, opRefNull)
	set(immNone, 1, 0xd1, 0xd1)
	set(immIndex, costReference, opRefFunc, opRefFunc)
	set(immMisc, 0, opPrefixMisc, opPrefixMisc)
	set(immSIMD, 1, opPrefixSIMD, opPrefixSIMD)
	return ops
}()

// errFeature refuses a proposal by its name.
type errFeature string

func (e errFeature) Error() string { return "it uses " + string(e) + ", which is not supported" }

// unknown names the proposal that an opcode belongs to.
func unknown(op byte) error {
	switch {
	case op >= 0x06 && op <= 0x0a, op == 0x18, op == 0x19, op == 0x1f:
		return errFeature("exception handling")
	case op == 0x12 || op == 0x13:
		return errFeature("tail calls")
	case op == 0x14 || op == 0x15 || op >= 0xd3 && op <= 0xd6:
		return errFeature("typed function references")
	case op == 0xfb:
		return errFeature("garbage collection")
	case op == 0xfe:
		return errFeature("threads (atomic instructions)")
	}
	return fmt.Errorf("instruction %#x is not known", op)
}

// bulk is an instruction that works on as many bytes or elements as its last
// operand says.
type bulk struct {
	// shift makes fuel of the operand: one unit for 1<<shift of them.
	shift uint8
	on    bool
}

// Moving 4 bytes of memory that is not in a cache takes about as long as a
// unit's worth of instructions.
const shiftBytes = 2

// misc reads an instruction after 0xfc.
func misc(r *reader) (cost uint8, b bulk) {
	switch op := r.u32(); op {
	case 0, 1, 2, 3, 4, 5, 6, 7: // saturating truncation
		return 1, b
	case 8: // memory.init
		r.u32()
		memoryIndex(r)
		return 4, bulk{shiftBytes, true}
	case 9, 13: // data.drop, elem.drop
		r.u32()
		return 2, b
	case 10: // memory.copy
		memoryIndex(r)
		memoryIndex(r)
		return 4, bulk{shiftBytes, true}
	case 11: // memory.fill
		memoryIndex(r)
		return 4, bulk{shiftBytes, true}
	case 12, 14: // table.init, table.copy
		r.u32()
		r.u32()
		return 4, bulk{0, true}
	case 15: // table.grow
		r.u32()
		return costGrow, bulk{0, true}
	case 16: // table.size
		r.u32()
		return 1, b
	case 17: // table.fill
		r.u32()
		return 4, bulk{0, true}
	default:
		r.failf("instruction 0xfc %d is not known", op)
		return 0, b
	}
}

func memoryIndex(r *reader) {
	if r.byte() != 0 {
		r.fail(errFeature("several memories"))
	}
}

// simd reads an instruction after 0xfd. The engine takes one byte for the
// opcode, so that the second byte of those from 128 on, which is always 1, is a
// nop to it. Beyond 255 the two readings would part.
func simd(r *reader) {
	op := r.byte()
	switch {
	case op <= 11 || op == 92 || op == 93: // loads and stores
		memArg(r)
	case op == 12 || op == 13: // v128.const, i8x16.shuffle
		r.bytes(16)
	case op >= 21 && op <= 34: // a lane
		r.byte()
	case op >= 84 && op <= 91: // loads and stores of a lane
		memArg(r)
		r.byte()
	case op >= 128:
		if r.byte() != 1 {
			r.fail(errFeature("relaxed SIMD"))
		}
	}
}

func memArg(r *reader) {
	switch align := r.u32(); {
	case align >= 64 && align < 128:
		r.fail(errFeature("several memories"))
	case align >= 32:
		r.failf("alignment 2^%d is not known", align)
	}
	r.u32()
}
