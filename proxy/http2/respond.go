package http2

import (
	"errors"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// run serves the stream, from top to bottom. A panic ends it and nothing else:
// what its exchange held is given up, not given back.
func (s *stream) run() {
	c := s.conn
	defer func() {
		if p := recover(); p != nil {
			c.cfg.Logger.Error("exchange panicked; its stream is reset", "panic", p, "stack", string(debug.Stack()))
			s.finish(codeInternal)
		}
		c.running.Done()
	}()
	p := s.place
	x := p.Exchange()
	if s.left() {
		s.finish(codeCancel)
		c.cfg.Give(p)
		return
	}
	sent, err := s.converse(p, x)
	p.Finish(x, sent, err)
	end := codeOf(err)
	if end == codeInternal && x.Request.Connect {
		end = codeConnect // RFC 9113, section 8.5
	}
	s.finish(end)
	c.cfg.Give(p)
}

// codeOf is how an answer that broke off is reset. One whose time is over was
// given up: to a client of gRPC, INTERNAL_ERROR would say something else.
func codeOf(err error) code {
	switch {
	case err == nil:
		return codeNone
	case errors.Is(err, os.ErrDeadlineExceeded):
		return codeCancel
	}
	return codeInternal
}

// converse has the place answer, and sends what it answers.
func (s *stream) converse(p Place, x *exchange.Exchange) (sent int64, err error) {
	talker, talks := p.(Talker)
	switch {
	case s.answer != 0:
		p.Reject(x, s.answer, s.reason)
	case talks:
		return talker.Talk(x, (*Writer)(s))
	default:
		p.Serve(x)
	}
	return s.respond(x)
}

// left: the client has gone before it was served.
func (s *stream) left() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.dead != nil
}

// finish takes the stream off the connection, and tells the client when it has
// not sent all, or not got all.
func (s *stream) finish(end code) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.place = nil
	delete(c.streams, s.id)
	if s.dead == nil && (end != codeNone || !s.ended) {
		s.resetByUs = true
		c.out.set(appendReset(c.out.bytes(), s.id, end))
	}
	c.past.add(s.id, s.resetByUs)
	c.creditConn(len(s.taken) + len(s.pending))
	if len(c.streams) == 0 {
		c.idleSince = time.Now()
		c.settleDrain()
	}
	c.out.flush(true)
}

// respond sends the exchange's answer and reports how much of a body went out.
func (s *stream) respond(x *exchange.Exchange) (sent int64, err error) {
	if x.Request.Connect && x.Tunnels() {
		return s.tunnel(x)
	}
	if s.socket != nil {
		if s.socket.agreed(x) {
			return s.tunnel(x)
		}
		if x.Response.Status < 300 && !x.Response.Reset {
			x.Answer(502, nil) // to say so would be to agree
		}
	}
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
	if bodyless || length == 0 {
		return 0, s.sendHead(r, length, bodyless, true)
	}
	if err := s.sendHead(r, length, false, false); err != nil {
		return 0, err
	}
	return s.relay(x, length)
}

// sendHead appends the answer's head. It is written with what follows, or now if
// nothing does.
func (s *stream) sendHead(r *exchange.Response, length int64, bodyless, last bool) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.dead != nil {
		return s.dead
	}
	s.answered = true
	c.productive++
	c.out.head(s.id, endFlag(last), func(b []byte) []byte {
		var announced []byte
		b, announced = appendFields(appendStatus(b, r.Status), &r.Fields)
		switch {
		case bodyless && announced != nil && r.Status != 204:
			b = appendField(b, nameLength, announced) // what a GET would have had
		case !bodyless && length >= 0:
			var digits [20]byte
			b = appendField(b, nameLength, strconv.AppendInt(digits[:0], length, 10))
		}
		return b
	})
	if last {
		c.out.flush(true)
	}
	return nil
}

var nameLength = []byte("content-length")

// Inform implements exchange.Informer.
func (s *stream) Inform(x *exchange.Exchange) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.dead != nil {
		return s.dead
	}
	c.out.head(s.id, 0, func(b []byte) []byte {
		b, _ = appendFields(appendStatus(b, x.Response.Status), &x.Response.Fields)
		return b
	})
	c.out.flush(true)
	return nil
}

