package http2

import (
	"sync"
	"time"

	"github.com/weirmesh/weir/proxy/wire"
)

// page is memory for what is to be written.
type page struct{ b []byte }

const (
	pageSize = 16 << 10
	maxKept  = 128 << 10
	// full is from where on responses wait until something was written.
	full = 64 << 10
)

var pages = sync.Pool{New: func() any { return &page{make([]byte, 0, pageSize)} }}

// output is what a connection has yet to write. Streams and the reader append to
// it; whoever finds nobody writing writes, and takes along what others append
// meanwhile. All of it is under the connection's lock.
type output struct {
	mu    *sync.Mutex // the connection's lock
	wire  *wire.Conn
	stall time.Duration // how long the peer may take to take something
	// failed ends what is under way, made wakes those who wait for room. Both are
	// called under the lock.
	failed func(error)
	made   func()

	idle    sync.Cond // nobody writes any more
	page    *page     // nil: nothing
	writing bool
	control int   // bytes that the reader has left here and that were not written yet
	err     error // why nothing is written any more
	waiting int   // streams that wait for room
	// tableOwed: the next head must say that no dynamic table is used.
	tableOwed bool
	closed    bool           // Run has ended: nothing more is said
	writers   sync.WaitGroup // those that write for others
}

func (o *output) bytes() []byte {
	if o.page == nil {
		o.page = pages.Get().(*page)
	}
	return o.page.b
}

func (o *output) set(b []byte) { o.page.b = b }

func (o *output) pending() int {
	if o.page == nil {
		return 0
	}
	return len(o.page.b)
}

func give(p *page) {
	if cap(p.b) <= maxKept {
		p.b = p.b[:0]
		pages.Put(p)
	}
}

// noteControl counts what the reader has appended since so many bytes were
// pending. A peer that does not read what it makes us say is not spoken to any
// longer. The caller holds the lock.
func (o *output) noteControl(before int) *connError {
	if o.control += o.pending() - before; o.control > maxUnread {
		return &connError{codeCalm, "answers are not read"}
	}
	return nil
}

// flush makes sure that what is pending is written: by whoever writes already,
// by the caller, or, where the caller must not wait, by a goroutine of its own.
// The caller holds the lock, and is told whether it was released meanwhile.
func (o *output) flush(mayWait bool) (released bool) {
	if o.writing || o.pending() == 0 || o.err != nil {
		return false
	}
	o.writing = true
	if mayWait {
		o.write(maxRounds)
	} else {
		o.handOver()
	}
	return mayWait
}

// maxRounds is how often a stream writes what others have left meanwhile, before
// it goes about its own business.
const maxRounds = 4

func (o *output) handOver() {
	o.writers.Go(func() {
		o.mu.Lock()
		o.write(-1)
		o.mu.Unlock()
	})
}

// write writes until nothing is left. The caller holds the lock, which is
// released meanwhile, and has set writing.
func (o *output) write(rounds int) {
	for o.pending() > 0 && o.err == nil {
		if rounds == 0 {
			o.handOver()
			return
		}
		rounds--
		p := o.page
		o.page, o.control = nil, 0
		o.mu.Unlock()
		err := o.send(p.b)
		give(p)
		o.mu.Lock()
		if err != nil {
			o.fail(err)
		}
		if o.waiting > 0 {
			o.made()
		}
	}
	o.writing = false
	o.idle.Broadcast()
}

// rest waits until nobody writes. The caller holds the lock.
func (o *output) rest() {
	for o.writing {
		o.idle.Wait()
	}
}

func (o *output) send(b []byte) error {
	o.wire.WriteUntil(time.Now().Add(o.stall))
	if err := o.wire.Write(b); err != nil {
		return err
	}
	return o.wire.Flush()
}

// fail ends what is written; every stream learns of it. The caller holds the
// lock.
func (o *output) fail(err error) {
	if o.err != nil {
		return
	}
	o.err = err
	o.failed(err)
	o.wire.AbortRead()
}

// head appends a header block as one HEADERS frame, and CONTINUATION frames
// where it does not fit. The caller holds the lock.
func (o *output) head(stream uint32, flags uint8, encode func([]byte) []byte) {
	b := o.bytes()
	at := len(b)
	b = appendHeader(b, 0, frameHeaders, flags|flagEndHeaders, stream)
	if o.tableOwed {
		o.tableOwed = false
		b = append(b, emptyTable)
	}
	b = encode(b)
	length := len(b) - at - headerSize
	if length <= maxFrame {
		b[at], b[at+1], b[at+2] = byte(length>>16), byte(length>>8), byte(length)
		o.set(b)
		return
	}
	block := append([]byte(nil), b[at+headerSize:]...)
	b = b[:at]
	for k := frameHeaders; len(block) > 0; k, flags = frameContinuation, 0 {
		part := block[:min(len(block), maxFrame)]
		block = block[len(part):]
		if len(block) == 0 {
			flags |= flagEndHeaders
		}
		b = append(appendHeader(b, len(part), k, flags, stream), part...)
	}
	o.set(b)
}
