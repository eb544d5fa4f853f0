package http1

import (
	"bytes"
	"errors"
	"io"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/wire"
)

// Limits on the framing of a chunked body.
const (
	maxChunkLine = 4 << 10
	maxTrailers  = 16 << 10
)

// Body reads a message's body from a connection. It is an exchange.Body; the
// chunks lie in the connection's read buffer. Prepare it with one of the Begin
// methods; it is used again for the next message.
type Body struct {
	conn     *wire.Conn
	trailers *exchange.Fields
	kind     bodyKind
	left     int64 // of the body, or of the chunk
	state    chunkState
	err      error
	// Before, when set, runs once before the first read from the network: a
	// client may wait for it (100 Continue).
	Before func() error
	// Idle, when set, runs before each read from the network, to renew a
	// deadline.
	Idle func()
}

type bodyKind uint8

const (
	bySize bodyKind = iota
	byChunks
	byClose
)

type chunkState uint8

const (
	chunkLine chunkState = iota
	chunkData
	chunkEnd
	chunkTrailers
)

// BeginSized reads n bytes.
func (b *Body) BeginSized(c *wire.Conn, n int64) { *b = Body{conn: c, kind: bySize, left: n} }

// BeginChunked reads up to the last chunk; trailers are put into t.
func (b *Body) BeginChunked(c *wire.Conn, t *exchange.Fields) {
	*b = Body{conn: c, kind: byChunks, trailers: t}
}

// BeginUntilClose reads to the end of the stream.
func (b *Body) BeginUntilClose(c *wire.Conn) { *b = Body{conn: c, kind: byClose} }

// Abort makes a Next that waits fail at once. Anyone may call it.
func (b *Body) Abort() { b.conn.AbortRead() }

// Length is what is left of a sized body, else -1.
func (b *Body) Length() int64 {
	if b.kind == bySize {
		return b.left
	}
	return -1
}

// Done reports whether the body was read to its end, so that the connection
// stands at the next message.
func (b *Body) Done() bool {
	return b.err == io.EOF && b.kind != byClose || b.kind == bySize && b.left == 0
}

// Failed is the error that ended the body early.
func (b *Body) Failed() error {
	if b.err == io.EOF {
		return nil
	}
	return b.err
}

// Ready reports whether Next will not have to wait.
func (b *Body) Ready() bool {
	if b.err != nil || b.kind == bySize && b.left == 0 {
		return true
	}
	if b.kind == byChunks {
		if b.state == chunkData {
			return len(b.conn.Buffered()) > 0
		}
		return bytes.IndexByte(b.conn.Buffered(), '\n') >= 0
	}
	return len(b.conn.Buffered()) > 0
}

// Complete reports whether all that is left is here already.
func (b *Body) Complete() bool {
	switch b.kind {
	case bySize:
		return int64(len(b.conn.Buffered())) >= b.left
	case byChunks:
		done, err := b.Check()
		return done && err == nil
	}
	return false
}

// Next implements exchange.Body.
func (b *Body) Next() ([]byte, error) {
	if b.err != nil {
		return nil, b.err
	}
	var chunk []byte
	switch b.kind {
	case bySize:
		chunk, b.err = b.nextSized()
	case byChunks:
		chunk, b.err = b.nextChunked()
	default:
		chunk, b.err = b.nextRaw()
	}
	return chunk, b.err
}

func (b *Body) nextSized() ([]byte, error) {
	if b.left == 0 {
		return nil, io.EOF
	}
	return b.take()
}

// take returns what is here of the b.left bytes that are due, at least one.
func (b *Body) take() ([]byte, error) {
	if len(b.conn.Buffered()) == 0 {
		if err := b.fill(int(min(b.left, wire.LargeBuffer))); err != nil {
			return nil, unexpected(err)
		}
	}
	chunk := b.conn.Buffered()
	if int64(len(chunk)) > b.left {
		chunk = chunk[:b.left]
	}
	b.conn.Discard(len(chunk))
	b.left -= int64(len(chunk))
	return chunk, nil
}

