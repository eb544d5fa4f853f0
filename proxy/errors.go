package proxy

import (
	"errors"
	"os"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/upstream"
)

// Blame says on whose side an error lies.
type Blame uint8

// The sides.
const (
	Client   Blame = iota // the request
	Upstream              // the service
	Policy                // a plugin
	Weir                  // the configuration, or ourselves
)

func (b Blame) String() string { return [...]string{"client", "upstream", "policy", "weir"}[b] }

// Error is why a request was not answered by its service.
type Error struct {
	Status int
	Blame  Blame
	// Retry: it is safe to try an idempotent request again, and any request
	// when it was not Sent.
	Retry bool
	// Sent: part of the request may have reached the service.
	Sent bool
	// Refused: the service has said that it did not look at the request.
	Refused bool
	// Code is one stable word for programs, and the end of the problem's type.
	Code string
	// Detail is for people; it names nothing that a client must not know.
	Detail string
	Err    error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Code
	}
	return e.Code + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// overloaded is the code of what a limit turned away.
const overloaded = "overloaded"

var (
	errNoRoute     = &Error{Status: 404, Blame: Client, Code: "no_route", Detail: "No route matches this request."}
	errMisdirected = &Error{Status: 421, Blame: Client, Code: "misdirected", Detail: "This connection is not for the host of the request."}
	errNoBackend   = &Error{Status: 500, Blame: Weir, Code: "no_backend", Detail: "The route has no backend for this request."}
	errNoEndpoint  = &Error{Status: 503, Blame: Upstream, Retry: true, Code: "no_endpoint", Detail: "The service has no endpoint."}
	errOverloaded  = &Error{Status: 503, Blame: Upstream, Retry: true, Code: overloaded, Detail: "The service is asked as much as it may be."}
	errWebSocket   = &Error{Status: 501, Blame: Weir, Code: "no_websocket", Detail: "The service is not spoken to by HTTP/1.1, which WebSocket needs."}
	errConnect     = &Error{Status: 501, Blame: Client, Code: "no_connect", Detail: "CONNECT is not served here."}
	errConnectTLS  = &Error{Status: 501, Blame: Client, Code: "no_connect", Detail: "Services of the mesh are called by http, not by https: the sidecars encrypt what passes between them."}
	errBytes       = &Error{Status: 501, Blame: Weir, Code: "no_connect", Detail: "The service is not one to send bytes to."}
	errNoTunnel    = &Error{Status: 500, Blame: Policy, Code: "no_tunnel", Detail: "A policy of this route answered as if there were a tunnel."}
	errShed        = &Error{Status: 503, Blame: Weir, Retry: true, Code: overloaded, Detail: "There is too little memory for more requests."}
	errDisguised   = &Error{Status: 400, Blame: Client, Code: "bad_path", Detail: "The path has a segment that could be taken for another."}
	errBadPath     = &Error{Status: 400, Blame: Client, Code: "bad_path", Detail: "The path leads out of its root."}
)

// upstreamError translates an error of the upstream side.
func upstreamError(err error) *Error {
	var u *upstream.Error
	if !errors.As(err, &u) {
		return &Error{Status: 500, Blame: Weir, Code: "internal", Detail: "The request could not be served.", Err: err}
	}
	var bad *http1.Error
	var failed *policy.Error
	switch {
	case errors.As(err, &failed):
		return policyError(failed)
	case errors.Is(err, upstream.ErrFull):
		return &Error{Status: 503, Blame: Upstream, Retry: true, Code: overloaded, Detail: "Too many requests wait for the service.", Err: err}
	case u.Client && errors.As(err, &bad):
		return &Error{Status: bad.Status, Blame: Client, Code: "bad_request", Detail: "The request is malformed: " + bad.Reason + ".", Err: err}
	case u.Client && errors.Is(err, os.ErrDeadlineExceeded):
		return &Error{Status: 408, Blame: Client, Code: "body_timeout", Detail: "The request's body did not arrive in time.", Err: err}
	case u.Client:
		return &Error{Status: 400, Blame: Client, Code: "body_incomplete", Detail: "The request's body did not arrive whole.", Err: err}
	case u.Refused:
		return &Error{Status: 503, Blame: Upstream, Retry: true, Sent: u.Sent, Refused: true, Code: "upstream_refused", Detail: "The service did not take the request.", Err: err}
	case u.Timeout && !u.Sent:
		return &Error{Status: 504, Blame: Upstream, Retry: true, Code: "connect_timeout", Detail: "The service could not be reached in time.", Err: err}
	case u.Timeout:
		return &Error{Status: 504, Blame: Upstream, Sent: true, Code: "upstream_timeout", Detail: "The service did not answer in time.", Err: err}
	case !u.Sent:
		return &Error{Status: 503, Blame: Upstream, Retry: true, Code: "connect_failed", Detail: "The service could not be reached.", Err: err}
	}
	return &Error{Status: 502, Blame: Upstream, Sent: true, Retry: u.Stale, Code: "upstream_failed", Detail: "The service gave no valid answer.", Err: err}
}

func policyError(err *policy.Error) *Error {
	e := &Error{Status: err.Status, Blame: Policy, Code: "policy_failed", Detail: "A policy of this route failed.", Err: err}
	if err.Status == 504 {
		e.Code, e.Detail = "policy_timeout", "A policy of this route did not decide in time."
	}
	if err.Status == 413 {
		e.Blame, e.Code, e.Detail = Client, "body_too_large", "The request's body is larger than a policy of this route may hold."
	}
	return e
}

// answer makes the response an RFC 9457 problem; for a call of gRPC, a status
// of gRPC's.
func (e *Error) answer(x *exchange.Exchange) {
	if x.Request.IsGRPC() {
		e.answerGRPC(x)
		return
	}
	x.Refuse(exchange.Problem{Status: e.Status, Code: e.Code, Detail: e.Detail})
	if e.Status == 503 && e.Retry {
		x.Response.Fields.Add([]byte("Retry-After"), []byte("1"))
	}
}
