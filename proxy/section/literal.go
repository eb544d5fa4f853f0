package section

import "github.com/weirmesh/weir/proxy/exchange"

// AppendInt writes an integer with a prefix of so many bits, as HPACK and QPACK do
// (RFC 7541, section 5.1; RFC 9204, section 4.1.1). The bits above the prefix are
// those of first.
func AppendInt(dst []byte, first byte, bits uint, n int) []byte {
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

// Lower makes a name lower case, in place.
func Lower(b []byte) {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
}

// ConnectionSpecific is about a field of HTTP/1.1 that is for one connection, and
// not for others (RFC 9113, section 8.2.2; RFC 9114, section 4.2).
func ConnectionSpecific(name []byte) bool {
	switch len(name) {
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
