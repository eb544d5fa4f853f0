// Package mirror sends copies of requests to another service, and drops what it
// answers.
//
//	original ─▶ service                        (as if there were no mirror)
//	   └ once its body has passed: copy ─▶ Sender ─▶ one endpoint ─▶ nobody
//
// # Promises
//
//   - The original waits for nothing: its body is copied as it passes, and the
//     copy is sent by a goroutine of its own once all of it is here.
//   - Memory is bounded: a body longer than [MaxBody] is not mirrored at all, no
//     more than [MaxPerTarget] copies are under way to one target, and no more
//     than [MaxCopies] in all. What is above is dropped, and counted.
//   - A copy ends after [Patience], whatever the service does. It is never tried
//     again.
//   - What a copy needs of its generation is held until it ends.
package mirror

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/service"
	"github.com/weirmesh/weir/proxy/upstream"
)

// The bounds.
const (
	MaxBody      = 64 << 10
	MaxCopies    = 1024
	MaxPerTarget = 128
	Patience     = 15 * time.Second
	// maxAnswer is how much of an answer is read, so that its connection can be
	// used again; behind it the connection is closed.
	maxAnswer = 1 << 20
)

// Outcome of a request that was to be mirrored.
type Outcome uint8

// The outcomes.
const (
	Answered   Outcome = iota // whatever the status
	Failed                    // there was no answer, or none in time
	TooLong                   // the body
	Incomplete                // the original ended before its body had passed
	Full                      // as many copies as there may be were under way
	Outcomes   = iota         // how many there are
)

// String is the outcome's name in metrics.
func (o Outcome) String() string {
	return [...]string{"answered", "failed", "too_long", "incomplete", "full"}[o]
}

// Target is where copies go, and how many.
type Target struct {
	Backend *service.Backend
	// Chance is the part of the requests that is mirrored, from 0 to 1.
	Chance float64
	// Told is called with the outcome of each, and the status of the answer; 0:
	// none. Anyone may call it.
	Told func(o Outcome, status int, took time.Duration)

	underWay atomic.Int64
}

// Sender sends copies. Make it with [NewSender].
type Sender struct {
	ctx      context.Context
	stop     context.CancelFunc
	mu       sync.Mutex // between Close and those who start
	done     sync.WaitGroup
	underWay atomic.Int64
}

// NewSender returns a sender; Close ends it.
func NewSender() *Sender {
	ctx, stop := context.WithCancel(context.Background())
	return &Sender{ctx: ctx, stop: stop}
}

// Close ends what is under way, and waits for it. Afterwards nothing is sent.
func (s *Sender) Close() {
	s.mu.Lock()
	s.stop()
	s.mu.Unlock()
	s.done.Wait()
}

// Copy is a request that was to be mirrored, as it was when it was sent to its
// own service.
type Copy struct {
	sender  *Sender
	targets []*Target
	x       *exchange.Exchange
	hold    func() (release func())
	gone    bool // it was sent, or given up
}

// Take copies a request's head for the targets. hold keeps what targets need
// until it is released; it is called once for each copy that is sent.
func (s *Sender) Take(x *exchange.Exchange, targets []*Target, hold func() func()) *Copy {
	c := &Copy{sender: s, targets: targets, x: new(exchange.Exchange), hold: hold}
	c.x.Request.Method = c.x.CopyBytes(x.Request.Method)
	c.x.Request.Scheme = c.x.CopyBytes(x.Request.Scheme)
	c.x.Request.Authority = c.x.CopyBytes(x.Request.Authority)
	c.x.Request.Path = c.x.CopyBytes(x.Request.Path)
	c.x.Request.Trailing = x.Request.Trailing // who serves gRPC wants to hear that
	c.x.Client, c.x.Local = x.Client, x.Local
	for i := range x.Request.Fields.Len() {
		f := x.Request.Fields.At(i)
		c.x.Request.Fields.AddParsed(c.x.CopyBytes(f.Name), c.x.CopyBytes(f.Value))
	}
	return c
}

// Body returns a body that passes on what there is in b and sends the copy once
// all of it has passed.
func (c *Copy) Body(b exchange.Body) exchange.Body {
	if b.Length() > MaxBody {
		c.GiveUp(TooLong)
		return b
	}
	return &tee{Body: b, copy: c}
}

// GiveUp drops the copy, unless it was sent.
func (c *Copy) GiveUp(why Outcome) {
	if c.gone {
		return
	}
	c.gone = true
	for _, t := range c.targets {
		t.Told(why, 0, 0)
	}
}

