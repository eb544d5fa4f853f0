// Package dfa answers whether a regular expression matches, several times faster
// than package regexp does and with the same answer.
//
// A [Matcher] walks a text once, from state to state of an automaton. States are
// made when a text first leads to them, and kept:
//
//	rune ─▶ class ─▶ state.next[class] ─▶ state        already made: one load
//	                        │ nil
//	                        ▼
//	                 simulate the program once, keep the state
//
// Classes are ranges of runes that no instruction of the expression tells apart.
//
// # Invariants
//
// Match(s) is what regexp's MatchString(s) is: the program is that of
// regexp/syntax, and texts are read as regexp reads them, a byte that is no UTF-8
// being U+FFFD. Where a match lies is not what an automaton knows: Submatches asks
// regexp.
//
// Time is linear in the text. Memory is bounded: when a Matcher has [maxMemory] of
// states it forgets them all, and the match under way is decided by regexp. So a
// text made to be new at each rune costs at most about twice what it would have.
//
// A Matcher may be used by many at a time. States are published once and never
// change but in their transitions, which are set once.
package dfa

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// maxMemory bounds the states that one Matcher keeps, in bytes.
const maxMemory = 128 << 10

// Matcher is a compiled expression.
type Matcher struct {
	re   *regexp.Regexp
	prog *syntax.Prog
	// bounds begin the classes: class i is the runes from bounds[i] to those before
	// bounds[i+1]. The class len(bounds) is the end of the text.
	bounds []rune
	ascii  [utf8.RuneSelf]uint16 // classes of those
	// anchored: a match begins where the text does, or nowhere.
	anchored bool
	// context: what precedes a rune matters, since the expression has assertions.
	context bool
	states  atomic.Pointer[states]
}

// Compile makes the matcher of an expression in the syntax of package regexp.
func Compile(expression string) (*Matcher, error) {
	re, err := regexp.Compile(expression)
	if err != nil {
		return nil, err
	}
	tree, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, err
	}
	m := &Matcher{re: re, prog: prog, anchored: prog.StartCond()&syntax.EmptyBeginText != 0}
	m.classify()
	m.forget(nil)
	return m, nil
}

// classify divides all runes into classes.
func (m *Matcher) classify() {
	m.bounds = []rune{0}
	split := func(first, last rune) { m.bounds = append(m.bounds, first, last+1) }
	for i := range m.prog.Inst {
		inst := &m.prog.Inst[i]
		switch inst.Op {
		case syntax.InstRune, syntax.InstRune1:
			splitRunes(inst, split)
		case syntax.InstRuneAnyNotNL:
			split('\n', '\n')
		case syntax.InstEmptyWidth:
			m.context = true
			split('\n', '\n')
			for _, word := range []string{"09", "AZ", "__", "az"} {
				split(rune(word[0]), rune(word[1]))
			}
		}
	}
	slices.Sort(m.bounds)
	m.bounds = slices.Compact(m.bounds)
	for r := range m.ascii {
		m.ascii[r] = m.search(rune(r))
	}
}

func splitRunes(inst *syntax.Inst, split func(first, last rune)) {
	if len(inst.Rune) > 1 {
		for i := 0; i+1 < len(inst.Rune); i += 2 {
			split(inst.Rune[i], inst.Rune[i+1])
		}
		return
	}
	first := inst.Rune[0]
	split(first, first)
	if syntax.Flags(inst.Arg)&syntax.FoldCase != 0 {
		for r := unicode.SimpleFold(first); r != first; r = unicode.SimpleFold(r) {
			split(r, r)
		}
	}
}

// search finds the class of a rune.
func (m *Matcher) search(r rune) uint16 {
	return uint16(sort.Search(len(m.bounds), func(i int) bool { return m.bounds[i] > r }) - 1)
}

// Match reports whether the text has a match of the expression.
func (m *Matcher) Match(text string) bool {
	all := m.states.Load()
	s := all.start
	for i := 0; i < len(text); {
		var class uint16
		if b := text[i]; b < utf8.RuneSelf {
			class = m.ascii[b]
			i++
		} else {
			r, width := utf8.DecodeRuneInString(text[i:])
			class = m.search(r)
			i += width
		}
		next := s.next[class].Load()
		if next == nil {
			if next = m.follow(all, s, class); next == nil {
				return m.re.MatchString(text)
			}
		}
		switch s = next; s {
		case matched:
			return true
		case hopeless:
			return false
		}
	}
	class := uint16(len(m.bounds))
	next := s.next[class].Load()
	if next == nil {
		if next = m.follow(all, s, class); next == nil {
			return m.re.MatchString(text)
		}
	}
	return next == matched
}

// Submatches are those of the leftmost match, as regexp's FindStringSubmatchIndex
// gives them; nil if there is none.
func (m *Matcher) Submatches(text string) []int {
	if !m.Match(text) {
		return nil
	}
	return m.re.FindStringSubmatchIndex(text)
}

