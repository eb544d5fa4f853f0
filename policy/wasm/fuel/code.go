package fuel

import (
	"errors"
	"fmt"
)

// A function is cut into regions. A region is paid for at one point, and the
// rules below make sure that whoever executes one of its instructions has passed
// that point since it last executed the same instruction:
//
//   - The function's body is a region, and so is every loop's, paid for at its
//     header: only a loop can be branched back to.
//   - A loop's end gives back the region that the loop stands in.
//   - Where paths meet (the end of a block or an if) and all come from the same
//     region, it goes on. Otherwise a new region begins there.
//   - else continues the region in which the if stood.
//
// So ordinary code pays at entries and headers alone, and pays for both arms of
// an if. That would be dear where a function is one loop around a switch, which
// is what stock Go makes of every function that calls others: each turn would
// pay for the whole function. Therefore the blocks that a br_table chooses from
// begin regions too, if the function is not small.
type coder struct {
	tank  uint32 // the global
	types uint32

	frames  []frame
	loops   []int // the region at each depth of loops
	dead    bool  // what follows cannot be reached
	fine    bool  // br_table's targets begin regions
	costs   []uint64
	points  []point
	lengths bool // a charge by length is needed
	locals  uint32

	// blocks and work measure what the engine will have to do: it takes time by
	// the square of a function's blocks, and by the square of the depth of its
	// loops far more, so that some kilobytes could keep it busy for hours.
	blocks, work uint64

	out []byte
}

// costDepth is what a loop costs the engine for each loop around it.
const costDepth = 40

// frame is a block, loop, if or the function itself, while it is open.
type frame struct {
	kind  byte
	depth int // of loops, outside the frame
	dead  bool
	// from is the region of those who branch to the frame's end; mixed: they
	// come from several; chosen: by a br_table.
	from          int
	mixed, chosen bool
	// entered is the region in which an if stands.
	entered int
}

const noRegion = -1

func (f *frame) reachedFrom(region int) {
	switch f.from {
	case noRegion:
		f.from = region
	case region:
	default:
		f.mixed = true
	}
}

// point is a place where code is put in.
type point struct {
	at     int
	region int
	check  bool // look at the tank
	bulk   bulk // a charge by length instead
}

// fineFrom is the size in bytes from which a function's switches are cut.
const fineFrom = 192

// charge returns the function's body with its charges. The result is valid
// until the next call.
func (c *coder) charge(body []byte, params int) ([]byte, error) {
	r := &reader{b: body}
	groups, declared := readLocals(r, params)
	if r.err != nil {
		return nil, r.err
	}
	c.locals = declared
	code := r.at
	c.reset(len(body)-code >= fineFrom)
	c.region(code, true)
	c.costs[0] = costEntry + uint64(declared)/costLocals
	for r.err == nil && len(c.frames) > 0 {
		c.instruction(r)
	}
	if r.err == nil && r.left() > 0 {
		r.failf("code goes on after its end")
	}
	if r.err != nil {
		return nil, fmt.Errorf("byte %d: %w", r.at, r.err)
	}
	c.work += c.blocks * c.blocks
	return c.write(body, groups, code), nil
}

// readLocals returns where the groups of locals start, how many groups there
// are, and how many locals the function has, with its parameters.
func readLocals(r *reader, params int) (groups [2]int, declared uint32) {
	total := uint64(params)
	n := r.count("groups of locals", maxLocals)
	start := r.at
	for range n {
		total += uint64(r.u32())
		valueType(r)
		if total > maxLocals {
			r.failf("%d locals: at most %d are allowed", total, maxLocals)
		}
		if r.err != nil {
			return groups, 0
		}
	}
	return [2]int{n, start}, uint32(total)
}

func (c *coder) reset(fine bool) {
	c.frames = append(c.frames[:0], frame{kind: opBlock, depth: 0, from: noRegion})
	c.loops = append(c.loops[:0], 0)
	c.costs, c.points = c.costs[:0], c.points[:0]
	c.dead, c.fine, c.lengths = false, fine, false
	c.blocks, c.work = 0, 0
}

// region begins one that is paid for at a place in the code.
func (c *coder) region(at int, check bool) int {
	c.costs = append(c.costs, 0)
	id := len(c.costs) - 1
	c.points = append(c.points, point{at: at, region: id, check: check})
	return id
}

func (c *coder) here() *int { return &c.loops[len(c.loops)-1] }

func (c *coder) pay(cost uint8) { c.costs[*c.here()] += uint64(cost) }

func (c *coder) instruction(r *reader) {
	at := r.at
	op := r.byte()
	o := operations[op]
	c.pay(o.cost)
	switch o.imm {
	case immUnknown:
		r.fail(unknown(op))
	case immBlock:
		c.blockType(r)
		c.open(op, r)
	case immLabel:
		c.blocks++
		c.branch(r, r.u32(), false)
	case immTable:
		c.branchTable(r)
	case immMisc:
		cost, length := misc(r)
		c.pay(cost)
		if length.on {
			c.lengths = true
			c.points = append(c.points, point{at: at, bulk: length})
		}
	case immLocal:
		if r.u32() >= c.locals {
			r.failf("a local that is not there")
		}
	case immGlobal:
		if r.u32() >= c.tank {
			r.failf("a global that is not there")
		}
	default:
		skipImmediate(r, o.imm)
	}
	switch op {
	case opElse:
		c.otherwise(r)
	case opEnd:
		c.close(r)
	case opUnreachable, opBr, opBrTable, opReturn:
		c.dead = true
	}
}