// Send sends the copy with a body, which is the sender's from then on.
func (c *Copy) Send(body []byte) {
	if c.gone {
		return
	}
	c.gone = true
	for _, t := range c.targets {
		if !c.sender.start(c, t, body) {
			t.Told(Full, 0, 0)
		}
	}
}

// start sends one copy if there is room for it.
func (s *Sender) start(c *Copy, t *Target, body []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || s.underWay.Load() >= MaxCopies || t.underWay.Load() >= MaxPerTarget {
		return false
	}
	s.underWay.Add(1)
	t.underWay.Add(1)
	release := c.hold()
	s.done.Go(func() {
		defer func() {
			t.underWay.Add(-1)
			s.underWay.Add(-1)
			release()
		}()
		began := time.Now()
		status := s.send(c, t, body, began)
		outcome := Answered
		if status == 0 {
			outcome = Failed
		}
		t.Told(outcome, status, time.Since(began))
	})
	return true
}

// send asks one endpoint and returns the status of its answer; 0: there is none.
func (s *Sender) send(c *Copy, t *Target, body []byte, began time.Time) int {
	var permits service.Permits
	defer permits.End()
	if !permits.Begin(t.Backend) {
		return 0
	}
	endpoint := t.Backend.Pick(uint64(began.UnixNano()), &service.Tried{})
	if endpoint == nil {
		return 0
	}
	x := &exchange.Exchange{Start: began, Request: c.x.Request, Client: c.x.Client, Local: c.x.Local}
	if len(body) > 0 {
		x.Request.Body = exchange.Bytes(body)
	}
	var stream upstream.Stream
	defer context.AfterFunc(s.ctx, stream.Abort)()
	err := stream.Open(s.ctx, endpoint.Pool, x, upstream.Options{
		Now: began, Deadline: began.Add(Patience), Stall: Patience, Queue: t.Backend.Queue()})
	if err != nil {
		s.noAnswer(t, endpoint, err)
		return 0
	}
	defer stream.Close(x)
	endpoint.Report(x.Response.Status)
	status := x.Response.Status
	for left := maxAnswer; x.Response.Body != nil && left > 0; {
		chunk, err := x.Response.Body.Next()
		if err != nil {
			break
		}
		left -= len(chunk)
	}
	return status
}

// noAnswer notes that an endpoint gave none, if that is its fault.
func (s *Sender) noAnswer(t *Target, e *service.Endpoint, err error) {
	var u *upstream.Error
	switch {
	case errors.Is(err, upstream.ErrFull):
		t.Backend.Exhausted()
	case s.ctx.Err() != nil || errors.As(err, &u) && (u.Stale || u.Refused):
	default:
		e.Report(0)
	}
}

// tee keeps a copy of a body that passes. Whoever reads it may be another
// goroutine than the one that made it.
type tee struct {
	exchange.Body
	copy *Copy
	kept []byte
}

// Next implements exchange.Body.
func (t *tee) Next() ([]byte, error) {
	chunk, err := t.Body.Next()
	switch {
	case t.copy.gone:
	case err == io.EOF:
		t.copy.Send(t.kept)
		t.kept = nil
	case err != nil:
		t.copy.GiveUp(Incomplete)
		t.kept = nil
	case len(t.kept)+len(chunk) > MaxBody:
		t.copy.GiveUp(TooLong)
		t.kept = nil
	default:
		t.kept = append(t.kept, chunk...)
		if t.Body.Length() == 0 { // no one asks for an end that is known
			t.copy.Send(t.kept)
			t.kept = nil
		}
	}
	return chunk, err
}

// Ready, Complete, Ask and Abort are what the upstream side may ask of a body.
func (t *tee) Ready() bool {
	b, ok := t.Body.(interface{ Ready() bool })
	return ok && b.Ready()
}

// Complete reports whether all of the body is here.
func (t *tee) Complete() bool {
	b, ok := t.Body.(interface{ Complete() bool })
	return ok && b.Complete()
}

// Expects: the client waits to be asked for the body.
func (t *tee) Expects() bool { return upstream.Expects(t.Body) }

// Ask tells a client that waits for it to send the body.
func (t *tee) Ask() error {
	if b, ok := t.Body.(interface{ Ask() error }); ok {
		return b.Ask()
	}
	return nil
}

// Abort ends a Next that waits.
func (t *tee) Abort() {
	if b, ok := t.Body.(interface{ Abort() }); ok {
		b.Abort()
	}
}
