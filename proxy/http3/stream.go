package http3

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// stream is one request and its response. Its goroutine serves it. It is the
// exchange's Body, too, which one goroutine at a time reads.
type stream struct {
	conn  *Conn
	quic  *quic.Stream
	place Place
	message
	head bool // the response has no body, whatever it says
	// closed: all of the response was handed to QUIC.
	closed bool
	until  time.Time // when what belongs to the head must be here; zero once it is

	err error // why nothing more of the body comes

	mu       sync.Mutex
	serving  bool // the place may be told that the client has left
	aborted  bool // no one wants more of the body
	asking   bool // for the body, with 100 Continue
	answered bool // the head of the answer is on its way
}

// gone is called when the client, or the connection, has given the stream up.
func (s *stream) gone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving {
		s.place.Cut()
	}
}

// reset ends both directions of the stream.
func (s *stream) reset(c code) {
	s.quic.CancelRead(quic.StreamErrorCode(c))
	s.quic.CancelWrite(quic.StreamErrorCode(c))
}

// giveUp tells the client what it has done, whichever it ends: the connection,
// or the stream.
func (s *stream) giveUp(err error) {
	var e *streamError
	switch {
	case s.conn.failFor(err):
	case errors.As(err, &e):
		s.reset(e.code)
	}
}

// Read reads from the stream as long as that may take.
func (s *stream) Read(p []byte) (int, error) {
	until := s.until
	if until.IsZero() {
		until = s.bodyUntil()
	}
	s.mu.Lock()
	if s.aborted {
		s.mu.Unlock()
		return 0, os.ErrDeadlineExceeded
	}
	_ = s.quic.SetReadDeadline(until) // it fails for no one who can still read
	s.mu.Unlock()
	return s.quic.Read(p)
}

// bodyUntil is when the next part of the body must be here.
func (s *stream) bodyUntil() time.Time {
	until := time.Now().Add(s.conn.cfg.Stall)
	if d := s.place.Exchange().Request.Deadline; !d.IsZero() && d.Before(until) {
		until = d
	}
	return until
}

// Abort makes a Next that waits fail at once. Anyone may call it.
func (s *stream) Abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	_ = s.quic.SetReadDeadline(time.Unix(1, 0)) // it fails for no one who waits
}

// Ask tells a client that waits to be asked for the body to send it (RFC 9110,
// section 10.1.1).
func (s *stream) Ask() error {
	s.mu.Lock()
	wanted := s.asking && !s.answered
	s.asking = false
	s.mu.Unlock()
	if !wanted {
		return nil
	}
	return s.write(appendFrame(make([]byte, 0, 16), frameHeaders, func(b []byte) []byte {
		return appendStatus(appendPrefix(b), 100)
	}))
}

// Expects: the client waits to be asked for the body.
func (s *stream) Expects() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asking && !s.answered && s.here() == 0
}

// Length implements exchange.Body.
func (s *stream) Length() int64 {
	if s.declared < 0 && s.Complete() {
		return int64(s.left)
	}
	return s.declared
}

// Ready reports whether Next will not have to wait.
func (s *stream) Ready() bool { return s.err != nil || s.here() > 0 || s.in.ended }

// Complete reports whether all of the body is here and nothing comes behind it,
// so that the next chunk is the last.
func (s *stream) Complete() bool { return s.err == nil && s.whole() }

// Buffered is how much of the body is here.
func (s *stream) Buffered() int { return s.here() }

// Next implements exchange.Body.
func (s *stream) Next() ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	if s.err = s.await(); s.err != nil {
		if s.err != io.EOF {
			s.giveUp(s.err)
		}
		return nil, s.err
	}
	return s.chunk(), nil
}

// await waits for something to read; io.EOF: nothing comes any more.
func (s *stream) await() error {
	if len(s.in.b) == 0 {
		if err := s.Ask(); err != nil {
			return err
		}
	}
	if err := s.advance(); err != nil {
		return err
	}
	if s.over {
		s.handOver()
		return io.EOF
	}
	return s.arrive()
}

// handOver gives the exchange the trailers, with the end of the body.
func (s *stream) handOver() {
	x := s.place.Exchange()
	for i := range s.trailers.Len() {
		f := s.trailers.At(i)
		x.Request.Trailers.AddParsed(f.Name, f.Value)
	}
	s.in.free()
}
