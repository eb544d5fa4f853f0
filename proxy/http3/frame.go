package http3

import (
	"io"
	"sync"

	"github.com/quic-go/quic-go/quicvarint"
)

// The frames (RFC 9114, section 7.2).
const (
	frameData       = 0x0
	frameHeaders    = 0x1
	frameCancelPush = 0x3
	frameSettings   = 0x4
	framePush       = 0x5
	frameGoAway     = 0x7
	frameMaxPush    = 0xd
)

// known: a frame of this kind has its place, which is not where it is ignored.
// Those of HTTP/2 that have no counterpart have none (section 7.2.8).
func known(kind uint64) bool {
	switch kind {
	case frameData, frameHeaders, frameCancelPush, frameSettings, framePush, frameGoAway, frameMaxPush, 0x2, 0x6, 0x8, 0x9:
		return true
	}
	return false
}

// page is memory for what is read or to be written.
type page struct{ b []byte }

const pageSize = 16 << 10

var pages = sync.Pool{New: func() any { return &page{make([]byte, pageSize)} }}

// input reads a stream through a page that it holds while there is something to
// read.
type input struct {
	from  io.Reader
	page  *page
	b     []byte // read, and not yet consumed
	ended bool   // nothing comes behind it
}

// fill reads more behind what is there; io.EOF when nothing comes.
func (in *input) fill() error {
	if in.ended {
		return io.EOF
	}
	if in.page == nil {
		in.page = pages.Get().(*page)
	}
	room := in.page.b
	if len(in.b) == len(room) {
		room = make([]byte, 2*len(in.b)) // a head that is larger than a page
		in.page = &page{room}
	}
	kept := copy(room, in.b)
	n, err := in.from.Read(room[kept:])
	in.b = room[:kept+n]
	if err == io.EOF {
		in.ended = true
		if n > 0 {
			return nil
		}
	}
	return err
}

// free gives the page back, and what is in it up.
func (in *input) free() {
	if in.page != nil && len(in.page.b) == pageSize {
		pages.Put(in.page)
	}
	in.page, in.b = nil, nil
}

var errTruncated = &connError{codeFrame, "a frame is not whole"}

// varint reads a number. io.EOF: there is none.
func (in *input) varint() (uint64, error) {
	for {
		if v, n, err := quicvarint.Parse(in.b); err == nil {
			in.b = in.b[n:]
			return v, nil
		}
		if err := in.fill(); err != nil {
			if err == io.EOF && len(in.b) > 0 {
				return 0, errTruncated
			}
			return 0, err
		}
	}
}

// frame reads a frame's header. io.EOF: there is no frame.
func (in *input) frame() (kind, length uint64, err error) {
	if kind, err = in.varint(); err != nil {
		return 0, 0, err
	}
	length, err = in.varint()
	return kind, length, inFrame(err)
}

// inFrame: the end of a stream within a frame is one too early.
func inFrame(err error) error {
	if err == io.EOF {
		return errTruncated
	}
	return err
}

// take reads n bytes, which are valid until more is read.
func (in *input) take(n int) ([]byte, error) {
	for len(in.b) < n {
		if err := in.fill(); err != nil {
			return nil, inFrame(err)
		}
	}
	b := in.b[:n]
	in.b = in.b[n:]
	return b, nil
}

// skip drops n bytes.
func (in *input) skip(n uint64) error {
	for {
		here := min(uint64(len(in.b)), n)
		in.b = in.b[here:]
		if n -= here; n == 0 {
			return nil
		}
		if err := in.fill(); err != nil {
			return inFrame(err)
		}
	}
}

// headRoom is what appendFrame needs for the header of a frame.
const headRoom = 1 + 4

// appendFrame appends a frame whose payload is appended by encode.
func appendFrame(dst []byte, kind byte, encode func([]byte) []byte) []byte {
	at := len(dst)
	dst = encode(append(dst, kind, 0, 0, 0, 0))
	length := len(dst) - at - headRoom
	dst[at+1], dst[at+2], dst[at+3], dst[at+4] = 0x80|byte(length>>24), byte(length>>16), byte(length>>8), byte(length)
	return dst
}

// appendData appends the header of a DATA frame.
func appendData(dst []byte, length int64) []byte {
	return quicvarint.Append(append(dst, frameData), uint64(length))
}
