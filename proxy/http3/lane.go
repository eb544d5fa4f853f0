package http3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/section"
	"github.com/weirmesh/weir/proxy/upstream"
)

// lane is one stream of a client's connection: a request, its answer, and the
// answer's body. The goroutine of the exchange uses it, and the pump that sends
// the request's body.
type lane struct {
	conn *Client
	quic *quic.Stream // nil: there was none left
	x    *exchange.Exchange
	message
	stall    time.Duration
	asksHead bool  // there is no body, whatever the answer says
	failure  error // why the body has broken off

	// Of whoever sends.
	out     output
	framed  bool        // the frame that all of the body goes into was begun
	sent    atomic.Bool // all of the request
	pump    upstream.Pump
	drained atomic.Bool

	mu       sync.Mutex
	deadline time.Time
	aborted  bool
	refused  bool // the service did not look at the request
	used     bool // the stream is
}

// Open implements upstream.Lane.
func (l *lane) Open(ctx context.Context, x *exchange.Exchange, opts *upstream.Options) error {
	if x.Request.WebSocket {
		return &upstream.Error{Sent: true, Err: says(errWebSocket)}
	}
	l.x, l.stall, l.deadline = x, opts.Stall, opts.Deadline
	l.asksHead = string(x.Request.Method) == "HEAD"
	if err := l.begin(ctx); err != nil {
		if isGone(l.conn.quic) {
			l.conn.retire()
		}
		return &upstream.Error{Timeout: isTimeout(err), Err: says(err)}
	}
	l.out.begin()
	l.out.b = appendRequest(l.out.b, &x.Request)
	if err := l.sendBody(x, opts); err != nil {
		return err
	}
	if err := l.receive(x); err != nil {
		return l.failed(x, err)
	}
	l.pump.Join(x)
	return nil
}

var errWebSocket = errors.New("WebSocket is not spoken over HTTP/3")

func says(err error) error { return fmt.Errorf("answer by HTTP/3: %w", err) }

func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// begin takes the lane's stream into use.
func (l *lane) begin(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.aborted || ctx.Err() != nil:
		return os.ErrDeadlineExceeded
	case l.quic == nil || l.refused || isGone(l.conn.quic):
		return errGone
	}
	l.used, l.in.from, l.out.to = true, l, l
	return nil
}

// waitUntil is when a wait that begins now has taken too long.
func (l *lane) waitUntil() time.Time {
	until := time.Now().Add(l.stall)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.deadline.IsZero() && l.deadline.Before(until) {
		return l.deadline
	}
	return until
}

// inlineBody is how much of a body that is here already is sent before the wait
// for the answer begins; more may have to wait for windows.
const inlineBody = 16 << 10

func (l *lane) sendBody(x *exchange.Exchange, opts *upstream.Options) error {
	body := x.Request.Body
	if body == nil {
		_ = l.finish() // it may have answered all the same: look for that
		return nil
	}
	if !opts.Inline && (!upstream.IsHere(body) || body.Length() < 0 || body.Length() > inlineBody) {
		if err := l.Flush(); err != nil {
			return nil // as above
		}
		return l.pump.Start(x, l, l.Abort)
	}
	if err := upstream.SendBody(x, l, &l.drained); upstream.ClientFailed(err) {
		return &upstream.Error{Sent: true, Client: true, Err: errors.Unwrap(err)}
	}
	return nil // as above
}

// write implements writer.
func (l *lane) write(b []byte) error {
	until := l.waitUntil()
	l.mu.Lock()
	if l.aborted {
		l.mu.Unlock()
		return os.ErrDeadlineExceeded
	}
	_ = l.quic.SetWriteDeadline(until) // Write says what is wrong
	l.mu.Unlock()
	_, err := l.quic.Write(b)
	return err
}

// Send implements upstream.Sink. A body of a known length is one frame.
func (l *lane) Send(p []byte, last bool) error {
	if !l.framed {
		length := int64(len(p))
		if left := l.x.Request.Body.Length(); left >= 0 {
			length += left
			l.framed = true
		}
		l.out.begin()
		l.out.b = appendData(l.out.b, length)
	}
	if err := l.out.body(p); err != nil {
		return err
	}
	if last {
		return l.finish()
	}
	return nil
}

// Flush implements upstream.Sink.
func (l *lane) Flush() error { return l.out.flush() }

// End implements upstream.Sink.
func (l *lane) End(trailers *exchange.Fields) error {
	if trailers.Len() > 0 {
		l.out.begin()
		l.out.b = appendFrame(l.out.b, frameHeaders, func(b []byte) []byte {
			b, _ = appendFields(appendPrefix(b), trailers)
			return b
		})
	}
	return l.finish()
}

