package http3

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/section"
)

// run serves the stream, from top to bottom. A panic ends it and nothing else:
// what its exchange held is given up, not given back.
func (s *stream) run() {
	c := s.conn
	unwatch := func() bool { return true }
	defer func() {
		if p := recover(); p != nil {
			c.cfg.Logger.Error("exchange panicked; its stream is reset", "panic", p, "stack", string(debug.Stack()))
			s.reset(codeInternal)
		}
		unwatch()
		s.mu.Lock()
		s.serving = false
		s.mu.Unlock()
		s.end()
	}()
	p := c.cfg.Take()
	s.place, s.in.from = p, s
	p.Begin()
	x := p.Exchange()
	s.serving = true
	unwatch = context.AfterFunc(s.quic.Context(), s.gone)
	if s.serve(p, x) {
		sent, err := s.respond(x)
		unwatch()
		if err == nil {
			err = s.quic.Close()
			s.closed = err == nil
		}
		if err != nil {
			s.reset(codeOf(err))
		}
		p.Finish(x, sent, err)
	}
	s.mu.Lock()
	s.serving = false
	s.mu.Unlock()
	c.cfg.Give(p)
}

// codeOf is how an answer that broke off is reset. One whose time is over was
// given up: that is no error inside.
func codeOf(err error) code {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return codeCancelled
	}
	return codeInternal
}

// serve fills the response. It is false where there is to be none.
func (s *stream) serve(p Place, x *exchange.Exchange) bool {
	err := s.begin(x)
	if err == nil {
		if x.Request.Body == nil {
			s.in.free()
		}
		p.Serve(x)
		return true
	}
	if status, reason := section.StatusOf(err); status != 0 {
		p.Reject(x, status, reason)
		return true
	}
	var bad *streamError
	if s.giveUp(err); errors.As(err, &bad) && bad.code == codeMessage {
		p.Reject(x, 400, bad.reason) // to be counted; the client is not told
		p.Finish(x, 0, bad)
	}
	return false
}

// end gives the stream back.
func (s *stream) end() {
	var remote *quic.StreamError
	if errors.As(context.Cause(s.quic.Context()), &remote) && remote.Remote {
		s.conn.charge(resetCost)
	} else {
		s.conn.guard.credit()
	}
	// A client may still be sending what nobody wants (RFC 9114, section 4.1).
	s.quic.CancelRead(quic.StreamErrorCode(codeNone))
	if !s.closed {
		s.quic.CancelWrite(quic.StreamErrorCode(codeCancelled)) // also where the client did it: it takes both to end
	}
	s.in.free()
	s.quic.ReleaseStreamCredit()
	s.conn.leave()
}

// write implements writer.
func (s *stream) write(b []byte) error {
	_ = s.quic.SetWriteDeadline(time.Now().Add(s.conn.cfg.Stall)) // Write says what is wrong
	_, err := s.quic.Write(b)
	return err
}

// output gathers what is to be sent, in a page that it holds while there is
// something to send.
type output struct {
	to   writer
	page *page
	b    []byte
}

// writer sends bytes that the peer has some time to make room for.
type writer interface{ write([]byte) error }

func (o *output) flush() error {
	if len(o.b) == 0 {
		return nil
	}
	err := o.to.write(o.b)
	o.free()
	return err
}

func (o *output) free() {
	if o.page != nil && cap(o.b) == pageSize {
		pages.Put(o.page)
	}
	o.page, o.b = nil, nil
}

func (o *output) begin() {
	if o.page == nil {
		o.page = pages.Get().(*page)
		o.b = o.page.b[:0]
	}
}

// body appends a part of a body, or sends it if it is large.
func (o *output) body(p []byte) error {
	if len(o.b)+len(p) > pageSize {
		if err := o.flush(); err != nil {
			return err
		}
		if len(p) >= pageSize/2 {
			return o.to.write(p)
		}
	}
	o.begin()
	o.b = append(o.b, p...)
	return nil
}

// respond sends the exchange's answer and reports how much of a body went out.
func (s *stream) respond(x *exchange.Exchange) (sent int64, err error) {
	if status := x.Response.Status; status < 200 || status > 999 {
		if x.Response.Reset {
			return 0, errReset
		}
		x.Answer(500, nil) // no final answer: someone put an interim one there, or nonsense
	}
	r := &x.Response
	bodyless := s.head || r.Status == 204 || r.Status == 304
	length := int64(0)
	if r.Body != nil {
		length = r.Body.Length()
	}
	s.mu.Lock()
	s.answered = true
	s.mu.Unlock()
	out := output{to: s}
	defer out.free()
	out.begin()
	out.b = appendHead(out.b, r, length, bodyless)
	if bodyless || length == 0 {
		return 0, out.flush()
	}
	return s.relay(&out, x, length)
}

// Inform implements exchange.Informer.
func (s *stream) Inform(x *exchange.Exchange) error {
	return s.write(appendFrame(nil, frameHeaders, func(b []byte) []byte {
		b, _ = appendFields(appendStatus(appendPrefix(b), x.Response.Status), &x.Response.Fields)
		return b
	}))
}

var nameLength = []byte("content-length")

func appendHead(dst []byte, r *exchange.Response, length int64, bodyless bool) []byte {
	return appendFrame(dst, frameHeaders, func(b []byte) []byte {
		b, announced := appendFields(appendStatus(appendPrefix(b), r.Status), &r.Fields)
		switch {
		case bodyless && announced != nil && r.Status != 204:
			b = appendField(b, nameLength, announced) // what a GET would have had
		case !bodyless && length >= 0:
			var digits [20]byte
			b = appendField(b, nameLength, strconv.AppendInt(digits[:0], length, 10))
		}
		return b
	})
}

// waiter is a Body that knows whether Next would have to wait.
type waiter interface{ Ready() bool }

// relay sends the body as it comes: in one frame where its length is known. What
// has been gathered goes out before each wait.
func (s *stream) relay(out *output, x *exchange.Exchange, length int64) (sent int64, err error) {
	body := x.Response.Body
	hurry, _ := body.(waiter)
	if length > 0 {
		out.b = appendData(out.b, length)
	}
	for length < 0 || sent < length || mayTrail(x) {
		if hurry == nil || !hurry.Ready() {
			if err := out.flush(); err != nil {
				return sent, err
			}
		}
		chunk, err := body.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			_ = out.flush()
			return sent, err
		}
		sent += int64(len(chunk))
		if length >= 0 && sent > length {
			return sent, errTooMuch
		}
		if length < 0 {
			out.begin()
			out.b = appendData(out.b, int64(len(chunk)))
		}
		if err := out.body(chunk); err != nil {
			return sent, err
		}
	}
	if length >= 0 && sent < length {
		return sent, io.ErrUnexpectedEOF
	}
	if trailers := &x.Response.Trailers; trailers.Len() > 0 && (length < 0 || x.Response.Trailing) {
		out.begin()
		out.b = appendFrame(out.b, frameHeaders, func(b []byte) []byte {
			b, _ = appendFields(appendPrefix(b), trailers)
			return b
		})
	}
	return sent, out.flush()
}

// mayTrail: all of a body whose length is known was read, but for what may stand
// behind it.
func mayTrail(x *exchange.Exchange) bool {
	body, knows := x.Response.Body.(interface{ Whole() bool })
	return x.Response.Trailing && (!knows || !body.Whole())
}

var errReset = errors.New("the stream was to be reset")

var errTooMuch = errors.New("the body is longer than its Content-Length")
