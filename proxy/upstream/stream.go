package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
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
	// Refused: the endpoint has said that it did not look at the request. It may
	// be sent again whatever it is, if its body is still known.
	Refused bool
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
	// Now is when it begins.
	Now time.Time
	// Deadline is when it must have ended; zero: never.
	Deadline time.Time
	// Stall bounds the wait for the endpoint's next byte.
	Stall time.Duration
	// Queue bounds the wait for a connection where a pool has a maximum; nil:
	// any number may wait.
	Queue *Queue
	// Inline: read the request's body on the caller's goroutine, because what
	// looks at it may not run beside what looks at the response.
	Inline bool
}

// Stream is one request and its response over one connection. It is used by
// one goroutine, and again after Close; only Abort may be called by others.
//
// A body that is still coming from the client is sent by a goroutine of its own,
// the pump, beside the wait for the answer: an endpoint may answer before it has
// read everything, and a client may send only once it has read something. Close
// ends the pump and waits for it.
type Stream struct {
	pool     *Pool
	counted  *Pool // whose exchange it is; another than pool for WebSocket in the mesh
	who      ends
	opts     Options
	deadline atomic.Int64 // Unix nanoseconds, 0: none; the pump reads it too
	framing  http1.Framing
	body     http1.Body
	head     wire.Detached
	renew    func()

	mu     sync.Mutex // between Abort and those who set link or lane
	link   *link
	lane   Lane    // where connections are shared
	member *member // on which it has room

	spoken   Protocol
	bodyless bool // asked with HEAD; the method may have been changed since
	reused   bool
	asked    bool       // the request was sent; until then it is pending
	sent     bool       // the whole request is on its way
	answered bool       // the head of the final answer was read
	bodied   bool       // it has a body
	pump     chan error // receives once, from the pump; nil when there is none
	hold     Hold       // of the pump
	abort    func()     // makes the pump's read fail
	// The pump says that it has read the body to its end, so that the client's
	// connection is not its any more; or that this failed.
	drained, clientFailed atomic.Bool
}

// Open sends x's request to the pool's endpoint and reads the head of its
// answer into x.Response, whose Body then reads from the connection. On an
// error the stream is closed.
func (s *Stream) Open(ctx context.Context, p *Pool, x *exchange.Exchange, opts Options) error {
	s.counted = p
	p.inFlight.Add(1)
	if x.Request.WebSocket {
		p = p.forWebSocket()
	}
	s.spoken = p.key.Protocol
	s.pool, s.who, s.opts, s.pump = p, ends{x.Client, x.Local}, opts, nil
	s.asked, s.sent, s.answered, s.bodied = false, false, false, false
	s.setDeadline(opts.Deadline)
	x.Request.Expect = !opts.Inline && Expects(x.Request.Body)
	if p.shared.dial != nil {
		if err := s.openLane(ctx, x); err != nil {
			s.Close(x)
			return err
		}
		return nil
	}
	small := isSmall(x.Request.Body)
	err := s.connect(ctx, !small, false)
	if err == nil {
		if err = s.send(x, small); err == nil {
			err = s.receive(ctx, x)
		}
	}
	if err != nil {
		s.Close(x)
		return err
	}
	return nil
}

// connect takes a kept connection or makes one. look: whether it is alive is
// not found out by asking. placed: a place in the pool is the stream's already.
func (s *Stream) connect(ctx context.Context, look, placed bool) error {
	l := s.pool.takeAny(s.who, look)
	switch {
	case l != nil && placed:
		s.pool.vacate()
	case l == nil && !placed:
		var err error
		if l, err = s.pool.enter(ctx, look, s.opts.Queue, s.until(time.Now())); err != nil {
			return &Error{Timeout: timedOut(err), Err: fmt.Errorf("connect to %s: %w", s.pool.key.Address, err)}
		}
		if s.opts.Queue != nil {
			s.opts.Now = time.Now() // there may have been a wait
		}
	}
	s.reused = l != nil
	if l == nil {
		var err error
		if l, err = s.dial(ctx); err != nil {
			return &Error{Timeout: timedOut(err), Err: fmt.Errorf("connect to %s: %w", s.pool.key.Address, err)}
		}
	}
	s.setLink(l)
	if err := ctx.Err(); err != nil { // an Abort may have come before there was a link
		return &Error{Err: fmt.Errorf("connect to %s: %w", s.pool.key.Address, err)}
	}
	l.ReadUntil(s.until(s.opts.Now))
	l.WriteUntil(s.until(s.opts.Now))
	return nil
}

