package transform

import (
	"encoding/binary"
	"encoding/json"
	"math/bits"
)

// The functions here walk over JSON without reading it: each takes a position
// and returns the one behind what stands there, or broken. So numbers of any
// size and the order of members stay as they are, at a fraction of what
// encoding/json costs in a sandbox. What is walked over is not checked further
// than it must be.
//
// They are written for a sandbox, where a call costs Go as much as looking at
// twenty bytes: positions instead of slices, and few calls for each member.

// broken is the position behind what is not JSON.
const broken = -1

// peek returns the byte at a position, 0 at the end.
func peek(doc []byte, at int) byte {
	if at >= len(doc) {
		return 0
	}
	return doc[at]
}

// space passes over white space, and over control characters, which have no
// place in JSON.
func space(doc []byte, at int) int {
	for at < len(doc) && doc[at] <= ' ' {
		at++
	}
	return at
}

// member is where one member of an object stands: from is its name's opening
// quote, nameEnd is behind the closing one, and end is behind its value.
type member struct {
	from, nameEnd, value, end int
}

// members appends the members of the object whose brace is before a position,
// and returns the position of its closing brace.
func members(doc []byte, at int, list []member) ([]member, int) {
	at = space(doc, at)
	if peek(doc, at) == '}' {
		return list, at
	}
	for {
		m := member{from: at, nameEnd: text(doc, at)}
		if m.nameEnd == broken {
			return list, broken
		}
		at = space(doc, m.nameEnd)
		if peek(doc, at) != ':' {
			return list, broken
		}
		m.value = space(doc, at+1)
		if peek(doc, m.value) == '"' {
			m.end = text(doc, m.value)
		} else {
			m.end = value(doc, m.value)
		}
		if m.end == broken {
			return list, broken
		}
		list = append(list, m)
		at = space(doc, m.end)
		switch peek(doc, at) {
		case '}':
			return list, at
		case ',':
			at = space(doc, at+1)
		default:
			return list, broken
		}
	}
}

// unquote reads a member's name that has an escape in it.
func unquote(quoted []byte) []byte {
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
	for at++; ; at += 2 {
		at = quoteOrEscape(doc, at)
		if at >= len(doc) {
			return broken
		}
		if doc[at] == '"' {
			return at + 1
		}
	}
}

// value takes a value of any kind: a string, an object or array by counting
// its brackets, or a number, true, false or null.
func value(doc []byte, at int) int {
	switch kinds[peek(doc, at)] {
	case quote:
		return text(doc, at)
	case opening:
		return nested(doc, at)
	case word:
		return literal(doc, at)
	}
	return broken
}

func nested(doc []byte, at int) int {
	for depth := 0; at < len(doc); {
		switch kinds[doc[at]] {
		case opening:
			depth++
		case closing:
			if depth--; depth == 0 {
				return at + 1
			}
		case quote:
			if at = text(doc, at); at == broken {
				return broken
			}
			at = quoteOrBracket(doc, at)
			continue
		}
		at = quoteOrBracket(doc, at+1)
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
	quote
	opening
	closing
	word // a part of a literal
)

// kinds is indexed by byte: one load instead of a row of comparisons.
var kinds = func() (k [256]kind) {
	k['"'] = quote
	k['{'], k['['] = opening, opening
	k['}'], k[']'] = closing, closing
	for _, c := range "+-.0123456789Eabcdefghijklmnopqrstuvwxyz" {
		k[c] = word
	}
	return k
}()

// The two functions below look at eight bytes at a time, which takes a sandbox
// a quarter of the work. Both return the length where there is nothing.

func quoteOrEscape(doc []byte, at int) int {
	for ; len(doc)-at >= 8; at += 8 {
		w := binary.LittleEndian.Uint64(doc[at:])
		if found := matches(w, '"') | matches(w, '\\'); found != 0 {
			return at + bits.TrailingZeros64(found)/8
		}
	}
	for at < len(doc) && doc[at] != '"' && doc[at] != '\\' {
		at++
	}
	return at
}

// quoteOrBracket may also stop at a byte that is neither.
func quoteOrBracket(doc []byte, at int) int {
	for ; len(doc)-at >= 8; at += 8 {
		// The bit tells [ from { and ] from }; setting it makes them one.
		w := binary.LittleEndian.Uint64(doc[at:]) | 0x20*ones
		if found := matches(w, '"') | matches(w, '{') | matches(w, '}'); found != 0 {
			return at + bits.TrailingZeros64(found)/8
		}
	}
	for at < len(doc) && kinds[doc[at]] != quote && kinds[doc[at]] != opening && kinds[doc[at]] != closing {
		at++
	}
	return at
}

const ones = 0x0101010101010101

// matches sets the highest bit of the first byte of w that is c, and perhaps of
// bytes after that one.
func matches(w uint64, c byte) uint64 {
	w ^= uint64(c) * ones
	return (w - ones) &^ w & (0x80 * ones)
}
