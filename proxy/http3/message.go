package http3

import (
	"io"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/section"
)

// message is what follows the head of a request or an answer: its body, and
// trailers.
type message struct {
	link     *link
	in       input
	declared int64  // of the body, what is left; -1: not known
	left     uint64 // of the DATA frame under way
	trailed  bool   // the trailers were read
	over     bool   // the message is whole
	trailers exchange.Fields
}

// here is how much of the DATA frame under way can be read without waiting.
func (m *message) here() int { return int(min(uint64(len(m.in.b)), m.left)) }

// whole: all of the body is here, and nothing comes behind it.
func (m *message) whole() bool {
	return m.in.ended && uint64(len(m.in.b)) == m.left && (m.declared < 0 || uint64(m.declared) == m.left)
}

// chunk takes what is here of the body.
func (m *message) chunk() []byte {
	b := m.in.b[:m.here()]
	m.in.b = m.in.b[len(b):]
	m.left -= uint64(len(b))
	if m.declared >= 0 {
		m.declared -= int64(len(b))
	}
	return b
}

// arrive waits for some of the DATA frame under way.
func (m *message) arrive() error {
	if len(m.in.b) > 0 {
		return nil
	}
	return inFrame(m.in.fill())
}

// advance goes on to the next part of the body, or to the end of the message.
func (m *message) advance() error {
	for m.left == 0 && !m.over {
		kind, length, err := m.in.frame()
		switch {
		case err == io.EOF:
			if m.declared > 0 {
				return &streamError{codeMessage, "the body is shorter than its Content-Length"}
			}
			m.over = true
		case err != nil:
			return err
		case !known(kind):
			err = m.skip(length)
		case m.trailed || kind != frameData && kind != frameHeaders:
			return &connError{codeFrameUnexpected, "a frame has no place in a message"}
		case kind == frameHeaders:
			err = m.readTrailers(length)
		case m.declared >= 0 && length > uint64(m.declared):
			return &streamError{codeMessage, "the body is longer than its Content-Length"}
		case length == 0:
			m.link.charge(1)
		default:
			m.left = length
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

// skip drops a frame of a kind that is not known.
func (m *message) skip(length uint64) error {
	m.link.charge(1 + int(min(length/pageSize, patience)))
	return m.in.skip(length)
}

func (m *message) readTrailers(length uint64) error {
	m.trailed = true
	if length > maxSection {
		return &streamError{codeMessage, "trailers are too large"}
	}
	b, err := m.in.take(int(length))
	if err != nil {
		return err
	}
	var fields section.Reader
	fields.BeginTrailers(&m.trailers)
	if err := readSection(b, fields.Field); err != nil {
		return err
	}
	if err := fields.Err(); err != nil {
		return &streamError{codeMessage, err.Error()}
	}
	return nil
}

func readSection(b []byte, field func(name, value string) bool) error {
	d := decoders.Get().(*decoder)
	defer d.free()
	if err := d.decode(b, field); err != nil {
		return &connError{codeDecompression, err.Error()}
	}
	return nil
}