func (b *Body) nextRaw() ([]byte, error) {
	if len(b.conn.Buffered()) == 0 {
		if err := b.fill(wire.LargeBuffer); err != nil {
			return nil, err
		}
	}
	chunk := b.conn.Buffered()
	b.conn.Discard(len(chunk))
	return chunk, nil
}

func (b *Body) fill(hint int) error {
	if b.Before != nil {
		before := b.Before
		b.Before = nil
		if err := before(); err != nil {
			return err
		}
	}
	if b.Idle != nil {
		b.Idle()
	}
	return b.conn.Fill(hint, wire.LargeBuffer)
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (b *Body) nextChunked() ([]byte, error) {
	for {
		if b.state == chunkData {
			chunk, err := b.take()
			if b.left == 0 {
				b.state = chunkEnd
			}
			return chunk, err
		}
		n, err := b.step(b.conn.Buffered(), b.trailers)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			b.conn.Discard(n)
			if b.state == chunkLine && b.left < 0 {
				return nil, io.EOF
			}
			continue
		}
		if err := b.fill(wire.SmallBuffer); err != nil {
			return nil, unexpected(err)
		}
	}
}

// step consumes one line of the framing from the front of buf and moves the
// state on; 0 when the line is not complete. The end of the body is the state
// chunkLine with left < 0.
func (b *Body) step(buf []byte, trailers *exchange.Fields) (int, error) {
	line, next, err := cutLine(buf, 0)
	if err != nil {
		return 0, err
	}
	if next == 0 {
		if len(buf) >= maxChunkLine {
			return 0, malformed("a line of the chunked coding is too long")
		}
		return 0, nil
	}
	switch b.state {
	case chunkLine:
		b.left, err = chunkSize(line)
		b.state = chunkData
		if b.left == 0 {
			b.state = chunkTrailers
		}
	case chunkEnd:
		if len(line) != 0 {
			err = malformed("a chunk is longer than its size says")
		}
		b.state = chunkLine
	case chunkTrailers:
		if len(line) == 0 {
			b.state, b.left = chunkLine, -1
			break
		}
		err = addTrailer(line, trailers)
	}
	return next, err
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
	trimmed := bytes.TrimLeft(rest, " \t")
	if digits == 0 || len(trimmed) == 0 || trimmed[0] != ';' {
		return malformed("a chunk's size is no number")
	}
	for _, c := range trimmed {
		if c < ' ' && c != '\t' || c == 0x7f {
			return malformed("a chunk extension holds a control character")
		}
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
	for _, forbidden := range []string{"content-length", "transfer-encoding", "host", "connection", "te", "trailer",
		"upgrade", "keep-alive", "authorization", "content-encoding", "content-type", "content-range"} {
		if exchange.EqualFold(name, forbidden) {
			return nil
		}
	}
	size := len(line)
	for i := range trailers.Len() {
		size += len(trailers.At(i).Name) + len(trailers.At(i).Value)
	}
	if size > maxTrailers || trailers.Len() >= MaxFields {
		return &Error{431, "trailers are too large"}
	}
	// The buffer moves on under a trailer: copy it.
	trailers.AddParsed(bytes.Clone(name), bytes.Clone(value))
	return nil
}

// Check walks the framing of what is buffered, without consuming it: done, when
// the body ends within. So a broken first chunk is known before anything is
// passed on.
func (b *Body) Check() (done bool, err error) {
	ahead := Body{kind: byChunks, state: b.state, left: b.left}
	buf := b.conn.Buffered()
	for {
		if ahead.state == chunkData {
			if int64(len(buf)) < ahead.left {
				return false, nil
			}
			buf = buf[ahead.left:]
			ahead.left, ahead.state = 0, chunkEnd
		}
		n, err := ahead.step(buf, nil)
		if n == 0 || err != nil {
			return false, err
		}
		if ahead.state == chunkLine && ahead.left < 0 {
			return true, nil
		}
		buf = buf[n:]
	}
}
