package sections

import "errors"

// reader decodes. It remembers its first error and returns zeros from then on.
type reader struct {
	b   []byte
	at  int
	err error
}

var (
	errShort    = errors.New("unexpected end")
	errOverlong = errors.New("a number is too long")
	errTooMany  = errors.New("a list is too long")
	errLongName = errors.New("a name is too long")
)

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) left() int { return len(r.b) - r.at }

func (r *reader) byte() byte {
	if r.err != nil || r.at >= len(r.b) {
		r.fail(errShort)
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

func (r *reader) u64() uint64 {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		b := r.byte()
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	r.fail(errOverlong)
	return 0
}

func (r *reader) u32() int {
	v := r.u64()
	if v > 1<<32-1 {
		r.fail(errOverlong)
		return 0
	}
	return int(v)
}

func (r *reader) bytes(n int) []byte {
	if r.err != nil || n < 0 || n > r.left() {
		r.fail(errShort)
		return nil
	}
	r.at += n
	return r.b[r.at-n : r.at]
}

// count reads the length of a list whose items take at least one byte each.
func (r *reader) count(limit int) int {
	n := r.u32()
	if n > r.left() {
		r.fail(errShort)
	} else if n > limit {
		r.fail(errTooMany)
	}
	if r.err != nil {
		return 0
	}
	return n
}

func (r *reader) name() string {
	n := r.u32()
	if n > maxName {
		r.fail(errLongName)
		return ""
	}
	return string(r.bytes(n))
}

// memory reads the limits of a memory, or of a table: they are alike.
func (r *reader) memory() *Memory {
	flags := r.byte()
	m := &Memory{Min: r.u64(), Bounded: flags&1 != 0, Shared: flags&2 != 0}
	if m.Bounded {
		m.Max = r.u64()
	}
	return m
}
