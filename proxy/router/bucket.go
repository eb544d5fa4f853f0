package router

import (
	"bytes"
	"cmp"
	"regexp"
	"slices"
)

// match is one compiled match of a rule: what it asks of a request, and its
// place in the order of precedence. It is shared by all buckets it stands in.
type match[T any] struct {
	rule  *Rule[T]
	route *route[T]
	index int // among the rule's matches

	kind    PathKind
	path    string // without trailing slashes for Prefix; the pattern for Regex
	pattern *regexp.Regexp
	method  string
	headers []valueMatch
	params  []valueMatch
}

// fits compares all but the path.
func (m *match[T]) fits(r *request) bool {
	if m.method != "" && string(r.x.Request.Method) != m.method {
		return false
	}
	for i := range m.headers {
		if !m.headers[i].fitsHeader(&r.x.Request.Fields) {
			return false
		}
	}
	for i := range m.params {
		if !m.params[i].fitsParam(r.query) {
			return false
		}
	}
	return true
}

// compare orders matches that share a hostname and, but for expressions, a
// path: the one that wins first. It is zero only for a match and itself.
func (m *match[T]) compare(o *match[T]) int {
	return cmp.Or(
		cmp.Compare(len(o.path), len(m.path)), // differs among expressions only
		compareBool(m.method == "", o.method == ""),
		cmp.Compare(len(o.headers), len(m.headers)),
		cmp.Compare(len(o.params), len(m.params)),
		m.route.compare(o.route),
		cmp.Compare(m.rule.Index, o.rule.Index),
		cmp.Compare(m.index, o.index),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// candidate is a match attached to a listener.
type candidate[T any] struct {
	*match[T]
	listener *Listener
}

func (c *candidate[T]) hit(b *bucket[T]) Hit[T] {
	h := Hit[T]{Rule: c.rule, Path: c.kind, Hostname: b.hostname, Listener: c.listener}
	if c.kind == Prefix {
		h.Prefix = c.path
	}
	return h
}

// list is candidates in order of precedence.
type list[T any] struct {
	items []candidate[T]
	owner *edit
}

// first returns the first that fits all but the path.
func (l *list[T]) first(r *request) *candidate[T] {
	if l == nil {
		return nil
	}
	for i := range l.items {
		if c := &l.items[i]; c.fits(r) {
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
	l = l.own(e)
	at, _ := l.search(c.match)
	l.items = slices.Insert(l.items, at, c)
	return l
}

// without returns the list without a match, nil when nothing is left.
func (l *list[T]) without(e *edit, m *match[T]) *list[T] {
	if l == nil {
		return nil
	}
	at, found := l.search(m)
	if !found {
		return l
	}
	if len(l.items) == 1 {
		return nil
	}
	l = l.own(e)
	l.items = slices.Delete(l.items, at, at+1)
	return l
}

func (l *list[T]) own(e *edit) *list[T] {
	if l.owner == e {
		return l
	}
	return &list[T]{items: slices.Clone(l.items), owner: e}
}

func (l *list[T]) search(m *match[T]) (int, bool) {
	return slices.BinarySearchFunc(l.items, m, func(c candidate[T], m *match[T]) int {
		return c.compare(m)
	})
}

// bucket is all that is attached to one listener under one hostname.
type bucket[T any] struct {
	hostname      string
	exact         index[*list[T]]
	prefix        index[*list[T]] // all but "/"
	prefixLengths lengths
	regex, all    *list[T] // all: the prefix "/"
	size          int
	owner         *edit
}

func (b *bucket[T]) match(r *request) *candidate[T] {
	if l, ok := b.exact.get(r.path); ok {
		if c := l.first(r); c != nil {
			return c
		}
	}
	if b.prefix.n > 0 {
		if c := b.matchPrefix(r); c != nil {
			return c
		}
	}
	if b.regex != nil {
		for i := range b.regex.items {
			if c := &b.regex.items[i]; c.fits(r) && c.pattern.Match(r.path) {
				return c
			}
		}
	}
	return b.all.first(r)
}

// matchPrefix tries each piece of the path that ends where a segment does,
// from the longest on.
func (b *bucket[T]) matchPrefix(r *request) *candidate[T] {
	path := r.path
	for end := len(path); end > 0; {
		if end > b.prefixLengths.long {
			// No prefix is as long: go on with the last piece that may be one.
			end = bytes.LastIndexByte(path[:b.prefixLengths.long+1], '/')
			continue
		}
		if b.prefixLengths.has(end) {
			if l, ok := b.prefix.get(path[:end]); ok {
				if c := l.first(r); c != nil {
					return c
				}
			}
		}
		end = bytes.LastIndexByte(path[:end], '/')
	}
	return nil
}

func (b *bucket[T]) own(e *edit) *bucket[T] {
	if b.owner == e {
		return b
	}
	copied := *b
	copied.owner = e
	return &copied
}

// add and remove want a bucket that is owned by the edit.
func (b *bucket[T]) add(e *edit, c candidate[T]) {
	b.size++
	b.change(e, c.match, func(l *list[T]) *list[T] { return l.with(e, c) })
}

func (b *bucket[T]) remove(e *edit, m *match[T]) {
	b.size--
	b.change(e, m, func(l *list[T]) *list[T] { return l.without(e, m) })
}

// change replaces the list that a match belongs in.
func (b *bucket[T]) change(e *edit, m *match[T], f func(*list[T]) *list[T]) {
	switch {
	case m.kind == Regex:
		b.regex = f(b.regex)
	case m.kind == Exact:
		changeAt(e, &b.exact, m.path, f)
	case m.path == "":
		b.all = f(b.all)
	default:
		changeAt(e, &b.prefix, m.path, f)
		b.prefixLengths.add(len(m.path))
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
