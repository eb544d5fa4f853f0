package router

import (
	"bytes"
	"regexp"
	"sync"

	"github.com/weirmesh/weir/proxy/exchange"
)

// request is what a match looks at, taken apart once.
type request struct {
	x           *exchange.Exchange
	path, query []byte
}

func newRequest(x *exchange.Exchange) request {
	path, query, _ := bytes.Cut(x.Request.Path, []byte{'?'})
	return request{x: x, path: path, query: query}
}

// valueMatch asks for the value of a header or of a query parameter.
type valueMatch struct {
	name    string
	exact   string
	pattern *regexp.Regexp // nil: exact
}

func (v *valueMatch) fits(value []byte) bool {
	if v.pattern != nil {
		return v.pattern.Match(value)
	}
	return string(value) == v.exact
}

// scratch holds values that must be put together before an expression can see
// them, which few are.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// fitsHeader compares the values of all fields of the name, joined by ", ".
func (v *valueMatch) fitsHeader(fields *exchange.Fields) bool {
	first := nextField(fields, 0, v.name)
	if first < 0 {
		return false
	}
	value := fields.At(first).Value
	next := nextField(fields, first+1, v.name)
	if next < 0 {
		return v.fits(value)
	}
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	joined := append((*buf)[:0], value...)
	for ; next >= 0; next = nextField(fields, next+1, v.name) {
		joined = append(joined, ", "...)
		joined = append(joined, fields.At(next).Value...)
	}
	*buf = joined
	return v.fits(joined)
}

func nextField(fields *exchange.Fields, from int, name string) int {
	for i := from; i < fields.Len(); i++ {
		if exchange.EqualFold(fields.At(i).Name, name) {
			return i
		}
	}
	return -1
}

// fitsParam compares the first parameter of the name.
func (v *valueMatch) fitsParam(query []byte) bool {
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte{'&'})
		name, value, _ := bytes.Cut(pair, []byte{'='})
		if len(pair) > 0 && equalDecoded(name, v.name) {
			return v.fitsDecoded(value)
		}
	}
	return false
}

func (v *valueMatch) fitsDecoded(value []byte) bool {
	if v.pattern == nil {
		return equalDecoded(value, v.exact)
	}
	if bytes.IndexByte(value, '%') < 0 && bytes.IndexByte(value, '+') < 0 {
		return v.pattern.Match(value)
	}
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	decoded := (*buf)[:0]
	for len(value) > 0 {
		c, n := decodeByte(value)
		decoded = append(decoded, c)
		value = value[n:]
	}
	*buf = decoded
	return v.pattern.Match(decoded)
}

// equalDecoded compares raw, percent-decoded, with s.
func equalDecoded(raw []byte, s string) bool {
	if len(raw) < len(s) {
		return false // decoding only shortens
	}
	for len(raw) > 0 {
		c, n := decodeByte(raw)
		if s == "" || c != s[0] {
			return false
		}
		raw, s = raw[n:], s[1:]
	}
	return s == ""
}

// decodeByte decodes the first byte of raw, which is not empty, and says how
// many it took.
func decodeByte(raw []byte) (c byte, n int) {
	switch c = raw[0]; {
	case c == '+':
		return ' ', 1
	case c == '%' && len(raw) >= 3:
		high, low := unhex(raw[1]), unhex(raw[2])
		if high < 16 && low < 16 {
			return high<<4 | low, 3
		}
	}
	return c, 1
}

// unhex returns the value of a hexadecimal digit, 16 for anything else.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 16
}
