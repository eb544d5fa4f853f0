package resource

import (
	"strconv"
	"strings"
)

// Path names a field of a resource as people write it:
// spec.rules[0].matches[0].path.value, metadata.labels["app"].
type Path string

// Field is the path of a field inside p.
func (p Path) Field(name string) Path {
	if p == "" {
		return Path(name)
	}
	return p + "." + Path(name)
}

// Index is the path of an element of the list p.
func (p Path) Index(i int) Path {
	return p + "[" + Path(strconv.Itoa(i)) + "]"
}

// Key is the path of an entry of the map p.
func (p Path) Key(key string) Path {
	return p + "[" + Path(strconv.Quote(key)) + "]"
}

// Parent is the path without its last step, "" for a field of the resource.
func (p Path) Parent() Path {
	last := 0
	for i := 0; i < len(p); {
		switch p[i] {
		case '.':
			last = i
			i++
		case '[':
			last = i
			i += bracketed(string(p[i:]))
		default:
			i++
		}
	}
	return p[:last]
}

// bracketed is the length of the index or key that s begins with.
func bracketed(s string) int {
	if key, err := strconv.QuotedPrefix(s[1:]); err == nil {
		return 1 + len(key) + 1
	}
	if end := strings.IndexByte(s, ']'); end >= 0 {
		return end + 1
	}
	return len(s)
}
