package upstream

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/weirmesh/weir/proxy/exchange"
)

// Sink is where a lane's pump sends a body. Whoever stops the pump makes what
// waits in there fail before.
type Sink interface {
	// Send sends a part of the body, or keeps it for Flush; last: nothing follows.
	Send(p []byte, last bool) error
	// Flush sends what was kept.
	Flush() error
	// End ends a body whose last part was not sent as the last one.
	End(trailers *exchange.Fields) error
}

// Pump sends a request's body from a goroutine of its own, beside the wait for
// the answer: an endpoint may answer before it has read everything, and a client
// may send only once it has read something. The lane whose it is stops it, and
// waits for that, before it is closed.
type Pump struct {
	Hold
	done  chan error // receives once; nil: not running
	abort func()
	// The goroutine says that it has read the body to its end, so that the
	// client's connection is not its any more; or that this failed.
	drained, clientFailed atomic.Bool
}

// Start starts the pump. failed is called when the body cannot be read: nothing
// more will come, and there is no sense in waiting for an answer.
func (p *Pump) Start(x *exchange.Exchange, to Sink, failed func()) error {
	// A client that waits for it is told here to go on: from the pump, that
	// would be written beside the answer.
	body := x.Request.Body
	held := p.begin(x)
	if held == nil {
		if err := ask(body); err != nil {
			return err
		}
	}
	p.abort = func() {}
	if b, ok := body.(interface{ Abort() }); ok {
		p.abort = b.Abort
	}
	x.Request.Shared = true
	p.drained.Store(false)
	p.clientFailed.Store(false)
	done := make(chan error, 1)
	p.done = done
	go func() {
		if held != nil && !<-held {
			done <- errNotAsked
			return
		}
		err := SendBody(x, to, &p.drained)
		if ClientFailed(err) {
			p.clientFailed.Store(true)
			failed()
		}
		done <- err
	}()
	return nil
}

// SendBody sends x's request body on the caller's goroutine. drained is set
// before the endpoint can have all of it.
func SendBody(x *exchange.Exchange, to Sink, drained *atomic.Bool) error {
	body := x.Request.Body
	hurry, _ := body.(interface{ Ready() bool })
	for {
		if hurry == nil || !hurry.Ready() {
			if err := to.Flush(); err != nil {
				return err
			}
		}
		chunk, err := body.Next()
		if err == io.EOF {
			drained.Store(true)
			return to.End(&x.Request.Trailers)
		}
		if err != nil {
			return errClient{err}
		}
		last := body.Length() == 0 // of a known length: no trailers follow
		if last {
			drained.Store(true)
		}
		if err := to.Send(chunk, last); err != nil || last {
			return err // the body is not touched any more
		}
	}
}

// ClientFailed reports whether a body could not be sent because it could not be
// read.
func ClientFailed(err error) bool {
	var client errClient
	return errors.As(err, &client)
}

// Running reports whether the body is still being sent and its client still
// there.
func (p *Pump) Running() bool { return p.done != nil && len(p.done) == 0 && !p.clientFailed.Load() }

// Join takes the pump's result if it has ended, and reports whether the whole
// body was sent.
func (p *Pump) Join(x *exchange.Exchange) (sent bool) {
	if p.done == nil {
		return false
	}
	if p.drop() { // there is an answer
		<-p.done
		p.done, x.Request.Shared = nil, false
		return false
	}
	select {
	case err := <-p.done:
		p.done, x.Request.Shared = nil, false
		return err == nil
	default:
		if p.drained.Load() {
			x.Request.Shared = false
		}
		return false
	}
}

// Stop ends the pump and returns what it has ended with. It leaves the client's
// connection alone where that may be at the next request already. failed: it was
// the client's body that failed, before it was stopped.
func (p *Pump) Stop(x *exchange.Exchange) (err error, failed bool) {
	if p.done == nil {
		return nil, false
	}
	failed = p.clientFailed.Load()
	if !p.drop() && !p.drained.Load() {
		p.abort()
	}
	err = <-p.done
	p.done, x.Request.Shared = nil, false
	return err, failed && ClientFailed(err)
}

// IsHere reports whether all of a body is here, so that reading it does not wait.
func IsHere(b exchange.Body) bool { return b == nil || isHere(b) }
