package fuel

import (
	"errors"
	"fmt"
)

// reader decodes. It remembers its first error and returns zeros from then on,
// so that a caller may read several values and look once; loops must look each
// time round.
type reader struct {
	b   []byte
	at  int
	err error
}

var (
	errShort    = errors.New("unexpected end")
	errOverlong = errors.New("a number is too long")
)

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) failf(format string, args ...any) { r.fail(fmt.Errorf(format, args...)) }

func (r *reader) left() int { return len(r.b) - r.at }

func (r *reader) byte() byte {
	if r.err != nil || r.at >= len(r.b) {
		r.fail(errShort)
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

// u32 is strict: at most five bytes, no bits beyond the 32nd.
func (r *reader) u32() uint32 {
	var v uint32
	for shift := 0; ; shift += 7 {
		b := r.byte()
		if r.err != nil {
			return 0
		}
		if shift == 28 && b > 0x0f {
			r.fail(errOverlong)
			return 0
		}
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
}

// skipLEB passes over a signed number, whose value is the engine's to judge.
func (r *reader) skipLEB(maxBytes int) {
	for range maxBytes {
		if b := r.byte(); b < 0x80 || r.err != nil {
			return
		}
	}
	r.fail(errOverlong)
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
func (r *reader) count(what string, limit int) int {
	n := r.u32()
	if r.err == nil && int64(n) > int64(limit) {
		r.failf("%d %s: at most %d are allowed", n, what, limit)
	} else if int64(n) > int64(r.left()) {
		r.fail(errShort)
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

func (r *reader) name() string {
	n := r.u32()
	if n > maxNameLength {
		r.failf("a name of %d bytes: at most %d are allowed", n, maxNameLength)
		return ""
	}
	return string(r.bytes(int(n)))
}

func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// appendS64 appends a signed LEB128 number.
func appendS64(b []byte, v int64) []byte {
	for {
		low := byte(v & 0x7f)
		v >>= 7
		if v == 0 && low&0x40 == 0 || v == -1 && low&0x40 != 0 {
			return append(b, low)
		}
		b = append(b, low|0x80)
	}
}

func appendName(b []byte, name string) []byte {
	return append(appendU32(b, uint32(len(name))), name...)
}
