package http1

import (
	"errors"
	"io"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/wire"
)

// Body reads a message's body from a connection. It is an exchange.Body; the
// chunks lie in the connection's read buffer. Prepare it with one of the Begin
// methods; it is used again for the next message.
type Body struct {
	conn     *wire.Conn
	trailers *exchange.Fields
	kind     bodyKind
	chunks   // where it stands; of a sized body, left alone is used
	err      error
	// Before, when set, runs once before the first read from the network: a
	// client may wait for it (100 Continue).
	Before func() error
	// Idle, when set, runs before each read from the network, to renew a
	// deadline. Waited, when set, runs after it.
	Idle, Waited func()
}

type bodyKind uint8

const (
	bySize bodyKind = iota
	byChunks
	byClose
)

// BeginSized reads n bytes.
func (b *Body) BeginSized(c *wire.Conn, n int64) {
	*b = Body{conn: c, kind: bySize, chunks: chunks{left: n}}
}

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
	switch {
	case b.err != nil || b.kind == bySize && b.left == 0:
		return true
	case b.kind != byChunks:
		return len(b.conn.Buffered()) > 0
	}
	ahead, buf, err := b.ahead(b.conn.Buffered())
	return err != nil || ahead.state == chunkDone || ahead.state == chunkData && len(buf) > 0
}

// Complete reports whether all that is left is here already. It walks all of
// what is buffered: ask once.
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

// Ask tells a client that waits to be asked for the body to send it. Next does
// so itself when nobody has; but then it may not run beside one who writes.
func (b *Body) Ask() error {
	if b.Before == nil {
		return nil
	}
	before := b.Before
	b.Before = nil
	return before()
}

// Expects: the client waits to be asked for the body.
func (b *Body) Expects() bool { return b.Before != nil && len(b.conn.Buffered()) == 0 }

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
	if err := b.Ask(); err != nil {
		return err
	}
	if b.Idle != nil {
		b.Idle()
	}
	err := b.conn.Fill(hint, wire.LargeBuffer)
	if b.Waited != nil {
		b.Waited()
	}
	return err
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (b *Body) nextChunked() ([]byte, error) {
	for {
		switch b.state {
		case chunkData:
			chunk, err := b.take()
			if b.left == 0 {
				b.state = chunkEnd
			}
			return chunk, err
		case chunkDone:
			return nil, io.EOF
		}
		n, err := b.chunks.step(b.conn.Buffered(), b.trailers)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			b.conn.Discard(n)
			continue
		}
		if err := b.fill(wire.SmallBuffer); err != nil {
			return nil, unexpected(err)
		}
	}
}

// Check walks the framing of what is buffered, without consuming it: done, when
// the body ends within. So a broken first chunk is known before anything is
// passed on.
func (b *Body) Check() (done bool, err error) {
	at, buf, err := b.ahead(b.conn.Buffered())
	for err == nil && at.state == chunkData && int64(len(buf)) >= at.left {
		buf = buf[at.left:]
		at.left, at.state = 0, chunkEnd
		at, buf, err = at.ahead(buf)
	}
	return err == nil && at.state == chunkDone, err
}
