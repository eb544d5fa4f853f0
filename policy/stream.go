package policy

import (
	"errors"
	"io"
	"strconv"

	"github.com/weirmesh/weir/proxy/exchange"
)

// keptBuffer is how much of a hold buffer a warm run keeps for the next exchange.
const keptBuffer = 64 << 10

var errLateAnswer = errors.New("a response has already begun: it cannot be answered anew")

// stream is a body as one filter leaves it: a Body around another. Streams of
// several filters nest, so a chunk goes through them in order when it is pulled.
//
//	source ─▶ held ─▶ filter ─▶ ready ─▶ Next
type stream struct {
	step       *step
	isResponse bool

	source exchange.Body
	// held is what the filter has seen and not let go; buffer is its memory.
	held, buffer []byte
	// left is the chunk as the filter leaves it. It is a field because what a
	// filter is given the address of would otherwise be allocated.
	left []byte
	// ready was let go before anyone asked for it. It is valid until source is
	// asked again.
	ready []byte
	// begun: begin has returned, so the head may be on its way.
	begun bool
	// passed: the filter has seen enough.
	passed bool
	// ended: the filter has seen the end of the body. drained: so have we.
	ended, drained bool
	err            error
}

// begin puts the stream around *body. A filter that holds is shown the body at
// once until it lets go; a body of known length is asked for its first chunk, so
// that one which comes in one piece keeps a known length.
func (b *stream) begin(body *exchange.Body, fields *exchange.Fields, hold bool) error {
	b.step.streams = true
	b.source = *body
	*body = b
	if hold || b.source.Length() >= 0 {
		chunk, err := b.pull()
		b.ready = chunk
		if err != nil && err != io.EOF {
			return err
		}
	}
	b.begun = true
	setLength(b.step.run.x, fields, b.Length())
	return nil
}

// setLength makes Content-Length say what is known.
func setLength(x *exchange.Exchange, fields *exchange.Fields, n int64) {
	if n < 0 {
		fields.Del("content-length")
		return
	}
	var digits [20]byte
	text := strconv.AppendInt(digits[:0], n, 10)
	if now := fields.Get("content-length"); string(now) != string(text) {
		fields.Set(x.Copy("content-length"), x.CopyBytes(text))
	}
}

// Next implements exchange.Body.
func (b *stream) Next() ([]byte, error) {
	if len(b.ready) > 0 {
		chunk := b.ready
		b.ready = nil
		return chunk, nil
	}
	return b.pull()
}

// Length implements exchange.Body.
func (b *stream) Length() int64 {
	if b.ended {
		return int64(len(b.ready))
	}
	if b.passed {
		if rest := b.source.Length(); rest >= 0 {
			return int64(len(b.ready)) + rest
		}
	}
	return -1
}

// pull asks the source until the filter lets something go.
func (b *stream) pull() ([]byte, error) {
	if b.err != nil {
		return nil, b.err
	}
	if b.passed && !b.ended {
		var chunk []byte
		chunk, b.err = b.source.Next()
		return chunk, b.err
	}
	for !b.ended {
		chunk, err := b.source.Next()
		if err != nil && err != io.EOF {
			b.err = err
			return nil, err
		}
		b.drained = err == io.EOF
		b.ended = b.drained || b.source.Length() == 0
		if chunk, b.err = b.show(chunk); b.err != nil {
			return nil, b.err
		}
		if len(chunk) > 0 {
			return chunk, nil
		}
	}
	if !b.drained {
		// The source knew that it was at its end; it still wants to say so, to
		// fill the trailers and to free its connection.
		b.drained = true
		if _, err := b.source.Next(); err != io.EOF {
			b.err = err
			return nil, err
		}
	}
	b.err = io.EOF
	return nil, b.err
}

// show gives the filter what was held and the new chunk, and returns what it
// lets go.
func (b *stream) show(chunk []byte) ([]byte, error) {
	s := b.step
	if len(b.held) > 0 {
		if len(b.held)+len(chunk) > s.run.chain.config.HoldLimit {
			return nil, b.tooLarge()
		}
		b.buffer = append(b.held, chunk...)
		chunk, b.held = b.buffer, nil
	}
	if s.silent {
		return chunk, nil
	}
	b.left = chunk
	verdict, err := b.call()
	switch {
	case err != nil:
		return chunk, s.fail(b.phase(), err)
	case verdict == Respond:
		return nil, b.answered()
	case verdict == Pass:
		b.passed = true
	case verdict == Hold && !b.ended:
		if len(b.left) > s.run.chain.config.HoldLimit {
			return nil, b.tooLarge()
		}
		b.buffer = append(b.buffer[:0], b.left...)
		b.held = b.buffer
		return nil, nil
	}
	return b.left, nil
}

func (b *stream) call() (Verdict, error) {
	filter, x := b.step.filter, b.step.run.x
	if b.isResponse {
		return filter.OnResponseBody(x, &b.left, b.ended)
	}
	return filter.OnRequestBody(x, &b.left, b.ended)
}

// answered ends the stream of a filter that wrote the response itself.
func (b *stream) answered() error {
	if b.isResponse && b.begun {
		b.step.silent = true
		spec := b.step.run.chain.policies[b.step.index].Spec()
		return &Error{Policy: spec.Tenant + "/" + spec.Name, Phase: b.phase(), Status: 500, Err: errLateAnswer}
	}
	b.step.silent = true
	return ErrAnswered
}

func (b *stream) tooLarge() error {
	if b.isResponse {
		return b.step.tooLarge(b.phase(), 500)
	}
	return b.step.tooLarge(b.phase(), 413)
}

func (b *stream) phase() string {
	if b.isResponse {
		return "response body"
	}
	return "request body"
}

func (b *stream) reset() {
	buffer := b.buffer[:0]
	if cap(buffer) > keptBuffer {
		buffer = nil
	}
	*b = stream{step: b.step, isResponse: b.isResponse, buffer: buffer}
}
