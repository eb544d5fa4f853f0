package router

import (
	"cmp"
	"regexp"
	"strings"
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

// compare orders the matches under one hostname: the one that wins first. It
// is zero only for a match and itself.
func (m *match[T]) compare(o *match[T]) int {
	return cmp.Or(
		cmp.Compare(m.class(), o.class()),
		cmp.Compare(len(o.path), len(m.path)),
		compareBool(m.method == "", o.method == ""),
		cmp.Compare(len(o.headers), len(m.headers)),
		cmp.Compare(len(o.params), len(m.params)),
		m.route.compare(o.route),
		cmp.Compare(m.rule.Index, o.rule.Index),
		cmp.Compare(m.index, o.index),
	)
}

// class is a kind of path in the order of precedence.
type class int

const (
	exact class = iota
	pattern
	prefix
	// open is a pattern that any first segment fits: the method of a gRPC call alone,
	// which says less than a service does.
	open
	all // the prefix "/"
)

func (m *match[T]) class() class {
	switch {
	case m.kind == Exact:
		return exact
	case m.kind == Regex && strings.HasPrefix(m.path, AnySegment):
		return open
	case m.kind == Regex:
		return pattern
	case m.path != "":
		return prefix
	}
	return all
}

// AnySegment begins the patterns that any first segment of a path fits.
const AnySegment = "/[^/]+/"

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// candidate is a match attached to a listener. It repeats what most requests
// need of the match, so that they need not touch it.
type candidate[T any] struct {
	match    *match[T]
	rule     *Rule[T]
	listener *Listener
	path     string
	kind     PathKind
	plain    bool // the path is all that the match asks for
}

func newCandidate[T any](m *match[T], l *Listener) candidate[T] {
	return candidate[T]{
		match: m, rule: m.rule, listener: l, path: m.path, kind: m.kind,
		plain: m.method == "" && m.headers == nil && m.params == nil,
	}
}

func (c *candidate[T]) hit(b *bucket[T]) Hit[T] {
	h := Hit[T]{Rule: c.rule, Path: c.kind, Hostname: b.hostname, Listener: c.listener}
	if c.kind == Prefix {
		h.Prefix = c.path
	}
	return h
}

func (c *candidate[T]) fitsPath(path []byte) bool {
	switch c.kind {
	case Exact:
		return string(path) == c.path
	case Regex:
		return c.match.pattern.Match(path)
	}
	n := len(c.path)
	return n == 0 || len(path) >= n && string(path[:n]) == c.path && (len(path) == n || path[n] == '/')
}

// fits compares all but the path.
func (c *candidate[T]) fits(r *request) bool {
	return c.plain && !r.x.Request.Connect || c.match.fits(r)
}

func (m *match[T]) fits(r *request) bool {
	if m.method == "" && r.x.Request.Connect { // no tunnel but where one is named
		return false
	}
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
