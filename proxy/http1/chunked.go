package http1

import (
	"bytes"

	"github.com/weirmesh/weir/proxy/exchange"
)

// Limits on the framing of a chunked body.
const (
	maxChunkLine = 4 << 10  // one line of it
	maxTrailers  = 16 << 10 // all trailers
	// maxOverhead is what chunk lines may cost beyond what is usual for the data
	// they carry, so that no one makes us read a page for every byte.
	maxOverhead = 16 << 10
)

// chunks is where a reader stands in the chunked coding (RFC 9112, section
// 7.1).
//
//	line ─▶ data ─▶ end ─▶ line … ─▶ trailers ─▶ done
type chunks struct {
	state    chunkState
	left     int64 // of the chunk
	overhead int64 // of the lines so far, see maxOverhead
	trailed  int   // bytes of trailers so far
}

type chunkState uint8

const (
	chunkLine chunkState = iota
	chunkData
	chunkEnd
	chunkTrailers
	chunkDone
)

// step consumes one line of the framing from the front of buf and moves the
// state on; 0 when the line is not complete.
func (c *chunks) step(buf []byte, trailers *exchange.Fields) (int, error) {
	line, next, err := cutLine(buf, 0)
	if err != nil {
		return 0, err
	}
	if next > maxChunkLine || next == 0 && len(buf) >= maxChunkLine {
		return 0, malformed("a line of the chunked coding is too long")
	}
	if next == 0 {
		return 0, nil
	}
	switch c.state {
	case chunkLine:
		err = c.begin(line)
	case chunkEnd:
		if len(line) != 0 {
			err = malformed("a chunk is longer than its size says")
		}
		c.state = chunkLine
	case chunkTrailers:
		if len(line) == 0 {
			c.state = chunkDone
			break
		}
		if c.trailed += next; c.trailed > maxTrailers {
			return 0, &Error{Status: 431, Reason: "trailers are too large"}
		}
		err = addTrailer(line, trailers)
	}
	return next, err
}

// begin takes in a chunk's first line.
func (c *chunks) begin(line []byte) (err error) {
	if c.left, err = chunkSize(line); err != nil {
		return err
	}
	c.state = chunkData
	if c.left == 0 {
		c.state = chunkTrailers
	}
	c.overhead = max(0, c.overhead+int64(len(line))-16-2*c.left)
	if c.overhead > maxOverhead {
		return malformed("the chunked coding carries more of itself than of the body")
	}
	return nil
}

// chunkSize reads a chunk's first line. Extensions are checked for control
// characters and dropped (RFC 9112, section 7.1.1).
func chunkSize(line []byte) (int64, error) {
	var n int64
	digits := 0
	for _, c := range line {
		var d byte
		switch {
		case c >= '0' && c <= '9':
			d = c - '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			d = c | 0x20 - 'a' + 10
		default:
			return n, checkExtension(line[digits:], digits)
		}
		if digits++; digits > 15 {
			return 0, malformed("a chunk's size is too large")
		}
		n = n<<4 | int64(d)
	}
	if digits == 0 {
		return 0, malformed("a chunk has no size")
	}
	return n, nil
}

func checkExtension(rest []byte, digits int) error {
	if digits == 0 || rest[0] != ';' {
		return malformed("a chunk's size is no number")
	}
	quoted := false
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case control(c):
			return malformed("a chunk extension holds a control character")
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted && i+1 < len(rest) && !control(rest[i+1]):
			i++ // what it escapes
		}
	}
	if quoted { // whoever reads on to the closing quote would find it in the body
		return malformed("a chunk extension has a quote that stays open")
	}
	return nil
}

// addTrailer keeps a trailer field unless it would frame or route the message
// (RFC 9110, section 6.5.1).
func addTrailer(line []byte, trailers *exchange.Fields) error {
	name, value, err := cutField(line)
	if err != nil {
		return err
	}
	if trailers == nil {
		return nil
	}
	if !MayTrail(name) {
		return nil
	}
	if trailers.Len() >= MaxFields {
		return &Error{Status: 431, Reason: "trailers are too large"}
	}
	// The buffer moves on under a trailer: copy it.
	trailers.AddParsed(bytes.Clone(name), bytes.Clone(value))
	return nil
}

// MayTrail reports whether a field may come behind a body.
func MayTrail(name []byte) bool {
	for _, forbidden := range notTrailers {
		if exchange.EqualFold(name, forbidden) {
			return false
		}
	}
	return true
}

// notTrailers would frame, route or authorise the message, or say how to read
// its content, or who asks for it, had they come in its head; some merge
// trailers into it.
var notTrailers = [...]string{"content-length", "transfer-encoding", "host", "connection", "te", "trailer", "upgrade",
	"keep-alive", "proxy-connection", "expect", "max-forwards", "authorization", "proxy-authorization", "www-authenticate",
	"proxy-authenticate", "cookie", "set-cookie", "content-encoding", "content-type", "content-range", "range", "cache-control",
	"pragma", "vary", "age", "expires", "date", "location", "retry-after", "if-match", "if-none-match", "if-modified-since",
	"if-unmodified-since", "if-range", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
	"x-forwarded-port", "x-forwarded-client-cert", "x-real-ip", "x-request-id"}

// ahead walks lines of the framing at the front of buf, without consuming them,
// up to a chunk's data, the end of the body, or where more is needed.
func (c chunks) ahead(buf []byte) (at chunks, rest []byte, err error) {
	at = c
	for at.state != chunkData && at.state != chunkDone {
		n, err := at.step(buf, nil)
		if n == 0 || err != nil {
			return at, buf, err
		}
		buf = buf[n:]
	}
	return at, buf, nil
}