// forget begins anew, unless another has already.
func (m *Matcher) forget(old *states) {
	all := &states{known: map[string]*state{}, set: newSet(len(m.prog.Inst))}
	all.start = all.add(len(m.bounds)+1, nil, -1)
	m.states.CompareAndSwap(old, all)
}

// follow makes the state to which a class leads, or finds it. It is nil when there
// is no room for it.
func (m *Matcher) follow(all *states, s *state, class uint16) *state {
	all.mu.Lock()
	defer all.mu.Unlock()
	if next := s.next[class].Load(); next != nil {
		return next
	}
	r := rune(-1)
	if int(class) < len(m.bounds) {
		r = m.bounds[class]
	}
	next := m.step(all, s, r)
	if next == nil {
		m.forget(all)
		return nil
	}
	s.next[class].Store(next)
	return next
}

// step simulates the program for one rune; r is -1 at the text's end.
func (m *Matcher) step(all *states, s *state, r rune) *state {
	all.set.clear()
	if m.close(all.set, s, syntax.EmptyOpContext(s.before, r)) {
		return matched
	}
	var pcs []uint32
	for _, pc := range all.set.list {
		if inst := &m.prog.Inst[pc]; consumes(inst, r) {
			pcs = append(pcs, inst.Out)
		}
	}
	if r < 0 || len(pcs) == 0 && m.anchored {
		return hopeless
	}
	slices.Sort(pcs)
	return all.add(len(m.bounds)+1, slices.Compact(pcs), m.precedes(r))
}

// precedes is what of a rune matters to the assertions after it.
func (m *Matcher) precedes(r rune) rune {
	switch {
	case m.context && r == '\n':
		return '\n'
	case m.context && syntax.IsWordChar(r):
		return 'a'
	}
	return ' '
}

// close adds to the set all instructions that are reached before the next rune, and
// reports whether one of them is the match. A match may begin anywhere.
func (m *Matcher) close(set *set, s *state, flags syntax.EmptyOp) bool {
	stack := append(set.stack[:0], s.pcs...)
	stack = append(stack, uint32(m.prog.Start))
	for len(stack) > 0 {
		pc := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if !set.add(pc) {
			continue
		}
		switch inst := &m.prog.Inst[pc]; inst.Op {
		case syntax.InstMatch:
			return true
		case syntax.InstAlt, syntax.InstAltMatch:
			stack = append(stack, inst.Out, inst.Arg)
		case syntax.InstCapture, syntax.InstNop:
			stack = append(stack, inst.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(inst.Arg)&^flags == 0 {
				stack = append(stack, inst.Out)
			}
		}
	}
	set.stack = stack
	return false
}

func consumes(inst *syntax.Inst, r rune) bool {
	if r < 0 {
		return false
	}
	switch inst.Op {
	case syntax.InstRune:
		return inst.MatchRune(r)
	case syntax.InstRune1:
		return r == inst.Rune[0]
	case syntax.InstRuneAny:
		return true
	case syntax.InstRuneAnyNotNL:
		return r != '\n'
	}
	return false
}

// state is where the program may be between two runes: at any of pcs, after before.
type state struct {
	pcs    []uint32
	before rune
	next   []atomic.Pointer[state] // by class
}

// What ends a walk.
var (
	matched  = new(state)
	hopeless = new(state) // no more runes lead to a match
)

// states are those made so far.
type states struct {
	start *state

	mu     sync.Mutex
	known  map[string]*state
	memory int
	key    []byte
	set    *set
}

// add returns the state of these instructions; nil if there is no room for it.
func (all *states) add(classes int, pcs []uint32, before rune) *state {
	all.key = append(all.key[:0], byte(before))
	for _, pc := range pcs {
		all.key = append(all.key, byte(pc), byte(pc>>8), byte(pc>>16), byte(pc>>24))
	}
	if s := all.known[string(all.key)]; s != nil {
		return s
	}
	const fixed = 160 // the state, its entry in the map
	all.memory += fixed + 8*classes + 8*len(pcs)
	if all.memory > maxMemory && len(all.known) > 0 {
		return nil
	}
	s := &state{pcs: slices.Clone(pcs), before: before, next: make([]atomic.Pointer[state], classes)}
	all.known[string(all.key)] = s
	return s
}

// set is instructions, cleared in constant time.
type set struct {
	sparse []uint32
	list   []uint32
	stack  []uint32
}

func newSet(size int) *set { return &set{sparse: make([]uint32, size)} }

func (s *set) clear() { s.list = s.list[:0] }

func (s *set) add(pc uint32) bool {
	if i := s.sparse[pc]; int(i) < len(s.list) && s.list[i] == pc {
		return false
	}
	s.sparse[pc] = uint32(len(s.list))
	s.list = append(s.list, pc)
	return true
}
