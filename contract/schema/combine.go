package schema

import "fmt"

// combined are the rules that ask other schemas about the same value.
func (c *Checker) combined(s *Schema, v *Value, saw *seen) bool {
	valid := true
	if s.not != nil && c.quietly(s.not, v, nil) && !c.broke {
		valid = c.fail(s, "not", say("is what it must not be"))
	}
	for _, sub := range s.all {
		if c.done(valid) {
			return false
		}
		valid = c.holds(sub, v, saw) && valid
	}
	if len(s.any) > 0 && !c.done(valid) {
		valid = c.anyOf(s, v, saw) && valid
	}
	if len(s.one) > 0 && !c.done(valid) {
		valid = c.oneOf(s, v, saw) && valid
	}
	if s.when == nil || c.done(valid) {
		return valid
	}
	mine := saw.fresh(v)
	if c.quietly(s.when, v, mine) {
		saw.merge(mine)
		return (s.then == nil || c.holds(s.then, v, saw)) && valid
	}
	return (s.orElse == nil || c.holds(s.orElse, v, saw)) && valid
}

// fresh is for one alternative: what it saw counts only where it holds.
func (s *seen) fresh(v *Value) *seen {
	if s == nil {
		return nil
	}
	return newSeen(v)
}

// quietly reports whether a value is right without saying why not.
func (c *Checker) quietly(s *Schema, v *Value, saw *seen) bool {
	c.quiet++
	valid := c.holds(s, v, saw)
	c.quiet--
	return valid
}

func (c *Checker) anyOf(s *Schema, v *Value, saw *seen) bool {
	matched := false
	for _, sub := range s.any {
		if c.broke {
			return false
		}
		mine := saw.fresh(v)
		if c.quietly(sub, v, mine) {
			saw.merge(mine)
			if matched = true; saw == nil {
				return true
			}
		}
	}
	return matched || c.none(s, "anyOf", s.any, v)
}

func (c *Checker) oneOf(s *Schema, v *Value, saw *seen) bool {
	matched := -1
	for i, sub := range s.one {
		if c.broke {
			return false
		}
		mine := saw.fresh(v)
		if !c.quietly(sub, v, mine) {
			continue
		}
		if matched >= 0 {
			return c.fail(s, "oneOf", func() string { return fmt.Sprintf("is alternatives %d and %d at once", matched, i) })
		}
		saw.merge(mine)
		matched = i
	}
	return matched >= 0 || c.none(s, "oneOf", s.one, v)
}

// none: no alternative holds. Where one alone is for such values, what is wrong
// there is what is wrong.
func (c *Checker) none(s *Schema, rule string, alternatives []*Schema, v *Value) bool {
	if c.quiet > 0 || c.broke {
		return false
	}
	var likely *Schema
	n := 0
	for _, sub := range alternatives {
		if sub.suits(v) {
			likely, n = sub, n+1
		}
	}
	if n == 1 {
		return c.holds(likely, v, nil)
	}
	return c.fail(s, rule, func() string { return fmt.Sprintf("is none of %d alternatives", len(alternatives)) })
}

// suits: as far as the type says.
func (s *Schema) suits(v *Value) bool {
	for range 8 { // references to references
		if s.types != 0 && !s.types.contain(v) {
			return false
		}
		if s.ref == nil {
			break
		}
		s = s.ref
	}
	return s.always == nil || *s.always
}

// child checks an element.
func (c *Checker) child(s *Schema, v *Value, name []byte, index int) bool {
	c.path = append(c.path, segment{name, index})
	valid := c.holds(s, v, nil)
	c.path = c.path[:len(c.path)-1]
	return valid
}

func (c *Checker) object(s *Schema, r *objects, v *Value, saw *seen) bool {
	valid := c.size(s, len(v.elements)/2, r.least, r.most, "minProperties", "maxProperties", "members")
	for _, name := range r.required {
		if c.done(valid) {
			return false
		}
		if c.spend(1 + len(v.elements)/32); v.find(name) == nil {
			valid = c.fail(s, "required", func() string { return fmt.Sprintf("%q is missing", name) })
		}
	}
	for i := 0; i < len(v.elements); i += 2 {
		if c.done(valid) {
			return false
		}
		valid = c.member(s, r, v, i, saw) && valid
	}
	if len(r.dependent)+len(r.dependents) > 0 && !c.done(valid) {
		valid = c.dependents(s, r, v, saw) && valid
	}
	return valid
}

