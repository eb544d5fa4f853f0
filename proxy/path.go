package proxy

import (
	"bytes"

	"github.com/weirmesh/weir/proxy/exchange"
)

// normalisePath brings a path into the form in which routes and policies compare
// it, and in which it is sent, so that what they decide on is what the service
// sees: characters that need no percent-encoding have none (RFC 3986, section
// 6.2.2.2), and there are no dot segments (section 5.2.4). A path that climbs
// above its root is refused, and so is one with a segment that some servers take
// for a dot segment although it is none: with a parameter ("..;a"), or behind an
// encoded slash or a backslash.
func normalisePath(x *exchange.Exchange) *Error {
	path := x.Request.Path
	encoded := bytes.IndexByte(path, '%') >= 0
	if !encoded && !bytes.Contains(path, dotSegment) && bytes.IndexByte(path, '\\') < 0 {
		return nil
	}
	query := []byte(nil)
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path, query = path[:i], path[i:]
	}
	if encoded && bytes.IndexByte(path, '%') >= 0 {
		if decoded := decodeUnreserved(x, path); len(decoded) < len(path) {
			path = decoded
			x.Request.Path = x.Copy(string(path), string(query))
		}
	}
	switch plain, disguised := findDots(path); {
	case disguised:
		return errDisguised
	case !plain:
		return nil
	}
	clean, ok := removeDots(x, path)
	if !ok {
		return errBadPath
	}
	x.Request.Path = x.Copy(string(clean), string(query))
	return nil
}

// decodeUnreserved decodes what needs no encoding. The codec has checked that a
// percent sign is followed by two digits.
func decodeUnreserved(x *exchange.Exchange, path []byte) []byte {
	decoded := x.CopyBytes(path)[:0]
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) {
			if d := unhex(path[i+1])<<4 | unhex(path[i+2]); unreserved(d) {
				c = d
				i += 2
			}
		}
		decoded = append(decoded, c)
	}
	return decoded
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// removeDots gives false for a path that climbs above its root.
func removeDots(x *exchange.Exchange, path []byte) (clean []byte, ok bool) {
	clean = x.CopyBytes(path)[:0]
	trailing := false
	for segment := range bytes.SplitSeq(path[min(1, len(path)):], slash) {
		trailing = false
		switch string(segment) {
		case ".":
			trailing = true
		case "..":
			i := bytes.LastIndexByte(clean, '/')
			if i < 0 {
				return nil, false
			}
			clean, trailing = clean[:i], true
		default:
			clean = append(append(clean, '/'), segment...)
		}
	}
	if trailing || len(clean) == 0 {
		clean = append(clean, '/')
	}
	return clean, true
}

var (
	slash      = []byte("/")
	dotSegment = []byte("/.")
)

// findDots reports whether there are dot segments, plain or in disguise. The path
// has its unreserved characters decoded.
func findDots(path []byte) (plain, disguised bool) {
	start, clean := 0, true // of the segment, and whether slashes bound it
	for i := 0; i <= len(path); i++ {
		width, isSlash := separator(path[i:])
		if width == 0 {
			continue
		}
		segment, parameter, _ := bytes.Cut(path[start:i], semicolon)
		if s := string(segment); s == "." || s == ".." {
			if clean && isSlash && len(segment)+len(parameter) == i-start {
				plain = true
			} else {
				return plain, true
			}
		}
		start, clean = i+width, isSlash
		i += width - 1
	}
	return plain, false
}

var semicolon = []byte(";")

// separator says how many bytes of what ends a segment stand here, and whether
// they are what RFC 3986 has for it: a slash, or the end.
func separator(rest []byte) (width int, isSlash bool) {
	switch {
	case len(rest) == 0 || rest[0] == '/':
		return 1, true
	case rest[0] == '\\':
		return 1, false
	case len(rest) > 2 && rest[0] == '%':
		if c := unhex(rest[1])<<4 | unhex(rest[2]); c == '/' || c == '\\' {
			return 3, false
		}
	}
	return 0, false
}
