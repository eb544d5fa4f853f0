package http2

import (
	"strconv"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/section"
)

// staticNames is the static table's number for each name in it (RFC 7541,
// appendix A).
var staticNames = map[string]uint8{
	":authority": 1, ":method": 2, ":path": 4, ":scheme": 6, ":status": 8,
	"accept-charset": 15, "accept-encoding": 16, "accept-language": 17, "accept-ranges": 18, "accept": 19,
	"access-control-allow-origin": 20, "age": 21, "allow": 22, "authorization": 23, "cache-control": 24,
	"content-disposition": 25, "content-encoding": 26, "content-language": 27, "content-length": 28, "content-location": 29,
	"content-range": 30, "content-type": 31, "cookie": 32, "date": 33, "etag": 34, "expect": 35, "expires": 36, "from": 37,
	"host": 38, "if-match": 39, "if-modified-since": 40, "if-none-match": 41, "if-range": 42, "if-unmodified-since": 43,
	"last-modified": 44, "link": 45, "location": 46, "max-forwards": 47, "proxy-authenticate": 48, "proxy-authorization": 49,
	"range": 50, "referer": 51, "refresh": 52, "retry-after": 53, "server": 54, "set-cookie": 55,
	"strict-transport-security": 56, "transfer-encoding": 57, "user-agent": 58, "vary": 59, "via": 60, "www-authenticate": 61,
}

// staticStatus is the static table's number for whole status fields.
var staticStatus = map[int]byte{200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}

// emptyTable says that no dynamic table is used: it precedes the first block
// after the peer has changed how large one may be.
const emptyTable = 0x20

func appendStatus(dst []byte, status int) []byte {
	if n, ok := staticStatus[status]; ok {
		return append(dst, 0x80|n)
	}
	dst = append(dst, 0x08, 3) // :status by its name's number, and three bytes
	return strconv.AppendInt(dst, int64(status), 10)
}

// appendField writes a field as a literal that enters no table. The name becomes
// lower case.
func appendField(dst, name, value []byte) []byte {
	var lowered [64]byte
	key := name
	if len(name) <= len(lowered) {
		key = lowered[:copy(lowered[:], name)]
		section.Lower(key)
	}
	if n, ok := staticNames[string(key)]; ok {
		dst = section.AppendInt(dst, 0, 4, int(n))
	} else {
		dst = section.AppendInt(append(dst, 0), 0, 7, len(name))
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
		case section.ConnectionSpecific(f.Name) || exchange.EqualFold(f.Name, "te") || exchange.EqualFold(f.Name, "host"):
		case len(f.Name) == 14 && exchange.EqualFold(f.Name, "content-length"):
			announced = f.Value
		default:
			dst = appendField(dst, f.Name, f.Value)
		}
	}
	return dst, announced
}
