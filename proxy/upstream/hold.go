package upstream

import (
	"errors"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// ContinueWait is how long a service is waited for to ask for a body whose client
// waits to be asked. One that knows nothing of it asks never, and the body is sent all
// the same (RFC 9110, section 10.1.1).
const ContinueWait = time.Second

// Hold keeps back a body that its client sends when it is asked to. The goroutine of
// the exchange begins it and ends it; the pump waits for the end.
type Hold struct {
	open  chan bool // receives once: whether the body is wanted; nil: nothing is held
	until time.Time
}

var errNotAsked = errors.New("the service has answered without the request's body")

// Expects reports whether the client waits to be asked for the body.
func Expects(b exchange.Body) bool {
	e, ok := b.(interface{ Expects() bool })
	return ok && e.Expects()
}

// begin returns what the pump waits for; nil: for nothing.
func (h *Hold) begin(x *exchange.Exchange) chan bool {
	h.open = nil
	if x.Request.Expect {
		h.open, h.until = make(chan bool, 1), time.Now().Add(ContinueWait)
	}
	return h.open
}

// Sooner is the earlier one of t and the end of the wait for the service.
func (h *Hold) Sooner(t time.Time) time.Time {
	if h.open != nil && h.until.Before(t) {
		return h.until
	}
	return t
}

// Overdue: the service was waited for long enough.
func (h *Hold) Overdue() bool { return h.open != nil && !time.Now().Before(h.until) }

// GoAhead asks the client for the body, and lets the pump send it. It writes to the
// client: whoever writes the answer calls it.
func (h *Hold) GoAhead(x *exchange.Exchange) error {
	if h.open == nil {
		return nil
	}
	open := h.open
	h.open = nil
	err := ask(x.Request.Body)
	open <- err == nil
	return err
}

// drop lets the pump end: nobody wants the body. It reports whether it was held.
func (h *Hold) drop() bool {
	if h.open == nil {
		return false
	}
	open := h.open
	h.open = nil
	open <- false
	return true
}

// ask tells a client that waits for it to send the body.
func ask(b exchange.Body) error {
	if b, ok := b.(interface{ Ask() error }); ok {
		if err := b.Ask(); err != nil {
			return &Error{Client: true, Err: err}
		}
	}
	return nil
}