func skipImmediate(r *reader, imm immediate) {
	switch imm {
	case immIndex:
		r.u32()
	case immCallIndirect:
		r.u32()
		r.u32()
	case immTypes:
		if r.byte() != 1 {
			r.failf("select has not one type")
		}
		valueType(r)
	case immMemArg:
		memArg(r)
	case immMemory:
		memoryIndex(r)
	case immI32:
		r.skipLEB(5)
	case immI64:
		r.skipLEB(10)
	case immF32:
		r.bytes(4)
	case immF64:
		r.bytes(8)
	case immRefType:
		heapType(r)
	case immSIMD:
		simd(r)
	}
}

// blockType is one byte, or the index of a type as a signed number.
func (c *coder) blockType(r *reader) {
	if r.err != nil || r.left() == 0 {
		r.fail(errShort)
		return
	}
	switch b := r.b[r.at]; b {
	case typeVoid, 0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f:
		r.at++
		return
	}
	start := r.at
	index := r.u32()
	if r.err != nil {
		return
	}
	last := r.b[r.at-1]
	if r.at-start < 5 && last&0x40 != 0 {
		r.failf("block type %#x is not known", last) // a negative number
	} else if index >= c.types {
		r.failf("block type %d of %d", index, c.types)
	}
}

func (c *coder) open(op byte, r *reader) {
	if len(c.frames) >= maxDepth {
		r.failf("blocks are nested %d deep", maxDepth)
		return
	}
	f := frame{kind: op, depth: len(c.loops) - 1, dead: c.dead, from: noRegion, entered: *c.here()}
	c.frames = append(c.frames, f)
	c.blocks++
	if op == opLoop {
		c.work += costDepth * uint64(len(c.loops))
		id := c.region(r.at, true)
		c.loops = append(c.loops, id)
		c.pay(1) // even an empty loop costs something
	}
}

// branch notes where a branch comes from. A branch to a loop goes to its header,
// which takes its charge; one to the function's end leaves.
func (c *coder) branch(r *reader, label uint32, chosen bool) {
	if r.err != nil || int64(label) >= int64(len(c.frames)) {
		r.fail(errLabel)
		return
	}
	i := len(c.frames) - 1 - int(label)
	f := &c.frames[i]
	if i == 0 || f.kind == opLoop || c.dead {
		return
	}
	f.reachedFrom(c.loops[f.depth])
	f.chosen = f.chosen || chosen
}

var errLabel = errors.New("a branch to a block that is not there")

func (c *coder) branchTable(r *reader) {
	n := r.count("labels", maxBody)
	c.blocks += 1 + uint64(n)/4
	for range n + 1 {
		c.branch(r, r.u32(), n > 0)
		if r.err != nil {
			return
		}
	}
}

func (c *coder) otherwise(r *reader) {
	f := &c.frames[len(c.frames)-1]
	if f.kind != opIf {
		r.failf("else without if")
		return
	}
	if !c.dead {
		f.reachedFrom(*c.here())
	}
	f.kind, c.dead = opElse, f.dead
	*c.here() = f.entered
}

func (c *coder) close(r *reader) {
	f := c.frames[len(c.frames)-1]
	c.frames = c.frames[:len(c.frames)-1]
	if f.kind == opLoop {
		c.loops = c.loops[:len(c.loops)-1]
		return
	}
	if !c.dead {
		f.reachedFrom(*c.here())
	}
	if f.kind == opIf && !f.dead { // without else: the condition leads here
		f.reachedFrom(f.entered)
	}
	c.dead = f.from == noRegion
	switch {
	case c.dead || len(c.frames) == 0:
	case f.mixed || f.chosen && c.fine:
		*c.here() = c.region(r.at, false)
	default:
		*c.here() = f.from
	}
}

// write puts the charges in. The function gets a local to work with, and one
// more if it charges by length.
func (c *coder) write(body []byte, groups [2]int, code int) []byte {
	out := c.out[:0]
	extra := uint32(1)
	if c.lengths {
		extra = 2
	}
	out = appendU32(out, uint32(groups[0])+extra)
	out = append(out, body[groups[1]:code]...)
	out = append(out, 1, 0x7e) // one i64
	if c.lengths {
		out = append(out, 1, 0x7f) // one i32
	}
	done := code
	for _, p := range c.points {
		out = append(out, body[done:p.at]...)
		done = p.at
		switch {
		case p.bulk.on:
			out = c.writeBulk(out, p.bulk)
		case c.costs[p.region] > 0:
			out = c.writeCharge(out, c.costs[p.region], p.check)
		}
	}
	c.out = append(out, body[done:]...)
	return c.out
}

func (c *coder) writeCharge(out []byte, cost uint64, check bool) []byte {
	out = appendU32(append(out, opGlobalGet), c.tank)
	out = appendS64(append(out, opI64Const), int64(cost))
	return c.writeDraw(append(out, opI64Sub), check)
}

// writeBulk charges for the number on top of the stack and leaves it there.
func (c *coder) writeBulk(out []byte, b bulk) []byte {
	length := c.locals + 1
	out = appendU32(append(out, opLocalSet), length)
	out = appendU32(append(out, opGlobalGet), c.tank)
	out = appendU32(append(out, opLocalGet), length)
	out = append(out, opI64ExtendU)
	if b.shift > 0 {
		out = append(out, opI64Const, b.shift, opI64ShrU)
	}
	out = c.writeDraw(append(out, opI64Sub), true)
	return appendU32(append(out, opLocalGet), length)
}

// writeDraw stores the new level of the tank, which is on the stack, and traps
// when it is below zero.
func (c *coder) writeDraw(out []byte, check bool) []byte {
	if check {
		out = appendU32(append(out, opLocalTee), c.locals)
	}
	out = appendU32(append(out, opGlobalSet), c.tank)
	if check {
		out = appendU32(append(out, opLocalGet), c.locals)
		out = append(out, opI64Const, 0, opI64LtS, opIf, typeVoid, opUnreachable, opEnd)
	}
	return out
}
