package schema

import (
	"cmp"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// ErrBudget: the check of a value took more work than its size warrants. It is
// neither right nor wrong.
var ErrBudget = errors.New("the value takes too much work to check: its schema has alternatives within alternatives")

// What a check may take: steps are visits of a schema by a value.
const (
	fewSteps      = 20_000
	stepsPerValue = 100
	maxViolations = 16
)

// Checker checks values. It may be used again, by one goroutine at a time.
type Checker struct {
	Reader
	left       int // steps
	broke      bool
	quiet      int // nobody asks what is wrong, only whether
	path       []segment
	violations []Violation
	scratch    []byte
	at         []visit
}

// segment is one step to a value.
type segment struct {
	name  []byte
	index int // of an array; member: it is an object's
}

const member = -1

// visit is a schema that a value is being checked by; to come back to it with the
// same value would have no end.
type visit struct {
	schema *Schema
	depth  int
}

// Check says what is wrong with a value that this Checker has read: at most 16
// violations, none if it is right. The error is ErrBudget or nil.
func (c *Checker) Check(s *Schema, v *Value) ([]Violation, error) {
	c.left, c.broke, c.quiet = fewSteps+stepsPerValue*c.values, false, 0
	c.path, c.violations, c.at = c.path[:0], nil, c.at[:0]
	c.holds(s, v, nil)
	if c.broke {
		return nil, ErrBudget
	}
	return c.violations, nil
}

// done: there is no point in going on.
func (c *Checker) done(valid bool) bool {
	return c.broke || !valid && (c.quiet > 0 || len(c.violations) >= maxViolations)
}

// spend takes steps out of the budget.
func (c *Checker) spend(steps int) {
	if c.left -= steps; c.left < 0 {
		c.broke = true
	}
}

// fail notes a violation and returns false.
func (c *Checker) fail(s *Schema, rule string, detail func() string) bool {
	if c.quiet == 0 && !c.broke && len(c.violations) < maxViolations {
		c.violations = append(c.violations, Violation{Pointer: c.pointer(), Rule: rule, Schema: s.at + "/" + rule, Detail: detail()})
	}
	return false
}

func say(words string) func() string { return func() string { return words } }

func (c *Checker) pointer() string {
	var b strings.Builder
	for _, p := range c.path {
		b.WriteByte('/')
		if p.index != member {
			b.WriteString(strconv.Itoa(p.index))
		} else {
			b.WriteString(Escape(string(p.name)))
		}
	}
	return b.String()
}

// seen are the elements of a value that a schema has looked at, for those who ask
// which were not: nil where nobody does.
type seen struct{ elements []bool }

func (s *seen) mark(i int) {
	if s != nil {
		s.elements[i] = true
	}
}

func newSeen(v *Value) *seen { return &seen{make([]bool, len(v.elements))} }

func (s *seen) merge(other *seen) {
	if s != nil && other != nil {
		for i, b := range other.elements {
			s.elements[i] = s.elements[i] || b
		}
	}
}

// holds reports whether a value is right.
func (c *Checker) holds(s *Schema, v *Value, saw *seen) bool {
	if c.spend(1); c.broke {
		return false
	}
	if s.always != nil {
		return *s.always || c.fail(s, "false", say("no value is allowed here"))
	}
	here := visit{s, len(c.path)}
	for i := len(c.at) - 1; i >= 0 && c.at[i].depth == here.depth; i-- {
		if c.at[i] == here {
			return c.fail(s, "$ref", say("the schema refers to itself"))
		}
	}
	c.at = append(c.at, here)
	valid := c.judge(s, v, saw)
	c.at = c.at[:len(c.at)-1]
	return valid && !c.broke
}

func (c *Checker) judge(s *Schema, v *Value, saw *seen) bool {
	if s.types != 0 && !s.types.contain(v) {
		return c.fail(s, "type", func() string { return "want " + s.types.String() + ", got " + v.kind.String() })
	}
	if (s.konst != nil || s.enum != nil) && !c.isListed(s, v) {
		return false
	}
	if s.format != nil && v.kind == text {
		if err := s.format.Validate(string(v.text)); err != nil {
			return c.fail(s, "format", func() string { return fmt.Sprintf("is no %s: %v", s.format.Name, err) })
		}
	} else if s.format != nil && v.kind == number {
		if err := s.format.Validate(v); err != nil {
			return c.fail(s, "format", func() string { return fmt.Sprintf("is no %s: %v", s.format.Name, err) })
		}
	}
	if s.ref != nil && s.only {
		return c.holds(s.ref, v, saw)
	}
	asked := saw
	if s.asks(v) {
		saw = newSeen(v)
	}
	valid := s.ref == nil || c.holds(s.ref, v, saw)
	if c.done(valid) {
		return false
	}
	valid = c.own(s, v, saw) && valid
	if c.done(valid) {
		return false
	}
	valid = c.combined(s, v, saw) && valid
	if c.done(valid) {
		return false
	}
	valid = c.unevaluated(s, v, saw) && valid
	if saw != asked {
		asked.merge(saw)
	}
	return valid
}

// asks: the schema wants to know what others have looked at.
func (s *Schema) asks(v *Value) bool {
	return v.kind == object && s.objects != nil && s.objects.unevaluated != nil || v.kind == array && s.arrays != nil && s.arrays.unevaluated != nil
}

func (t types) contain(v *Value) bool {
	return t&v.kind != 0 || v.kind == number && t&integer != 0 && v.whole()
}

func (t types) String() string {
	var all []string
	for name, one := range typeNames {
		if t&one != 0 {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return strings.Join(all, " or ")
}

func (c *Checker) isListed(s *Schema, v *Value) bool {
	c.scratch = v.appendCanonical(c.scratch[:0])
	c.spend(len(c.scratch) / 16)
	if s.konst != nil && string(c.scratch) != *s.konst {
		return c.fail(s, "const", say("is not the one value that is allowed"))
	}
	if s.enum != nil && !s.enum[string(c.scratch)] {
		return c.fail(s, "enum", say("is none of the values that are allowed"))
	}
	return true
}

// own are the rules for values of one type.
func (c *Checker) own(s *Schema, v *Value, saw *seen) bool {
	switch {
	case v.kind == object && s.objects != nil:
		return c.object(s, s.objects, v, saw)
	case v.kind == array && s.arrays != nil:
		return c.array(s, s.arrays, v, saw)
	case v.kind == text && s.strings != nil:
		return c.text(s, s.strings, v)
	case v.kind == number && s.numbers != nil:
		return c.number(s, s.numbers, v)
	}
	return true
}

func (c *Checker) text(s *Schema, r *texts, v *Value) bool {
	valid := true
	if r.least >= 0 || r.most >= 0 {
		n := utf8.RuneCount(v.text)
		if n < r.least {
			valid = c.fail(s, "minLength", func() string { return fmt.Sprintf("has %d characters, fewer than %d", n, r.least) })
		}
		if r.most >= 0 && n > r.most {
			valid = c.fail(s, "maxLength", func() string { return fmt.Sprintf("has %d characters, more than %d", n, r.most) })
		}
	}
	if r.pattern != nil {
		if c.spend(len(v.text) / 8); !r.pattern.MatchString(unsafe.String(unsafe.SliceData(v.text), len(v.text))) {
			valid = c.fail(s, "pattern", func() string { return "does not match " + r.pattern.String() })
		}
	}
	return valid
}

func (c *Checker) number(s *Schema, r *numbers, v *Value) bool {
	valid := true
	n := figure{v: v}
	if r.least != nil && n.compare(r.least) < 0 {
		valid = c.fail(s, "minimum", func() string { return "is less than " + r.least.rat.RatString() })
	}
	if r.most != nil && n.compare(r.most) > 0 {
		valid = c.fail(s, "maximum", func() string { return "is more than " + r.most.rat.RatString() })
	}
	if r.above != nil && n.compare(r.above) <= 0 {
		valid = c.fail(s, "exclusiveMinimum", func() string { return "is not more than " + r.above.rat.RatString() })
	}
	if r.below != nil && n.compare(r.below) >= 0 {
		valid = c.fail(s, "exclusiveMaximum", func() string { return "is not less than " + r.below.rat.RatString() })
	}
	if r.multiple != nil && !new(big.Rat).Quo(n.exact(), r.multiple).IsInt() {
		valid = c.fail(s, "multipleOf", func() string { return "is no multiple of " + r.multiple.RatString() })
	}
	return valid
}

// figure is a number, exact only where it has to be.
type figure struct {
	v   *Value
	rat *big.Rat
}

func (f *figure) exact() *big.Rat {
	if f.rat == nil {
		f.rat = f.v.rat()
	}
	return f.rat
}

func (f *figure) compare(b *bound) int {
	if n, ok := f.v.small(); ok && b.whole {
		return cmp.Compare(n, b.small)
	}
	// Rounding keeps the order: where the rounded numbers differ, so do the numbers,
	// as long as the bound is its own rounding.
	if n, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(f.v.text), len(f.v.text)), 64); b.precise && err == nil && n != b.float {
		return cmp.Compare(n, b.float)
	}
	return f.exact().Cmp(b.rat)
}