// finish sends what is left, and that it was all.
func (l *lane) finish() error {
	if err := l.out.flush(); err != nil {
		return err
	}
	l.sent.Store(true)
	return l.quic.Close()
}

// Read reads from the stream as long as that may take. While the request is being
// sent, which has limits of its own, that is until the deadline.
func (l *lane) Read(p []byte) (int, error) {
	for {
		if l.pump.Overdue() {
			if err := l.pump.GoAhead(l.x); err != nil {
				return 0, err
			}
		}
		until := l.pump.Sooner(l.waitUntil())
		l.mu.Lock()
		if l.aborted {
			l.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		}
		_ = l.quic.SetReadDeadline(until) // Read says what is wrong
		past := !l.deadline.IsZero() && !until.Before(l.deadline)
		l.mu.Unlock()
		n, err := l.quic.Read(p)
		if n == 0 && isTimeout(err) && !past && l.pump.Running() {
			continue
		}
		return n, err
	}
}

// receive reads the head of the final answer. Interim answers may, together, be as
// large as one head.
func (l *lane) receive(x *exchange.Exchange) error {
	for room := maxSection; ; {
		length, err := l.head(x, &room)
		if err != nil {
			return err
		}
		l.conn.answered.Store(true)
		if x.Response.Status >= 200 {
			l.declared = length
			return l.beginBody(x)
		}
		_ = x.Inform() // who cannot be told this cannot be told the answer either
		if x.Response.Status == 100 {
			if err := l.pump.GoAhead(x); err != nil {
				return err
			}
		}
	}
}

// head reads one section, and says which length it announces. An interim answer
// takes what it is long of the room.
func (l *lane) head(x *exchange.Exchange, room *int) (int64, error) {
	for {
		kind, length, err := l.in.frame()
		switch {
		case err != nil:
			return 0, inFrame(err)
		case !known(kind):
			if err := l.skip(length); err != nil {
				return 0, err
			}
			continue
		case kind != frameHeaders:
			return 0, &connError{codeFrameUnexpected, "the first frame is no HEADERS"}
		case length > maxSection:
			return 0, &streamError{codeExcessiveLoad, "its head is too large"}
		}
		b, err := l.in.take(int(length))
		if err != nil {
			return 0, err
		}
		var answer section.Answer
		answer.Begin(x)
		if err := readSection(b, answer.Field); err != nil {
			return 0, err
		}
		if err := answer.Finish(); err != nil {
			return 0, &streamError{codeMessage, err.Error()}
		}
		if x.Response.Status < 200 {
			if *room -= int(length); *room < 0 {
				return 0, &streamError{codeExcessiveLoad, "interim answers without end"}
			}
		}
		return answer.Length(), nil
	}
}

// beginBody finds out whether there is a body.
func (l *lane) beginBody(x *exchange.Exchange) error {
	x.Response.Body, x.Response.Tunnel, x.Response.Trailing = nil, nil, false
	if l.asksHead || x.Response.Status == 204 || x.Response.Status == 304 {
		l.declared = -1
		return nil
	}
	if l.in.ended {
		if err := l.advance(); err != nil {
			return err
		}
		if l.over && l.trailers.Len() == 0 {
			return nil
		}
	}
	if l.declared != 0 {
		x.Response.Body, x.Response.Trailing = l, true
	}
	return nil
}

// Next implements exchange.Body.
func (l *lane) Next() ([]byte, error) {
	if l.failure != nil {
		return nil, l.failure
	}
	err := l.advance()
	if err == nil && !l.over {
		err = l.arrive()
	}
	switch {
	case err != nil:
		l.giveUp(err)
		l.failure = says(err)
	case l.over:
		for i := range l.trailers.Len() {
			f := l.trailers.At(i)
			l.x.Response.Trailers.AddParsed(f.Name, f.Value)
		}
		l.in.free()
		l.failure = io.EOF
	default:
		return l.chunk(), nil
	}
	return nil, l.failure
}

// Failed implements upstream.Lane.
func (l *lane) Failed() error {
	if l.failure == io.EOF {
		return nil
	}
	return l.failure
}

// Length implements exchange.Body.
func (l *lane) Length() int64 {
	switch {
	case l.failure == io.EOF:
		return 0
	case l.declared >= 0: // it was announced, and does not change with what has arrived
		return l.declared
	case l.whole() && l.trailers.Len() == 0:
		return int64(l.left)
	}
	return -1
}

// Whole reports whether what Next has returned was all, without trailers.
func (l *lane) Whole() bool { return l.whole() && l.trailers.Len() == 0 }

// Ready reports whether Next will not have to wait.
func (l *lane) Ready() bool { return l.failure != nil || l.here() > 0 || l.in.ended }

