package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/wire"
)

// Error is an exchange that did not come about.
type Error struct {
	// Sent: part of the request may have reached the endpoint.
	Sent bool
	// Stale: a kept connection was closed by its peer before it answered a
	// byte. The request was very likely not seen.
	Stale bool
	// Timeout: a deadline passed.
	Timeout bool
	// Client: the request's body could not be read.
	Client bool
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Options of one exchange.
type Options struct {
	// Deadline is when it must have ended; zero: never.
	Deadline time.Time
	// Stall bounds the wait for the endpoint's next byte.
	Stall time.Duration
	// Inline: read the request's body on the caller's goroutine, because what
	// looks at it may not run beside what looks at the response.
	Inline bool
	// Sure: the request must not be sent twice.
	Sure bool
}

// Stream is one request and its response over one connection. It is used by
// one goroutine, and again after Close.
type Stream struct {
	pool    *Pool
	link    *link
	opts    Options
	framing http1.Framing
	body    http1.Body
	head    wire.Detached
	renew   func()

	reused   bool
	sent     bool       // the whole request is on its way
	unasked  bool       // part of it is still to be flushed
	answered bool       // the head of the final answer was read
	bodied   bool       // it has a body
	pump     chan error // receives once, from the goroutine that sends the body
	abort    func()     // makes that goroutine's read fail
}

// Open sends x's request to the pool's endpoint and reads the head of its
// answer into x.Response, whose Body then reads from the connection. On an
// error the stream is closed.
func (s *Stream) Open(ctx context.Context, p *Pool, x *exchange.Exchange, opts Options) error {
	s.pool, s.opts, s.pump = p, opts, nil
	s.sent, s.unasked, s.answered, s.bodied = false, false, false, false
	p.inFlight.Add(1)
	if err := s.connect(ctx); err != nil {
		p.inFlight.Add(-1)
		s.pool = nil
		return err
	}
	s.limitReads(x.Start)
	s.link.WriteUntil(s.until(x.Start))
	err := s.send(x)
	if err == nil {
		err = s.receive(x)
	}
	if err != nil {
		p.failures.Add(1)
		s.Close(x)
		return err
	}
	return nil
}

func (s *Stream) connect(ctx context.Context) error {
	s.link = s.pool.take(s.opts.Sure)
	s.reused = s.link != nil
	if s.reused {
		return nil
	}
	if !s.opts.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, s.opts.Deadline)
		defer cancel()
	}
	l, err := s.pool.dial(ctx)
	if err != nil {
		return &Error{Timeout: timedOut(err), Err: fmt.Errorf("connect to %s: %w", s.pool.key.Address, err)}
	}
	s.link = l
	return nil
}

