package contract

import (
	"bytes"
	"strings"
	"unsafe"
)

// Operation finds the operation of a method and a path, which may have a query behind
// it; nil: there is none. It allocates nothing, but for a path that is long or encoded.
func (c *Contract) Operation(method, path []byte) *Operation {
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	text := unsafe.String(unsafe.SliceData(path), len(path)) // nothing of it stays
	var buffer [16]string
	for _, base := range c.bases {
		rest, below := strings.CutPrefix(text, base)
		if !below || !strings.HasPrefix(rest, "/") {
			continue
		}
		found := c.paths.locate(split(rest[1:], buffer[:0]))
		if found == nil {
			continue
		}
		for _, o := range found.operations {
			if o.Method == string(method) {
				return o
			}
		}
		return nil
	}
	return nil
}

// locate is find without the values.
func (p *paths) locate(segments []string) *paths {
	if len(segments) == 0 {
		if len(p.operations) > 0 {
			return p
		}
		return nil
	}
	if next := p.text[segments[0]]; next != nil {
		if found := next.locate(segments[1:]); found != nil {
			return found
		}
	}
	for _, b := range p.parameters {
		if _, ok := b.segment.match(segments[0]); !ok {
			continue
		}
		if found := b.next.locate(segments[1:]); found != nil {
			return found
		}
	}
	return nil
}