// giveUp tells the service what it has done.
func (l *lane) giveUp(err error) {
	var e *streamError
	switch {
	case l.conn.failFor(err):
	case errors.As(err, &e):
		l.quic.CancelRead(quic.StreamErrorCode(e.code))
		l.quic.CancelWrite(quic.StreamErrorCode(e.code))
	}
}

// failed describes why there was no answer.
func (l *lane) failed(x *exchange.Exchange, err error) error {
	l.giveUp(err)
	e := &upstream.Error{Sent: true, Timeout: isTimeout(err), Refused: l.wasRefused(err), Err: says(err)}
	if hasDied(err) {
		e.Stale = l.conn.answered.Load()
		l.conn.retire()
	}
	l.quic.CancelWrite(quic.StreamErrorCode(codeCancelled)) // what the pump waits for fails
	cause, client := l.pump.Stop(x)
	var said *upstream.Error
	switch {
	case client:
		return &upstream.Error{Sent: true, Client: true, Err: errors.Unwrap(cause)}
	case errors.As(err, &said):
		return said
	}
	return e
}

// hasDied: the connection was ended, and not by us for what the service has sent.
func hasDied(err error) bool {
	var application *quic.ApplicationError
	var transport *quic.TransportError
	var idle *quic.IdleTimeoutError
	var reset *quic.StatelessResetError
	return errors.As(err, &application) || errors.As(err, &transport) || errors.As(err, &idle) || errors.As(err, &reset)
}

func (l *lane) wasRefused(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	var reset *quic.StreamError
	return l.refused || errors.As(err, &reset) && reset.Remote && code(reset.ErrorCode) == codeRejected
}

// refuse: the service says that it does not look at the request.
func (l *lane) refuse() {
	l.mu.Lock()
	l.refused = true
	used := l.used
	l.mu.Unlock()
	if !used {
		return
	}
	l.quic.CancelRead(quic.StreamErrorCode(codeCancelled))
	l.quic.CancelWrite(quic.StreamErrorCode(codeCancelled))
}

// ReadBy implements upstream.Lane.
func (l *lane) ReadBy(deadline time.Time) {
	l.mu.Lock()
	l.deadline = deadline
	l.mu.Unlock()
}

// Abort implements upstream.Lane.
func (l *lane) Abort() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.aborted = true
	if l.used {
		_ = l.quic.SetDeadline(time.Unix(1, 0)) // it fails for no one who waits
	}
}

// Close implements upstream.Lane.
func (l *lane) Close(x *exchange.Exchange) {
	if l.used {
		l.settle(x)
	}
	l.in.free()
	l.out.free()
	l.conn.leave(l)
}

// settle ends the stream both ways, whatever there is of it.
func (l *lane) settle(x *exchange.Exchange) {
	over := l.over || l.in.ended
	end := codeCancelled
	if over {
		end = codeNone // what is left of the request is not wanted
	}
	if !l.sent.Load() {
		l.quic.CancelWrite(quic.StreamErrorCode(end))
	}
	_, _ = l.pump.Stop(x) // whatever it has ended with, there is no one to tell
	l.quic.CancelRead(quic.StreamErrorCode(end))
}

var (
	nameAuthority = []byte(":authority")
	namePath      = []byte(":path")
	nameMethod    = []byte(":method")
	nameTE        = []byte("te")
	valueTrailers = []byte("trailers")
	nameExpect    = []byte("expect")
	valueContinue = []byte("100-continue")
)

// appendRequest appends a request's head.
func appendRequest(dst []byte, r *exchange.Request) []byte {
	return appendFrame(dst, frameHeaders, func(b []byte) []byte {
		b = appendMethod(appendPrefix(b), r.Method)
		b = section.AppendInt(b, 0xc0, 6, staticFields[":scheme\x00https"])
		b = appendField(b, nameAuthority, r.Authority)
		b = appendField(b, namePath, r.Path)
		length := int64(0)
		if r.Body != nil {
			length = r.Body.Length()
		}
		b, announced := appendFields(b, &r.Fields)
		if r.Expect {
			b = appendField(b, nameExpect, valueContinue)
		}
		if r.Trailing {
			b = appendField(b, nameTE, valueTrailers)
		}
		if length > 0 || length == 0 && announced != nil {
			var digits [20]byte
			b = appendField(b, nameLength, strconv.AppendInt(digits[:0], length, 10))
		}
		return b
	})
}

func appendMethod(b, method []byte) []byte {
	switch string(method) {
	case "GET":
		return section.AppendInt(b, 0xc0, 6, staticFields[":method\x00GET"])
	case "POST":
		return section.AppendInt(b, 0xc0, 6, staticFields[":method\x00POST"])
	}
	return appendField(b, nameMethod, method)
}