func timedOut(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// until is when a wait that begins now has taken too long.
func (s *Stream) until(now time.Time) time.Time {
	until := now.Add(s.opts.Stall)
	if d := s.opts.Deadline; !d.IsZero() && d.Before(until) {
		until = d
	}
	return until
}

func (s *Stream) limitReads(now time.Time) { s.link.ReadUntil(s.until(now)) }

// renewRead runs before each wait for more of the response's body.
func (s *Stream) renewRead() { s.limitReads(time.Now()) }

// send writes the request. A body that is here already goes out with the head;
// one that is still coming is sent beside the wait for the answer, unless that
// must not be.
func (s *Stream) send(x *exchange.Exchange) error {
	s.link.SetOut(http1.AppendRequest(s.link.Out(), &x.Request))
	body := x.Request.Body
	switch {
	case body == nil:
		s.sent = true
	case s.opts.Inline || isHere(body):
		if err := s.sendBody(x); err != nil {
			return err
		}
	default:
		return s.startPump(x)
	}
	s.unasked = true // the last of it goes out with the wait for the answer
	return nil
}

func isHere(b exchange.Body) bool {
	switch b := b.(type) {
	case *exchange.Chunk:
		return true
	case *http1.Body:
		return b.Complete()
	}
	return false
}

func (s *Stream) failed(doing string, err error) *Error {
	e := &Error{Sent: true, Timeout: timedOut(err), Err: fmt.Errorf("%s %s: %w", doing, s.pool.key.Address, err)}
	e.Stale = s.reused && !e.Timeout
	return e
}

// errClient marks an error that came from the client's side of a body.
type errClient struct{ error }

func (e errClient) Unwrap() error { return e.error }

func (s *Stream) sendBody(x *exchange.Exchange) error {
	err := s.copyBody(x)
	var client errClient
	switch {
	case err == nil:
		s.sent = true
		return nil
	case errors.As(err, &client):
		return &Error{Sent: true, Client: true, Err: client.error}
	}
	// The endpoint may have answered before it closed: look for that first.
	return nil
}

// copyBody sends the request's body as the framing of the head announced it.
func (s *Stream) copyBody(x *exchange.Exchange) error {
	body := x.Request.Body
	chunked := body.Length() < 0
	type waiter interface{ Ready() bool }
	hurry, _ := body.(waiter)
	for {
		if hurry == nil || !hurry.Ready() {
			if err := s.link.Flush(); err != nil {
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
		s.link.WriteUntil(s.until(time.Now()))
		if chunked {
			err = http1.WriteChunk(s.link.Conn, chunk)
		} else {
			err = s.link.Write(chunk)
		}
		if err != nil {
			return err
		}
	}
	if chunked {
		http1.EndChunks(s.link.Conn, &x.Request.Trailers)
	}
	return nil
}

// startPump sends the body from a goroutine of its own, which Close waits for.
func (s *Stream) startPump(x *exchange.Exchange) error {
	x.Request.Shared = true
	pump := make(chan error, 1)
	s.pump = pump
	s.abort = func() {}
	if a, ok := x.Request.Body.(interface{ Abort() }); ok {
		s.abort = a.Abort
	}
	l := s.link
	go func() {
		err := s.copyBody(x)
		if err == nil {
			err = l.Flush()
		}
		var client errClient
		if errors.As(err, &client) {
			l.Abort() // nothing more will come: do not wait for an answer
		}
		pump <- err
	}()
	return nil
}

// joinPump takes the pump's result if there is one yet, or waits for it.
func (s *Stream) joinPump(x *exchange.Exchange, wait bool) error {
	if s.pump == nil {
		return nil
	}
	var err error
	if wait {
		err = <-s.pump
	} else {
		select {
		case err = <-s.pump:
		default:
			return nil
		}
	}
	s.pump, s.sent = nil, err == nil
	x.Request.Shared = false
	return err
}

// receive reads the head of the final answer.
func (s *Stream) receive(x *exchange.Exchange) error {
	n, err := s.readHead(x)
	if pumpErr := s.joinPump(x, err != nil && s.pump != nil && s.stopPump()); pumpErr != nil && err != nil {
		var client errClient
		if errors.As(pumpErr, &client) {
			return &Error{Sent: true, Client: true, Err: client.error}
		}
	}
	if err != nil {
		return err
	}
	s.link.Discard(n)
	s.beginBody(x, n)
	return nil
}

func (s *Stream) fill() error {
	if s.unasked {
		s.unasked = false
		return s.link.Ask(wire.SmallBuffer, http1.MaxHead)
	}
	return s.link.Fill(wire.SmallBuffer, http1.MaxHead)
}

// pumping: the body is still being sent, and there is time left for it.
func (s *Stream) pumping() bool {
	return s.pump != nil && len(s.pump) == 0 && (s.opts.Deadline.IsZero() || time.Now().Before(s.opts.Deadline))
}

// stopPump ends a pump that has no one to send to any more.
func (s *Stream) stopPump() bool {
	s.link.Abort()
	s.abort()
	return true
}

func (s *Stream) readHead(x *exchange.Exchange) (int, error) {
	for {
		b := s.link.Buffered()
		if len(b) > 0 {
			n, err := http1.ParseResponse(b, &x.Response, &s.framing)
			if err != nil {
				return 0, &Error{Sent: true, Err: fmt.Errorf("read answer of %s: %w", s.pool.key.Address, err)}
			}
			if n > 0 && x.Response.Status >= 200 {
				return n, nil
			}
			if n > 0 {
				if x.Response.Status == 101 {
					return 0, &Error{Sent: true, Err: fmt.Errorf("read answer of %s: it switches protocols unasked", s.pool.key.Address)}
				}
				s.link.Discard(n) // an interim answer; the final one follows
				continue
			}
		}
		if err := s.fill(); err != nil {
			if timedOut(err) && s.pumping() {
				s.limitReads(time.Now()) // the request is still on its way, with limits of its own
				continue
			}
			e := s.failed("read answer of", unexpected(err))
			e.Stale = e.Stale && len(b) == 0
			return 0, e
		}
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return errors.New("it closed the connection without an answer")
	}
	return err
}

func (s *Stream) beginBody(x *exchange.Exchange, head int) {
	r, f := &x.Response, &s.framing
	r.Body = nil
	s.answered = true
	switch {
	case string(x.Request.Method) == "HEAD" || r.Status == 204 || r.Status == 304:
		return
	case f.Chunked:
		s.body.BeginChunked(s.link.Conn, &r.Trailers)
	case f.Length > 0:
		s.body.BeginSized(s.link.Conn, f.Length)
	case f.Length == 0:
		return
	default:
		s.body.BeginUntilClose(s.link.Conn)
		f.KeepAlive = false
	}
	r.Body = &s.body
	s.bodied = true
	if !s.body.Complete() {
		// Reading on would overwrite the head, which is still to be sent.
		s.link.Discard(-head)
		s.head = s.link.Detach(head)
		if s.renew == nil {
			s.renew = s.renewRead
		}
		s.body.Idle = s.renew
	}
}

// Close ends the stream. The connection is kept when it stands at the start of
// a next answer, else closed. Slices of x.Response die with it.
func (s *Stream) Close(x *exchange.Exchange) {
	if s.pool == nil {
		return
	}
	if s.pump != nil {
		_ = s.joinPump(x, false)
	}
	if s.pump != nil {
		s.stopPump()
		_ = s.joinPump(x, true)
		s.sent = false
	}
	p, l := s.pool, s.link
	s.pool, s.link = nil, nil
	p.inFlight.Add(-1)
	whole := s.answered && (!s.bodied || s.body.Done())
	if s.sent && whole && s.framing.KeepAlive && len(l.Buffered()) == 0 {
		p.put(l, x.Start)
	} else {
		discard(l)
	}
	s.head.Free()
}

// ReadBy changes the deadline of what is left of the response; zero: none.
func (s *Stream) ReadBy(deadline time.Time) { s.opts.Deadline = deadline; s.limitReads(time.Now()) }
