package http3

import (
	"strconv"

	"github.com/weirmesh/weir/proxy/exchange"
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
		return appendInt(dst, 0xc0, 6, n)
	}
	return appendField(dst, nameStatus, b[len(":status\x00"):])
}

// appendInt writes an integer with a prefix of so many bits (RFC 7541, section
// 5.1). The bits above the prefix are those of first.
func appendInt(dst []byte, first byte, bits uint, n int) []byte {
	most := 1<<bits - 1
	if n < most {
		return append(dst, first|byte(n))
	}
	dst = append(dst, first|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

// appendField writes a field as a literal, uncompressed: a byte more on the wire
// costs less than what compresses it. The name becomes lower case.
func appendField(dst, name, value []byte) []byte {
	var lowered [64]byte
	key := name
	if len(name) <= len(lowered) {
		key = lowered[:copy(lowered[:], name)]
		lower(key)
	}
	if n, ok := staticNames[string(key)]; ok {
		dst = appendInt(dst, 0x50, 4, n)
	} else {
		dst = appendInt(dst, 0x20, 3, len(name))
		at := len(dst)
		dst = append(dst, name...)
		lower(dst[at:])
	}
	return append(appendInt(dst, 0, 7, len(value)), value...)
}

func lower(b []byte) {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
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

// connectionSpecific: RFC 9114, section 4.2; and what pseudo-fields stand for.
func connectionSpecific(name []byte) bool {
	switch len(name) {
	case 2:
		return exchange.EqualFold(name, "te")
	case 4:
		return exchange.EqualFold(name, "host")
	case 6:
		return exchange.EqualFold(name, "expect") // it was met
	case 7:
		return exchange.EqualFold(name, "upgrade")
	case 10:
		return exchange.EqualFold(name, "connection") || exchange.EqualFold(name, "keep-alive")
	case 16:
		return exchange.EqualFold(name, "proxy-connection")
	case 17:
		return exchange.EqualFold(name, "transfer-encoding")
	}
	return false
}
