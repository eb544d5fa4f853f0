package http2

import (
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/section"
)

// block reads header blocks into exchanges, one after the other: what one says
// may rest on what another has said.
type block struct {
	hpack *hpack.Decoder

	open  bool      // CONTINUATION frames are to follow
	since time.Time // when it began
	parts int       // frames that it came in
	bytes int       // of it, compressed
	section.Reader
}

func newBlock() *block {
	b := &block{}
	b.hpack = hpack.NewDecoder(defaultTableSize, b.field)
	b.hpack.SetMaxStringLength(http1.MaxHead)
	return b
}

// begin starts a block for an exchange, or for its trailers, or for nobody.
func (b *block) begin(into *exchange.Exchange, trailers *exchange.Fields) {
	b.open, b.parts, b.bytes, b.since = true, 0, 0, time.Now()
	switch {
	case into != nil:
		b.Begin(into)
	case trailers != nil:
		b.BeginTrailers(trailers)
	default:
		b.Skip()
	}
	b.hpack.SetEmitEnabled(into != nil || trailers != nil)
}

// add takes in the block's next part. A block that cannot be read leaves the
// tables of both sides apart, which ends the connection.
func (b *block) add(part []byte, last bool) *connError {
	b.parts++
	b.bytes += len(part)
	if b.parts > maxContinuations || b.bytes > 2*http1.MaxHead {
		return &connError{codeCalm, "a head does not come to its end"}
	}
	if _, err := b.hpack.Write(part); err != nil {
		return &connError{codeCompression, err.Error()}
	}
	if !last {
		return nil
	}
	b.open = false
	if err := b.hpack.Close(); err != nil {
		return &connError{codeCompression, err.Error()}
	}
	return nil
}

// field takes in one field of the block.
func (b *block) field(f hpack.HeaderField) {
	if !b.Field(f.Name, f.Value) {
		b.hpack.SetEmitEnabled(false)
	}
}
