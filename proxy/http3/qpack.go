package http3

import (
	"errors"
	"sync"

	"github.com/quic-go/qpack"
	"golang.org/x/net/http2/hpack"
)

// static is QPACK's static table (RFC 9204, appendix A), as its library knows it.
var static = func() (table []qpack.HeaderField) {
	for i := byte(0); ; i++ {
		encoded := []byte{0, 0, 0xc0 | i}
		if i >= 0x3f {
			encoded = []byte{0, 0, 0xff, i - 0x3f}
		}
		field, err := qpack.NewDecoder().Decode(encoded)()
		if err != nil {
			return table
		}
		table = append(table, field)
	}
}()

var errSection = errors.New("the section is not whole, or refers to a table that there is not")

// decoder reads encoded field sections. Its memory is used again.
type decoder struct {
	text []byte // names and values, one behind the other
	ends []int  // of each
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

// keptText is how much memory a decoder keeps for the next section.
const keptText = 16 << 10

func (d *decoder) free() {
	if cap(d.text) <= keptText {
		decoders.Put(d)
	}
}

// decode gives each field of a section to field, until that has had enough.
func (d *decoder) decode(b []byte, field func(name, value string) bool) error {
	d.text, d.ends = d.text[:0], d.ends[:0]
	if err := d.section(b); err != nil {
		return err
	}
	text, at := string(d.text), 0
	for i := 0; i < len(d.ends); i += 2 {
		name, value := text[at:d.ends[i]], text[d.ends[i]:d.ends[i+1]]
		at = d.ends[i+1]
		if !field(name, value) {
			return nil
		}
	}
	return nil
}

// section reads the fields. What is too large is not read to its end: the last
// one read says so by itself.
func (d *decoder) section(b []byte) error {
	inserts, b, err := readInt(b, 8)
	if err != nil || inserts != 0 {
		return errSection
	}
	if _, b, err = readInt(b, 7); err != nil { // the base, which nothing refers to
		return errSection
	}
	const overhead = 32
	for len(b) > 0 && len(d.text)+len(d.ends)/2*overhead <= maxSection {
		if b, err = d.line(b); err != nil {
			return errSection
		}
	}
	return nil
}

// line reads one field line (RFC 9204, section 4.5).
func (d *decoder) line(b []byte) (rest []byte, err error) {
	first := b[0]
	switch {
	case first&0xc0 == 0xc0: // in the static table, name and value
		at, rest, err := readInt(b, 6)
		if err != nil || at >= uint64(len(static)) {
			return nil, errSection
		}
		d.add(static[at].Name)
		d.add(static[at].Value)
		return rest, nil
	case first&0xd0 == 0x50: // the name is
		at, rest, err := readInt(b, 4)
		if err != nil || at >= uint64(len(static)) {
			return nil, errSection
		}
		d.add(static[at].Name)
		return d.literal(rest, 7)
	case first&0xe0 == 0x20: // neither is
		if b, err = d.literal(b, 3); err != nil {
			return nil, err
		}
		return d.literal(b, 7)
	}
	return nil, errSection // it refers to the dynamic table
}

func (d *decoder) add(s string) {
	d.text = append(d.text, s...)
	d.ends = append(d.ends, len(d.text))
}

// literal reads a string whose length has a prefix of so many bits, above which
// one says whether it is compressed.
func (d *decoder) literal(b []byte, bits uint) (rest []byte, err error) {
	if len(b) == 0 {
		return nil, errSection
	}
	compressed := b[0]&(1<<bits) != 0
	length, b, err := readInt(b, bits)
	if err != nil || length > uint64(len(b)) {
		return nil, errSection
	}
	if compressed {
		if _, err := hpack.HuffmanDecode(d, b[:length]); err != nil {
			return nil, err
		}
	} else {
		d.text = append(d.text, b[:length]...)
	}
	d.ends = append(d.ends, len(d.text))
	return b[length:], nil
}

// Write appends what was compressed.
func (d *decoder) Write(b []byte) (int, error) {
	d.text = append(d.text, b...)
	return len(b), nil
}

// readInt reads an integer with a prefix of so many bits (RFC 7541, section 5.1).
func readInt(b []byte, bits uint) (n uint64, rest []byte, err error) {
	if len(b) == 0 {
		return 0, nil, errSection
	}
	most := uint64(1)<<bits - 1
	n = uint64(b[0]) & most
	b = b[1:]
	if n < most {
		return n, b, nil
	}
	for shift := uint(0); len(b) > 0 && shift < 56; shift += 7 {
		c := b[0]
		b = b[1:]
		n += uint64(c&0x7f) << shift
		if c&0x80 == 0 {
			return n, b, nil
		}
	}
	return 0, nil, errSection
}
