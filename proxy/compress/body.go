package compress

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/weirmesh/weir/proxy/exchange"
)

// MaxEncoders is how many may be at work at once in a process. One of zstd or gzip
// takes about 0.6 MB, one of Brotli 1.4 MB.
const MaxEncoders = 256

// window is how far back an encoder looks for repetitions. It is most of an
// encoder's memory, and what a client has to keep.
const window = 128 << 10

// Levels that cost a few microseconds a kilobyte: an edge compresses what it
// will not see again.
const (
	gzipLevel   = 4
	brotliLevel = 4
	zstdLevel   = zstd.SpeedFastest
)

// encoder is one at work, or kept for the next answer.
type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

var (
	atWork atomic.Int64
	idle   = [...]sync.Pool{
		Zstd: {New: func() any {
			e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstdLevel), zstd.WithEncoderConcurrency(1),
				zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
			if err != nil {
				panic(err) // an option is out of range: a test would see it
			}
			return e
		}},
		Brotli: {New: func() any { return brotli.NewWriterOptions(nil, brotli.WriterOptions{Quality: brotliLevel, LGWin: 17}) }},
		Gzip: {New: func() any {
			e, err := gzip.NewWriterLevel(nil, gzipLevel)
			if err != nil {
				panic(err)
			}
			return e
		}},
	}
)

// AtWork is how many encoders are.
func AtWork() int64 { return atWork.Load() }

// Body is a body that is compressed as it is read. The zero value is ready to be
// used by [Rule.Apply].
type Body struct {
	inner   exchange.Body
	coding  Coding
	encoder encoder
	out     []byte // compressed, and not handed out
	given   bool   // out was handed out and is free again
	dirty   bool   // the encoder may hold something back
	err     error  // how the body ended
}

// begin takes an encoder for a body, and reports whether there was one left.
func (b *Body) begin(inner exchange.Body, c Coding) bool {
	if atWork.Add(1) > MaxEncoders {
		atWork.Add(-1)
		return false
	}
	b.inner, b.coding, b.encoder = inner, c, idle[c].Get().(encoder)
	b.encoder.Reset(b)
	b.out, b.given, b.dirty, b.err = b.out[:0], false, false, nil
	return true
}

// maxKept is how much memory for its output a body keeps for the next one.
const maxKept = 64 << 10

// Close gives the encoder back. It may be called more than once.
func (b *Body) Close() {
	if b.encoder == nil {
		return
	}
	b.encoder.Reset(nil)
	idle[b.coding].Put(b.encoder)
	atWork.Add(-1)
	b.inner, b.encoder = nil, nil
	if cap(b.out) > maxKept {
		b.out = nil
	}
}

// Write takes what the encoder puts out.
func (b *Body) Write(p []byte) (int, error) {
	b.out = append(b.out, p...)
	return len(p), nil
}

// Length implements exchange.Body: it is not known.
func (b *Body) Length() int64 { return -1 }

// Ready reports that Next will not wait.
func (b *Body) Ready() bool { return b.err != nil || b.innerReady() }

func (b *Body) innerReady() bool {
	w, ok := b.inner.(interface{ Ready() bool })
	return ok && w.Ready()
}

// Next implements exchange.Body. Before it waits for the service it hands out
// all that there is.
func (b *Body) Next() ([]byte, error) {
	if b.given {
		b.out, b.given = b.out[:0], false
	}
	for len(b.out) == 0 {
		switch {
		case b.err != nil:
			return nil, b.err
		case b.dirty && !b.innerReady():
			b.dirty = false
			b.fail(b.encoder.Flush())
			continue
		}
		chunk, err := b.inner.Next()
		switch {
		case err == io.EOF:
			b.fail(b.encoder.Close())
			b.fail(io.EOF)
		case err != nil:
			b.fail(err)
		default:
			_, err = b.encoder.Write(chunk)
			b.dirty = true
			b.fail(err)
		}
	}
	b.given = true
	return b.out, nil
}

// fail notes the first error.
func (b *Body) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}
