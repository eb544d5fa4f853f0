package http3

import (
	"strconv"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/section"
)

// staticNames is the static table's first number for each name in it,
// staticFields that for whole fields ("name\x00value").
var staticNames, staticFields = func() (names, fields map[string]int) {
	names, fields = map[string]int{}, map[string]int{}
	for i, f := range static {
		if _, ok := names[f.Name]; !ok {
			names[f.Name] = i
		}
		fields[f.Name+"\x00"+f.Value] = i
	}
	return names, fields
}()

// appendPrefix begins a field section: nothing in it refers to a dynamic table.
func appendPrefix(dst []byte) []byte { return append(dst, 0, 0) }

var nameStatus = []byte(":status")

func appendStatus(dst []byte, status int) []byte {
	var key [16]byte
	b := strconv.AppendInt(append(key[:0], ":status\x00"...), int64(status), 10)
	if n, ok := staticFields[string(b)]; ok {
		return section.AppendInt(dst, 0xc0, 6, n)
	}
	return appendField(dst, nameStatus, b[len(":status\x00"):])
}

// appendField writes a field as a literal, uncompressed: a byte more on the wire
// costs less than what compresses it. The name becomes lower case.
func appendField(dst, name, value []byte) []byte {
	var lowered [64]byte
	key := name
	if len(name) <= len(lowered) {
		key = lowered[:copy(lowered[:], name)]
		section.Lower(key)
	}
	if n, ok := staticNames[string(key)]; ok {
		dst = section.AppendInt(dst, 0x50, 4, n)
	} else {
		dst = section.AppendInt(dst, 0x20, 3, len(name))
		at := len(dst)
		dst = append(dst, name...)
		section.Lower(dst[at:])
	}
	return append(section.AppendInt(dst, 0, 7, len(value)), value...)
}

// appendFields writes the fields but those that belong to one hop of HTTP/1.1 or
// frame a message, and reports whether there was a Content-Length.
func appendFields(dst []byte, fields *exchange.Fields) (_ []byte, announced []byte) {
	for i := range fields.Len() {
		f := fields.At(i)
		switch {
		case connectionSpecific(f.Name):
		case len(f.Name) == 14 && exchange.EqualFold(f.Name, "content-length"):
			announced = f.Value
		default:
			dst = appendField(dst, f.Name, f.Value)
		}
	}
	return dst, announced
}

// connectionSpecific is about fields of HTTP/1.1 for one connection, and what
// pseudo-fields stand for.
func connectionSpecific(name []byte) bool {
	switch len(name) {
	case 2:
		return exchange.EqualFold(name, "te")
	case 4:
		return exchange.EqualFold(name, "host")
	case 6:
		return exchange.EqualFold(name, "expect") // it was met
	}
	return section.ConnectionSpecific(name)
}