func (s *Stream) dial(ctx context.Context) (*link, error) {
	if !s.opts.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, s.opts.Deadline)
		defer cancel()
	}
	return s.pool.dial(ctx, s.who)
}

func (s *Stream) setLink(l *link) {
	s.mu.Lock()
	s.link = l
	s.mu.Unlock()
}

// Abort ends, from another goroutine, whatever an open stream waits for. One
// that is opened later is ended by its context.
func (s *Stream) Abort() {
	s.mu.Lock()
	if s.link != nil {
		s.link.Abort()
	}
	if s.lane != nil {
		s.lane.Abort()
	}
	s.mu.Unlock()
}

func timedOut(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

func (s *Stream) setDeadline(t time.Time) {
	nanos := int64(0)
	if !t.IsZero() {
		nanos = t.UnixNano()
	}
	s.deadline.Store(nanos)
}

// until is when a wait that begins now has taken too long.
func (s *Stream) until(now time.Time) time.Time {
	until := now.Add(s.opts.Stall)
	if d := s.deadline.Load(); d != 0 && d < until.UnixNano() {
		return time.Unix(0, d)
	}
	return until
}

func (s *Stream) limitReads(now time.Time) { s.link.ReadUntil(s.hold.Sooner(s.until(now))) }

// renewRead runs before each wait for more of the response's body.
func (s *Stream) renewRead() { s.limitReads(time.Now()) }

// send writes the request. A small body that is here already is gathered behind
// the head, to be sent by the one who then waits for the answer; a larger one
// goes out at once; one that is still coming is sent by the pump, unless that
// must not be.
func (s *Stream) send(x *exchange.Exchange, small bool) error {
	s.link.SetOut(http1.AppendRequest(s.link.Out(), &x.Request))
	s.bodyless = string(x.Request.Method) == "HEAD"
	body := x.Request.Body
	if small {
		return s.gather(body)
	}
	s.asked = true
	if !s.opts.Inline && !isHere(body) {
		return s.startPump(x)
	}
	var client errClient
	switch err := s.copyBody(x, s.link); {
	case err == nil:
		s.sent = true
	case errors.As(err, &client):
		return &Error{Sent: true, Client: true, Err: client.error}
	}
	// Otherwise the endpoint may have answered before it closed: look for that.
	s.limitReads(time.Now())
	return nil
}

func (s *Stream) gather(body exchange.Body) error {
	for body != nil {
		chunk, err := body.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return &Error{Client: true, Err: err}
		}
		s.link.SetOut(append(s.link.Out(), chunk...))
	}
	return nil
}

// isSmall: there is no body, or it is here and not worth a write of its own.
func isSmall(b exchange.Body) bool {
	return b == nil || b.Length() >= 0 && b.Length() <= wire.SmallBuffer && isHere(b)
}

func isHere(b exchange.Body) bool {
	switch b := b.(type) {
	case *exchange.Chunk:
		return true
	case *http1.Body:
		return b.Complete()
	case interface{ Complete() bool }:
		return b.Complete()
	}
	return false
}

// failed describes what went wrong on the connection after it was asked.
func (s *Stream) failed(doing string, err error) *Error {
	e := &Error{Sent: true, Timeout: timedOut(err), Err: fmt.Errorf("%s %s: %w", doing, s.pool.key.Address, err)}
	e.Stale = s.reused && !e.Timeout
	return e
}

// receive reads the head of the final answer.
func (s *Stream) receive(ctx context.Context, x *exchange.Exchange) error {
	n, err := s.readHead(ctx, x)
	if err != nil {
		if e := (*Error)(nil); ctx.Err() == nil && !(errors.As(err, &e) && e.Client) { // else it was given up
			s.pool.failures.Add(1)
		}
		return s.blame(x, err)
	}
	if s.hold.drop() {
		s.joined(x, <-s.pump)
	}
	s.tryJoin(x)
	s.link.Discard(n)
	s.beginBody(x, n)
	return nil
}

// blame tells an endpoint that gave no answer from one that could not, because
// the client's body failed.
func (s *Stream) blame(x *exchange.Exchange, err error) error {
	if s.pump == nil {
		return err
	}
	clientFailed := s.clientFailed.Load() // by itself: stopPump makes it fail, too
	cause := s.stopPump(x)
	var client errClient
	if clientFailed && errors.As(cause, &client) {
		return &Error{Sent: true, Client: true, Err: client.error}
	}
	return err
}

