package router

import (
	"bytes"
	"slices"
)

// bucket is all that is attached to one listener under one hostname.
//
// As long as there are few candidates they are looked through from the best on:
// most hosts have a rule or two, and that is then faster than anything and small.
// The best lies in the bucket itself, so that a host with a single rule is one
// piece of memory: with many hosts a look-up is little else than waiting for it.
// Beyond that the paths are indexed.
type bucket[T any] struct {
	best     candidate[T] // where few are: the first of them; no match: there is none
	rest     *list[T]     // where few are: the others, nil when there are none
	many     *paths[T]    // nil as long as few are
	hostname string
	owner    *edit
}

// maxFew is how many candidates are looked through without an index.
const maxFew = 8

func (b *bucket[T]) match(r *request) *candidate[T] {
	if b.many != nil {
		return b.many.match(r)
	}
	if b.best.fitsPath(r.path) && b.best.fits(r) {
		return &b.best
	}
	if b.rest == nil {
		return nil
	}
	for i := range b.rest.items {
		if c := &b.rest.items[i]; c.fitsPath(r.path) && c.fits(r) {
			return c
		}
	}
	return nil
}

func (b *bucket[T]) own(e *edit) *bucket[T] {
	if b.owner == e {
		return b
	}
	copied := *b
	copied.owner = e
	if b.many != nil {
		many := *b.many
		copied.many = &many
	}
	return &copied
}

// add and remove want a bucket that is owned by the edit.
func (b *bucket[T]) add(e *edit, c candidate[T]) {
	switch {
	case b.many != nil:
		b.many.add(e, c)
	case b.best.match == nil:
		b.best = c
	case b.rest != nil && 1+len(b.rest.items) == maxFew:
		b.index(e)
		b.many.add(e, c)
	case c.match.compare(b.best.match) < 0:
		b.best, c = c, b.best
		fallthrough
	default:
		b.rest = b.rest.with(e, c)
	}
}

// index moves the candidates from few to many.
func (b *bucket[T]) index(e *edit) {
	b.many = new(paths[T])
	b.many.add(e, b.best)
	for _, moved := range b.rest.items {
		b.many.add(e, moved)
	}
	b.best, b.rest = candidate[T]{}, nil
}

func (b *bucket[T]) remove(e *edit, m *match[T]) {
	switch {
	case b.many != nil:
		b.many.remove(e, m)
	case b.best.match != m:
		if b.rest != nil {
			b.rest = b.rest.without(e, m)
		}
	case b.rest == nil:
		b.best = candidate[T]{}
	default:
		b.best = b.rest.items[0]
		b.rest = b.rest.without(e, b.best.match)
	}
}

func (b *bucket[T]) empty() bool {
	if b.many != nil {
		return b.many.size == 0
	}
	return b.best.match == nil
}

// paths finds candidates by the path, in the order of precedence of its kinds.
type paths[T any] struct {
	exact         index[*list[T]]
	prefix        index[*list[T]] // all but "/"
	prefixLengths lengths
	patterns      *list[T]
	open, all     *list[T] // see class
	size          int
}

func (p *paths[T]) match(r *request) *candidate[T] {
	if l, ok := p.exact.get(r.path); ok {
		if c := l.first(r); c != nil {
			return c
		}
	}
	if c := p.patterns.matching(r); c != nil {
		return c
	}
	if p.prefix.n > 0 {
		if c := p.matchPrefix(r); c != nil {
			return c
		}
	}
	if c := p.open.matching(r); c != nil {
		return c
	}
	if p.all != nil {
		return p.all.first(r)
	}
	return nil
}

// matchPrefix tries each piece of the path that ends where a segment does,
// from the longest on.
func (p *paths[T]) matchPrefix(r *request) *candidate[T] {
	path := r.path
	for end := len(path); end > 0; {
		if end > p.prefixLengths.long {
			// No prefix is as long: go on with the last piece that may be one.
			end = bytes.LastIndexByte(path[:p.prefixLengths.long+1], '/')
			continue
		}
		if p.prefixLengths.has(end) {
			if l, ok := p.prefix.get(path[:end]); ok {
				if c := l.first(r); c != nil {
					return c
				}
			}
		}
		end = bytes.LastIndexByte(path[:end], '/')
	}
	return nil
}

func (p *paths[T]) add(e *edit, c candidate[T]) {
	p.size++
	p.change(e, c.match, func(l *list[T]) *list[T] { return l.with(e, c) })
}

func (p *paths[T]) remove(e *edit, m *match[T]) {
	p.size--
	p.change(e, m, func(l *list[T]) *list[T] { return l.without(e, m) })
}

// change replaces the list that a match belongs in.
func (p *paths[T]) change(e *edit, m *match[T], f func(*list[T]) *list[T]) {
	switch m.class() {
	case exact:
		changeAt(e, &p.exact, m.path, f)
	case pattern:
		p.patterns = f(p.patterns)
	case open:
		p.open = f(p.open)
	case all:
		p.all = f(p.all)
	case prefix:
		changeAt(e, &p.prefix, m.path, f)
		p.prefixLengths.add(len(m.path))
	}
}

func changeAt[T any](e *edit, ix *index[*list[T]], k string, f func(*list[T]) *list[T]) {
	old, _ := ix.getString(k)
	if l := f(old); l != nil {
		ix.set(e, k, l)
	} else {
		ix.delete(e, k)
	}
}

// list is candidates in order of precedence, at least one.
type list[T any] struct {
	items []candidate[T]
	owner *edit
}

// first returns the first that fits all but the path.
func (l *list[T]) first(r *request) *candidate[T] {
	for i := range l.items {
		if c := &l.items[i]; c.fits(r) {
			return c
		}
	}
	return nil
}

// matching returns the first of patterns that fits; l may be nil.
func (l *list[T]) matching(r *request) *candidate[T] {
	if l == nil {
		return nil
	}
	for i := range l.items {
		if c := &l.items[i]; c.fits(r) && c.match.pattern.Match(r.path) {
			return c
		}
	}
	return nil
}

// with returns the list with c added; l may be nil.
func (l *list[T]) with(e *edit, c candidate[T]) *list[T] {
	if l == nil {
		return &list[T]{items: []candidate[T]{c}, owner: e}
	}
	l = l.own(e, 1)
	at, _ := l.search(c.match)
	l.items = slices.Insert(l.items, at, c)
	return l
}

// without returns the list without a match, nil when nothing is left.
func (l *list[T]) without(e *edit, m *match[T]) *list[T] {
	at, found := l.search(m)
	if !found {
		return l
	}
	if len(l.items) == 1 {
		return nil
	}
	l = l.own(e, 0)
	l.items = slices.Delete(l.items, at, at+1)
	return l
}

func (l *list[T]) own(e *edit, room int) *list[T] {
	if l.owner == e {
		return l
	}
	items := append(make([]candidate[T], 0, len(l.items)+room), l.items...)
	return &list[T]{items: items, owner: e}
}

func (l *list[T]) search(m *match[T]) (int, bool) {
	return slices.BinarySearchFunc(l.items, m, func(c candidate[T], m *match[T]) int {
		return c.match.compare(m)
	})
}
