package http2

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/wire"
)

// stream is one request and its response. Its goroutine serves it; the reader
// fills its body. It is the exchange's Body, too.
type stream struct {
	conn  *Conn
	id    uint32
	place Place // under the lock; nil once it is given back
	head  bool  // the response has no body, whatever it says
	// socket is not nil for one that asks for WebSocket.
	socket *handshake
	// tunnels: it asks for WebSocket or by CONNECT.
	tunnels bool
	// answer is not 0 for a request that is refused.
	answer int
	reason string

	// Under the connection's lock.
	cond       sync.Cond
	dead       error // why nothing more comes or goes
	sendWindow int64

	recvWindow int64
	credit     int   // read, and not given back as window yet
	declared   int64 // of the body, what is left; -1: not known
	ended      bool  // the request is whole
	pending    []byte
	trailers   exchange.Fields
	asking     bool // for the body, with 100 Continue
	answered   bool // the head of the answer is on its way
	aborted    bool
	resetByUs  bool
	incoming   exchange.Fields // trailers that the reader is reading

	// How long the client was waited for, to send the body and to take the
	// answer's.
	receiving, sending wire.Pace

	// Of whoever reads the body.
	taken []byte
	err   error
}

var (
	errClientLeft = errors.New("the client has reset the stream")
	errConnClosed = errors.New("the client's connection is closed")
)

// kill ends a stream from another goroutine. The caller holds the lock.
func (s *stream) kill(why error) {
	if s.dead != nil {
		return
	}
	s.dead = why
	s.cond.Broadcast()
	if s.place != nil {
		s.place.Cut()
	}
}

// Length implements exchange.Body.
func (s *stream) Length() int64 {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.declared < 0 {
		return -1
	}
	return s.declared + int64(len(s.pending))
}

// Ready reports whether Next will not have to wait.
func (s *stream) Ready() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return len(s.pending) > 0 || s.ended || s.dead != nil || s.aborted
}

// Complete reports whether all of the body is here and nothing comes behind it,
// so that the next chunk is the last.
func (s *stream) Complete() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.ended && s.dead == nil && s.trailers.Len() == 0
}

// Buffered is how much of the body is here.
func (s *stream) Buffered() int {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return len(s.pending)
}

// Abort makes a Next that waits fail at once. Anyone may call it.
func (s *stream) Abort() {
	s.conn.mu.Lock()
	s.aborted = true
	s.cond.Broadcast()
	s.conn.mu.Unlock()
}

// Ask tells a client that waits to be asked for the body to send it (RFC 9110,
// section 10.1.1).
func (s *stream) Ask() error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.ask()
	c.out.flush(true)
	return nil
}

// Expects: the client waits to be asked for the body.
func (s *stream) Expects() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.asking && !s.answered && s.dead == nil && len(s.pending) == 0
}

func (s *stream) ask() {
	if !s.asking || s.answered || s.dead != nil {
		return
	}
	s.asking = false
	s.conn.out.head(s.id, 0, func(b []byte) []byte { return appendStatus(b, 100) })
}

// Next implements exchange.Body.
func (s *stream) Next() ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.giveBack(len(s.taken))
	chunk := s.taken[:0]
	if cap(chunk) > maxKept {
		chunk = nil
	}
	s.taken = nil
	if len(s.pending) == 0 {
		if s.err = s.await(); s.err != nil {
			return nil, s.err
		}
	}
	s.taken, s.pending = s.pending, chunk
	return s.taken, nil
}

// await waits for something to read. The caller holds the lock.
func (s *stream) await() error {
	var limit *time.Timer
	late := false
	defer s.paceReceiving(time.Now())()
	for len(s.pending) == 0 {
		switch {
		case s.dead != nil:
			return s.dead
		case s.ended:
			return s.end()
		case s.aborted || late:
			return os.ErrDeadlineExceeded
		}
		s.ask()
		if s.conn.out.flush(true) { // windows, too
			continue
		}
		if limit == nil {
			limit = time.AfterFunc(s.patience(), func() {
				s.conn.mu.Lock()
				late = true
				s.cond.Broadcast()
				s.conn.mu.Unlock()
			})
			defer limit.Stop()
		}
		s.cond.Wait()
	}
	return nil
}

// patience is how long the next part of the body may take.
func (s *stream) patience() time.Duration {
	if s.tunnels {
		return exchange.TunnelIdle
	}
	wait := s.conn.cfg.Stall
	if s.declared >= 0 {
		wait = min(wait, s.receiving.Left(wait))
	}
	if d := s.place.Exchange().Request.Deadline; !d.IsZero() {
		wait = min(wait, time.Until(d))
	}
	return max(wait, 0)
}

// paceReceiving notes a wait for the body that begins now, when it is over. Only a
// body whose length is known has to come at a pace: another one may be a
// conversation. The caller holds the lock.
func (s *stream) paceReceiving(now time.Time) func() {
	return func() {
		s.receiving.Waited(time.Since(now))
		s.receiving.Moved(int64(len(s.pending)))
	}
}

// paceSending does that for a wait until the client takes more. What other streams
// send counts where it is the connection that is waited for. The caller holds the
// lock.
func (s *stream) paceSending(now time.Time) func() {
	before, shared := s.conn.sentData, s.sendWindow > 0
	return func() {
		s.sending.Waited(time.Since(now))
		if shared {
			s.sending.Moved(s.conn.sentData - before)
		}
	}
}

// end hands the trailers over with the end of the body.
func (s *stream) end() error {
	x := s.place.Exchange()
	for i := range s.trailers.Len() {
		f := s.trailers.At(i)
		x.Request.Trailers.AddParsed(f.Name, f.Value)
	}
	return io.EOF
}

// giveBack lets the client send n bytes more: of the stream, while it sends, and
// of all streams together. The caller holds the lock.
func (s *stream) giveBack(n int) {
	c := s.conn
	c.creditConn(n)
	if s.ended || s.dead != nil {
		return
	}
	if s.credit += n; s.credit >= smallestWindowUpdate {
		c.out.set(appendWindow(c.out.bytes(), s.id, s.credit))
		s.recvWindow += int64(s.credit)
		s.credit = 0
	}
}

func (c *Conn) creditConn(n int) {
	if c.credit += n; c.credit >= smallestWindowUpdate && c.out.err == nil {
		c.out.set(appendWindow(c.out.bytes(), 0, c.credit))
		c.recvWindow += int64(c.credit)
		c.credit = 0
	}
}
