package main

import (
	"bytes"
	"encoding/json"
)

// The functions here walk over JSON without reading it: each takes a position
// and returns the one behind what stands there, or broken. So numbers of any
// size and the order of members stay as they are, at an eighth of what
// encoding/json costs in a sandbox. What is walked over is not checked further
// than it must be. They keep to local variables and few calls, which are what
// costs Go in a sandbox.

// broken is the position behind what is not JSON.
const broken = -1

// peek returns the byte at a position, 0 at the end.
func peek(doc []byte, at int) byte {
	if at >= len(doc) {
		return 0
	}
	return doc[at]
}

func space(doc []byte, at int) int {
	for at < len(doc) && kinds[doc[at]] == blank {
		at++
	}
	return at
}

// member is one member of an object: its name without quotes, its value, and
// the text that holds both.
type member struct {
	name, value, text []byte
	end               int
}

func readMember(doc []byte, at int) (m member, ok bool) {
	nameEnd := text(doc, at)
	if nameEnd == broken {
		return m, false
	}
	from := space(doc, nameEnd)
	if peek(doc, from) != ':' {
		return m, false
	}
	from = space(doc, from+1)
	if m.end = value(doc, from); m.end == broken {
		return m, false
	}
	m.name, m.value, m.text = unquote(doc[at:nameEnd]), doc[from:m.end], doc[at:m.end]
	return m, true
}

// unquote reads a member's name; only one with an escape needs the slow way.
func unquote(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var name string
	if json.Unmarshal(quoted, &name) != nil {
		return quoted
	}
	return []byte(name)
}

// text takes a string with its quotes.
func text(doc []byte, at int) int {
	if peek(doc, at) != '"' {
		return broken
	}
	for at++; at < len(doc); at++ {
		switch doc[at] {
		case '"':
			return at + 1
		case '\\':
			at++
		}
	}
	return broken
}

// value takes a value of any kind: a string, an object or array by counting
// its brackets, or a number, true, false or null.
func value(doc []byte, at int) int {
	depth := 0
	for at < len(doc) {
		switch kinds[doc[at]] {
		case quote:
			if at = text(doc, at); at == broken {
				return broken
			}
			if depth == 0 {
				return at
			}
			continue
		case opening:
			depth++
		case closing:
			if depth--; depth == 0 {
				return at + 1
			}
		case word:
			if depth == 0 {
				return literal(doc, at)
			}
		}
		if depth <= 0 {
			return broken // Neither a value's first byte nor inside of one.
		}
		at++
	}
	return broken
}

func literal(doc []byte, at int) int {
	for at < len(doc) && kinds[doc[at]] == word {
		at++
	}
	return at
}

// kind is what a byte means outside of strings.
type kind uint8

const (
	other kind = iota
	blank
	quote
	opening
	closing
	word // a part of a literal
)

// kinds is indexed by byte: one load instead of a row of comparisons.
var kinds = func() (k [256]kind) {
	k[' '], k['\t'], k['\r'], k['\n'] = blank, blank, blank, blank
	k['"'] = quote
	k['{'], k['['] = opening, opening
	k['}'], k[']'] = closing, closing
	for _, c := range "+-.0123456789Eabcdefghijklmnopqrstuvwxyz" {
		k[c] = word
	}
	return k
}()
