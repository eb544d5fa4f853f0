package http2

import (
	"golang.org/x/net/http2/hpack"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/section"
)

// answerBlock reads header blocks of answers, one after the other: what one says
// may rest on what another has said. What it reads belongs to the lane, not to the
// exchange, whose goroutine may have gone by then.
type answerBlock struct {
	fragments

	of       uint32 // the stream
	ends     bool   // it ends the answer
	into     *answer
	trailing bool

	bad    error // the first thing that is wrong
	size   int
	fields bool // the pseudo-fields are over
}

// answer is the head of one and its trailers, in memory of their own.
type answer struct {
	status   int
	length   int64 // as announced; -1: not
	fields   exchange.Fields
	trailers exchange.Fields
	arena    []byte
}

// reset keeps the memory, if that is not much.
func (a *answer) reset() {
	a.status, a.length = 0, -1
	a.fields.Reset()
	a.trailers.Reset()
	if cap(a.arena) > maxArena {
		a.arena = nil
	}
	a.arena = a.arena[:0]
}

const maxArena = 16 << 10

// copy puts text where it lives as long as the answer.
func (a *answer) copy(s string) []byte {
	if cap(a.arena)-len(a.arena) < len(s) {
		a.arena = make([]byte, 0, max(1024, 2*cap(a.arena), len(s)))
	}
	from := len(a.arena)
	a.arena = append(a.arena, s...)
	return a.arena[from:len(a.arena):len(a.arena)]
}

func newAnswerBlock() *answerBlock {
	b := &answerBlock{}
	b.fragments = newFragments(b.field)
	return b
}

// begin starts a block: of a head, of trailers, or of what nobody waits for.
func (b *answerBlock) begin(into *answer, trailing bool) {
	b.restart(into != nil)
	b.into, b.trailing = into, trailing
	b.bad, b.size, b.fields = nil, 0, false
}

// field takes in one field of the block.
func (b *answerBlock) field(f hpack.HeaderField) {
	b.size += len(f.Name) + len(f.Value) + section.Overhead
	switch {
	case b.bad != nil || b.into == nil:
	case b.size > http1.MaxHead:
		b.bad = section.Malformed("its head is too large")
		b.hpack.SetEmitEnabled(false)
	case f.IsPseudo():
		b.bad = b.pseudo(f)
	default:
		b.fields = true
		if b.bad = section.CheckField(f.Name, f.Value); b.bad == nil {
			b.bad = b.regular(f)
		}
	}
}

func (b *answerBlock) pseudo(f hpack.HeaderField) error {
	switch {
	case b.trailing:
		return section.Malformed("trailers hold a pseudo-field")
	case b.fields:
		return section.Malformed("a pseudo-field stands behind other fields")
	case f.Name != ":status":
		return section.Malformed("a pseudo-field is unknown")
	case b.into.status != 0:
		return section.Malformed("a pseudo-field is repeated")
	}
	var err error
	b.into.status, err = section.ParseStatus(f.Value)
	return err
}

func (b *answerBlock) regular(f hpack.HeaderField) error {
	a := b.into
	to := &a.fields
	if b.trailing {
		to = &a.trailers
		if !http1.MayTrail([]byte(f.Name)) {
			return nil
		}
	} else if f.Name == "content-length" {
		n, err := section.ParseLength(f.Value)
		if err != nil {
			return err
		}
		if a.length >= 0 && a.length != n {
			return section.Malformed("the length of the body is given twice")
		}
		a.length = n
	}
	if to.Len() >= http1.MaxFields {
		return section.Malformed("its head has too many fields")
	}
	to.AddParsed(a.copy(f.Name), a.copy(f.Value))
	return nil
}

// drop: nobody waits for the block any more.
func (b *answerBlock) drop() {
	b.into = nil
	b.hpack.SetEmitEnabled(false)
}

// finish draws the conclusions from a whole block.
func (b *answerBlock) finish() error {
	switch {
	case b.bad != nil:
		return b.bad
	case b.trailing && !b.ends:
		return section.Malformed("trailers do not end the answer")
	case b.trailing:
		return nil
	case b.into.status == 0:
		return section.Malformed("it has no status")
	case b.into.status < 200 && b.ends:
		return section.Malformed("an interim answer ends the stream")
	}
	return nil
}