func endFlag(last bool) uint8 {
	if last {
		return flagEndStream
	}
	return 0
}

// waiter is a Body that knows whether Next would have to wait.
type waiter interface{ Ready() bool }

// relay sends the body as it comes. What has been gathered goes out before each
// wait.
func (s *stream) relay(x *exchange.Exchange, length int64) (sent int64, err error) {
	body := x.Response.Body
	hurry, _ := body.(waiter)
	for {
		if hurry == nil || !hurry.Ready() {
			if err := s.flush(); err != nil {
				return sent, err
			}
		}
		chunk, err := body.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return sent, err
		}
		sent += int64(len(chunk))
		if length >= 0 && sent > length {
			return sent, errTooMuch
		}
		last := sent == length && !mayTrail(x)
		if err := s.sendData(chunk, last); err != nil {
			return sent, err
		}
		if last {
			return sent, s.flush()
		}
	}
	if sent < length {
		return sent, io.ErrUnexpectedEOF
	}
	return sent, s.sendEnd(&x.Response.Trailers)
}

// mayTrail: all of a body whose length is known was read, but for what may stand
// behind it.
func mayTrail(x *exchange.Exchange) bool {
	body, knows := x.Response.Body.(interface{ Whole() bool })
	return x.Response.Trailing && (!knows || !body.Whole())
}

var errReset = errors.New("the stream was to be reset")

var errTooMuch = errors.New("the body is longer than its Content-Length")

func (s *stream) flush() error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.conn.out.flush(true)
	return s.dead
}

// sendEnd ends a body whose last byte was not known to be the end.
func (s *stream) sendEnd(trailers *exchange.Fields) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.dead != nil {
		return s.dead
	}
	if trailers.Len() > 0 {
		c.out.head(s.id, flagEndStream, func(b []byte) []byte {
			b, _ = appendFields(b, trailers)
			return b
		})
	} else {
		c.out.set(appendHeader(c.out.bytes(), 0, frameData, flagEndStream, s.id))
	}
	c.out.flush(true)
	return nil
}

// sendData appends a part of the body as the windows allow.
func (s *stream) sendData(p []byte, last bool) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 {
		n, err := s.room(len(p))
		if n <= 0 && err == nil {
			n, err = s.awaitRoom(len(p))
		}
		if err != nil {
			return err
		}
		b := appendHeader(c.out.bytes(), n, frameData, endFlag(last && n == len(p)), s.id)
		c.out.set(append(b, p[:n]...))
		s.sendWindow -= int64(n)
		c.sendWindow -= int64(n)
		c.sentData += int64(n)
		s.sending.Moved(int64(n))
		c.productive++
		p = p[n:]
		if c.out.pending() >= pageSize-headerSize {
			c.out.flush(true)
		}
	}
	return nil
}

// room is how many of n bytes may be appended now. The caller holds the lock.
func (s *stream) room(n int) (int, error) {
	c := s.conn
	if s.dead != nil || c.out.pending() >= full {
		return 0, s.dead
	}
	return int(min(int64(n), maxFrame, s.sendWindow, c.sendWindow)), nil
}

// awaitRoom waits until some of n bytes may be appended. The caller holds the
// lock.
func (s *stream) awaitRoom(n int) (int, error) {
	c := s.conn
	var limit *time.Timer
	late := false
	defer s.paceSending(time.Now())()
	for {
		if n, err := s.room(n); n > 0 || err != nil {
			return n, err
		}
		if late {
			return 0, os.ErrDeadlineExceeded
		}
		if c.out.flush(true) { // the client cannot give windows for what it does not get
			continue
		}
		if limit == nil {
			limit = time.AfterFunc(min(c.cfg.Stall, s.sending.Left(c.cfg.Stall)), func() {
				c.mu.Lock()
				late = true
				s.cond.Broadcast()
				c.mu.Unlock()
			})
			defer limit.Stop()
		}
		c.out.waiting++
		s.cond.Wait()
		c.out.waiting--
	}
}