// Interim answers may, together, be as large as one head.
func (s *Stream) readHead(ctx context.Context, x *exchange.Exchange) (int, error) {
	interim := 0
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
				if x.Response.Status == 101 && x.Request.WebSocket && s.framing.Switches() {
					return n, nil
				}
				if x.Response.Status == 101 {
					return 0, &Error{Sent: true, Err: fmt.Errorf("read answer of %s: it switches protocols unasked", s.pool.key.Address)}
				}
				if interim += n; interim > http1.MaxHead {
					return 0, &Error{Sent: true, Err: fmt.Errorf("read answer of %s: interim answers without end", s.pool.key.Address)}
				}
				_ = x.Inform() // who cannot be told this cannot be told the answer either
				s.link.Discard(n)
				if x.Response.Status == 100 {
					if err := s.goAhead(x); err != nil {
						return 0, err
					}
				}
				continue
			}
		}
		if err := s.await(ctx); err != nil {
			if timedOut(err) && s.hold.Overdue() && ctx.Err() == nil {
				if err := s.goAhead(x); err != nil {
					return 0, err
				}
				continue
			}
			if timedOut(err) && s.pumping() {
				s.limitReads(time.Now()) // the request is still on its way, with limits of its own
				continue
			}
			var e *Error
			if !errors.As(err, &e) {
				e = s.failed("read answer of", unexpected(err))
				e.Stale = e.Stale && len(b) == 0 && interim == 0 // an interim answer is one
			}
			return 0, e
		}
	}
}

// await waits for more of the answer. What is pending is sent first: a kept
// connection that turns out to be stale then is replaced, nothing is lost.
func (s *Stream) await(ctx context.Context) error {
	if s.asked {
		return s.link.Fill(wire.SmallBuffer, http1.MaxHead)
	}
	for {
		err := s.link.Ask(wire.SmallBuffer, http1.MaxHead)
		if !errors.Is(err, wire.ErrStale) {
			s.asked, s.sent = true, true
			return err
		}
		if !s.reused {
			return &Error{Err: fmt.Errorf("connect to %s: it spoke or closed before it was asked", s.pool.key.Address)}
		}
		stale := s.link
		placed := stale.pool != nil
		stale.pool = nil
		err = s.connect(ctx, false, placed)
		if s.link != stale {
			s.link.Adopt(stale.Conn)
			discard(stale)
		}
		if err != nil {
			return err
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
	r.Body, r.Tunnel, r.Trailing = nil, nil, false // the chunked coding has no length
	s.answered = true
	if r.Status == 101 {
		s.beginTunnel(x, head)
		return
	}
	switch {
	case s.bodyless || r.Status == 204 || r.Status == 304:
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

// Failed is why the response's body ended early; nil: it did not.
func (s *Stream) Failed() error {
	switch {
	case s.pool == nil:
		return nil
	case s.lane != nil:
		return s.lane.Failed()
	case s.bodied:
		return s.body.Failed()
	}
	return nil
}

// Close ends the stream. The connection is kept when it stands at the start of
// a next answer, else closed. Slices of x.Response die with it.
func (s *Stream) Close(x *exchange.Exchange) {
	if s.pool == nil {
		return
	}
	if s.pool.shared.dial != nil {
		s.closeLane(x)
		s.counted.inFlight.Add(-1)
		s.pool = nil
		return
	}
	s.tryJoin(x)
	if s.pump != nil {
		_ = s.stopPump(x)
		s.sent = false
	}
	p, l := s.pool, s.link
	s.setLink(nil)
	s.pool = nil
	s.counted.inFlight.Add(-1)
	whole := s.answered && (!s.bodied || s.body.Done())
	switch {
	case l == nil: // none came about
	case s.sent && whole && s.framing.KeepAlive && len(l.Buffered()) == 0 && !l.Aborted():
		p.put(l, x.Start)
	default:
		discard(l)
	}
	s.head.Free()
}

// ReadBy changes the deadline of what is left of the response; zero: none.
func (s *Stream) ReadBy(deadline time.Time) {
	s.setDeadline(deadline)
	if s.lane != nil {
		s.lane.ReadBy(deadline)
		return
	}
	s.limitReads(time.Now())
}