// member checks the member whose name is the element i.
func (c *Checker) member(s *Schema, r *objects, v *Value, i int, saw *seen) bool {
	name, value := &v.elements[i], &v.elements[i+1]
	valid, known := true, false
	if p := r.properties[string(name.text)]; p != nil {
		known = true
		valid = c.child(p, value, name.text, member)
	}
	for _, p := range r.patterns {
		c.spend(1 + len(name.text)/8)
		if p.pattern.MatchString(string(name.text)) {
			known = true
			valid = c.child(p.schema, value, name.text, member) && valid
		}
	}
	if !known && r.additional != nil {
		known = true
		if a := r.additional.always; a != nil && !*a {
			valid = c.fail(s, "additionalProperties", func() string { return fmt.Sprintf("%q is not declared", clip(name.text)) })
		} else {
			valid = c.child(r.additional, value, name.text, member) && valid
		}
	}
	if known {
		saw.mark(i)
	}
	if r.names != nil && !c.quietly(r.names, name, nil) {
		valid = c.fail(s, "propertyNames", func() string { return fmt.Sprintf("%q is no name that is allowed", clip(name.text)) })
	}
	return valid
}

// clip keeps what a stranger has written short.
func clip(b []byte) []byte { return b[:min(len(b), 64)] }

func (v *Value) find(name string) *Value {
	for i := 0; i < len(v.elements); i += 2 {
		if string(v.elements[i].text) == name {
			return &v.elements[i+1]
		}
	}
	return nil
}

func (c *Checker) dependents(s *Schema, r *objects, v *Value, saw *seen) bool {
	valid := true
	for i := 0; i < len(v.elements); i += 2 {
		name := string(v.elements[i].text)
		for _, other := range r.dependent[name] {
			if c.spend(1 + len(v.elements)/32); v.find(other) == nil {
				valid = c.fail(s, "dependentRequired", func() string { return fmt.Sprintf("%q wants %q", name, other) })
			}
		}
		if d := r.dependents[name]; d != nil {
			valid = c.holds(d, v, saw) && valid
		}
		if c.done(valid) {
			return false
		}
	}
	return valid
}

func (c *Checker) size(s *Schema, n, least, most int, low, high, of string) bool {
	valid := true
	if n < least {
		valid = c.fail(s, low, func() string { return fmt.Sprintf("has %d %s, fewer than %d", n, of, least) })
	}
	if most >= 0 && n > most {
		valid = c.fail(s, high, func() string { return fmt.Sprintf("has %d %s, more than %d", n, of, most) })
	}
	return valid
}

func (c *Checker) array(s *Schema, r *arrays, v *Value, saw *seen) bool {
	valid := c.size(s, len(v.elements), r.least, r.most, "minItems", "maxItems", "elements")
	if r.unique && len(v.elements) > 1 {
		valid = c.unique(s, v) && valid
	}
	for i := range v.elements {
		if c.done(valid) {
			return false
		}
		item := r.items
		if i < len(r.prefix) {
			item = r.prefix[i]
		}
		if item != nil {
			saw.mark(i)
			valid = c.child(item, &v.elements[i], nil, i) && valid
		}
	}
	if r.contains != nil && !c.done(valid) {
		valid = c.contains(s, r, v, saw) && valid
	}
	return valid
}

func (c *Checker) unique(s *Schema, v *Value) bool {
	there := make(map[string]int, len(v.elements))
	for i := range v.elements {
		c.scratch = v.elements[i].appendCanonical(c.scratch[:0])
		if c.spend(1 + len(c.scratch)/16); c.broke {
			return false
		}
		if j, twice := there[string(c.scratch)]; twice {
			return c.fail(s, "uniqueItems", func() string { return fmt.Sprintf("elements %d and %d are equal", j, i) })
		}
		there[string(c.scratch)] = i
	}
	return true
}

func (c *Checker) contains(s *Schema, r *arrays, v *Value, saw *seen) bool {
	n := 0
	for i := range v.elements {
		if c.broke {
			return false
		}
		c.quiet++
		if c.child(r.contains, &v.elements[i], nil, i) {
			if n++; r.containsCounts {
				saw.mark(i)
			}
		}
		c.quiet--
	}
	valid := true
	if n < r.leastThere {
		valid = c.fail(s, "contains", func() string { return fmt.Sprintf("%d elements are as they must be, fewer than %d", n, r.leastThere) })
	}
	if r.mostThere >= 0 && n > r.mostThere {
		valid = c.fail(s, "maxContains", func() string { return fmt.Sprintf("%d elements are as they must be, more than %d", n, r.mostThere) })
	}
	return valid
}

// unevaluated checks what no other rule has looked at.
func (c *Checker) unevaluated(s *Schema, v *Value, saw *seen) bool {
	if !s.asks(v) {
		return true
	}
	valid := true
	if v.kind == object {
		for i := 0; i < len(v.elements); i += 2 {
			if !saw.elements[i] {
				saw.mark(i)
				valid = c.child(s.objects.unevaluated, &v.elements[i+1], v.elements[i].text, member) && valid
			}
		}
		return valid
	}
	for i := range v.elements {
		if !saw.elements[i] {
			saw.mark(i)
			valid = c.child(s.arrays.unevaluated, &v.elements[i], nil, i) && valid
		}
	}
	return valid
}
