package upstream

import (
	"errors"
	"io"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
)

// errClient marks an error that came from the client's side of a body.
type errClient struct{ error }

func (e errClient) Unwrap() error { return e.error }

// copyBody sends the request's body as the framing of the head announced it.
func (s *Stream) copyBody(x *exchange.Exchange, l *link) error {
	body := x.Request.Body
	chunked := body.Length() < 0
	type waiter interface{ Ready() bool }
	hurry, _ := body.(waiter)
	for {
		if hurry == nil || !hurry.Ready() {
			if err := l.Flush(); err != nil {
				return err
			}
		}
		chunk, err := body.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return errClient{err}
		}
		last := !chunked && body.Length() == 0
		if last {
			s.drained.Store(true) // before the endpoint has it all, and answers
		}
		if err := s.sendChunk(l, chunk, chunked); err != nil {
			return err
		}
		if last {
			return l.Flush() // the body is not touched any more
		}
	}
	s.drained.Store(true)
	if chunked {
		http1.EndChunks(l.Conn, &x.Request.Trailers)
	}
	return l.Flush()
}

func (s *Stream) sendChunk(l *link, chunk []byte, chunked bool) error {
	l.WriteUntil(s.until(time.Now()))
	if chunked {
		return http1.WriteChunk(l.Conn, chunk)
	}
	return l.Write(chunk)
}

// startPump sends the body from a goroutine of its own, which Close waits for.
func (s *Stream) startPump(x *exchange.Exchange) error {
	// A client that waits for it is told here to go on: from the pump, that
	// would be written beside the answer.
	held := s.hold.begin(x)
	if held == nil {
		if err := ask(x.Request.Body); err != nil {
			return err
		}
	} else if err := s.link.Flush(); err == nil { // else it may have answered: look for that
		s.limitReads(time.Now())
	}
	s.abort = func() {}
	if b, ok := x.Request.Body.(interface{ Abort() }); ok {
		s.abort = b.Abort
	}
	x.Request.Shared = true
	s.drained.Store(false)
	s.clientFailed.Store(false)
	pump, l := make(chan error, 1), s.link
	s.pump = pump
	go func() {
		if held != nil && !<-held {
			pump <- errNotAsked
			return
		}
		err := s.copyBody(x, l)
		var client errClient
		if errors.As(err, &client) {
			s.clientFailed.Store(true)
			l.Abort() // nothing more will come: do not wait for an answer
		}
		pump <- err
	}()
	return nil
}

// goAhead asks the client for a body that was held.
func (s *Stream) goAhead(x *exchange.Exchange) error {
	err := s.hold.GoAhead(x)
	s.limitReads(time.Now())
	return err
}

// pumping: the body is still being sent, and there is time left for it.
func (s *Stream) pumping() bool {
	d := s.deadline.Load()
	return s.pump != nil && len(s.pump) == 0 && !s.clientFailed.Load() && (d == 0 || time.Now().UnixNano() < d)
}

// tryJoin takes the pump's result if there is one yet.
func (s *Stream) tryJoin(x *exchange.Exchange) {
	if s.pump == nil {
		return
	}
	select {
	case err := <-s.pump:
		s.joined(x, err)
	default:
		if s.drained.Load() {
			x.Request.Shared = false
		}
	}
}

// stopPump ends a pump that has no one to send to any more. It leaves the
// client's connection alone where that may be at the next request already.
func (s *Stream) stopPump(x *exchange.Exchange) error {
	s.link.Abort()
	if !s.hold.drop() && !s.drained.Load() {
		s.abort()
	}
	err := <-s.pump
	s.joined(x, err)
	return err
}

func (s *Stream) joined(x *exchange.Exchange, err error) {
	s.pump, s.sent = nil, err == nil
	x.Request.Shared = false
}
