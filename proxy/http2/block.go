package http2

import (
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/section"
)

// fragments is a header block as it comes: in parts, of which HPACK makes fields.
type fragments struct {
	hpack *hpack.Decoder
	open  bool // CONTINUATION frames are to follow
	parts int  // frames that it came in
	bytes int  // of it, compressed
}

func newFragments(field func(hpack.HeaderField)) fragments {
	h := hpack.NewDecoder(defaultTableSize, field)
	h.SetMaxStringLength(http1.MaxHead)
	return fragments{hpack: h}
}

// restart begins a block; wanted says whether its fields are.
func (b *fragments) restart(wanted bool) {
	b.open, b.parts, b.bytes = true, 0, 0
	b.hpack.SetEmitEnabled(wanted)
}

// add takes in the block's next part. A block that cannot be read leaves the
// tables of both sides apart, which ends the connection.
func (b *fragments) add(part []byte, last bool) *connError {
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

// block reads header blocks into exchanges, one after the other: what one says
// may rest on what another has said.
type block struct {
	fragments
	since time.Time // when it began
	section.Reader
}

func newBlock() *block {
	b := &block{}
	b.fragments = newFragments(b.field)
	return b
}

// begin starts a block for an exchange, or for its trailers, or for nobody.
func (b *block) begin(into *exchange.Exchange, trailers *exchange.Fields) {
	b.restart(into != nil || trailers != nil)
	b.since = time.Now()
	switch {
	case into != nil:
		b.Begin(into)
	case trailers != nil:
		b.BeginTrailers(trailers)
	default:
		b.Skip()
	}
}

// field takes in one field of the block.
func (b *block) field(f hpack.HeaderField) {
	if !b.Field(f.Name, f.Value) {
		b.hpack.SetEmitEnabled(false)
	}
}
