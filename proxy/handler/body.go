package handler

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/weirmesh/weir/proxy/exchange"
)

// body is a request's. It may be closed by another goroutine than the one that
// reads it.
type body struct {
	request  *http.Request
	trailers *exchange.Fields
	closed   atomic.Bool

	reading sync.Mutex // held while the exchange's body is used
	from    exchange.Body
	chunk   []byte
}

func (b *body) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(b.chunk) == 0 {
		chunk, err := b.from.Next()
		if err == io.EOF && b.trailers.Len() > 0 {
			b.request.Trailer = headerOf(b.trailers)
		}
		if err != nil {
			return 0, err
		}
		b.chunk = chunk
	}
	n := copy(p, b.chunk)
	b.chunk = b.chunk[n:]
	return n, nil
}

// aborter is a body that can be made to fail while it is waited for.
type aborter interface{ Abort() }

// Close ends a Read that waits, and returns when there is none any more.
func (b *body) Close() error {
	if !b.closed.Swap(true) {
		if a, ok := b.from.(aborter); ok {
			a.Abort()
		}
	}
	b.reading.Lock()
	b.chunk = nil
	b.reading.Unlock()
	return nil
}
