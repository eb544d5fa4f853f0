// Package exchange is one request and its response as the request path sees
// them, whatever protocol they came by: a head as a compact ordered list of
// fields, a body as a stream of chunks, trailers.
//
//	codec ─▶ Exchange ─▶ router, policies, upstream ─▶ Exchange ─▶ codec
//
// # Ownership
//
// An Exchange belongs to one goroutine. It and every byte slice reachable from
// it are reused once it ends: whoever keeps a value copies it. Text made on the
// way is put into the exchange's own arena with [Exchange.Copy], which costs no
// allocation once the exchange is warm.
//
// # Bodies
//
// A Body is pulled: Next blocks until there is a chunk, which is valid until
// the following Next. So memory is bounded by a chunk, back-pressure needs no
// queue, and a filter is a Body around another.
package exchange

import (
	"io"
	"net/netip"
	"time"
)

// Body is a one-way stream of chunks.
type Body interface {
	// Next returns the next chunk, which is not empty and is valid until the
	// following call; io.EOF at the end. After an error every call returns one.
	Next() ([]byte, error)
	// Length is how many bytes are left, -1 when that is not known.
	Length() int64
}

// Request is what the client asked.
type Request struct {
	// Method, Scheme ("http", "https"), Authority (host and port as sent) and
	// Path (with the query, as sent: never decoded) are HTTP's pseudo-fields.
	Method, Scheme, Authority, Path []byte
	// Connect: the client asks by CONNECT for a tunnel (RFC 9110, section 9.3.6).
	// Authority is what it wants to be connected to; Path is "/", since it has none.
	Connect bool
	Fields  Fields
	// Body is nil when there is none.
	Body Body
	// Trailers are filled once Body has returned io.EOF.
	Trailers Fields
	// Deadline is when the body must have arrived; zero: never.
	Deadline time.Time
	// Trailing: the client takes trailers (TE).
	Trailing bool
	// WebSocket: the client asks to speak it from the answer on.
	WebSocket bool
	// Expect: the client sends the body when it is asked to (100-continue), so the
	// service is asked whether it wants it.
	Expect bool
	// Shared: another goroutine reads Body, so the codec leaves it alone until
	// the exchange is finished.
	Shared bool
}

// Response is what it is answered.
type Response struct {
	Status int
	Fields Fields
	// Body is nil when there is none.
	Body     Body
	Trailers Fields
	// Trailing: trailers may follow Body although its length is known.
	Trailing bool
	// Tunnel is what follows the answer where it agrees to that: by status 101, and
	// to CONNECT by any of success.
	Tunnel Tunnel
	// Home: CONNECT is agreed to, and the tunnel leads back to the listener that it was
	// asked of: what follows on the connection are requests like others. HTTP/1.1 alone
	// can do that.
	Home bool
	// Reset: there is no answer, Status is 0. The client's connection is reset,
	// by HTTP/2 its stream.
	Reset bool
}

// Protocol is the version of HTTP that the client speaks.
type Protocol uint8

// The protocols.
const (
	HTTP10 Protocol = iota
	HTTP11
	HTTP2
	HTTP3
)

// String is as in a request line: "HTTP/1.1", "HTTP/2".
func (p Protocol) String() string {
	return [...]string{"HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"}[p]
}

// Exchange is one request and its response.
type Exchange struct {
	Request  Request
	Response Response

	// ID identifies the exchange in logs and errors; it travels as
	// X-Request-Id.
	ID       []byte
	Start    time.Time
	Protocol Protocol
	Client   netip.AddrPort
	Local    netip.AddrPort
	// TLS is nil for a client whose connection is not secured.
	TLS *TLS

	// Where it went. Empty until known. Route is "tenant/name", Rule the rule's
	// name or number, Service "tenant/name", Endpoint "host:port".
	Route, Rule, Service, Endpoint string
	// Consumer is who asks, once a policy knows; nil: nobody has said. What it
	// points to is shared and not changed.
	Consumer *Consumer
	// Api is what was called, "tenant/name", and Operation which of its operations;
	// empty until known.
	Api, Operation string
	// Keyed: that Api asks for a key.
	Keyed bool
	// Hedges counts the endpoints that were asked beside the first.
	Hedges int
	// Revision is the configuration that the exchange is served under.
	Revision uint64
	// RouteChanged is set by a policy that changed what the route was chosen
	// by and wants it chosen anew (proxy-wasm's clear_route_cache).
	RouteChanged bool
	// Details says in one word why Weir itself answered ("no_route",
	// "policy_failed"); empty when the upstream did.
	Details string

	// Deadline is when the exchange must have ended, zero: never, and Done is closed
	// when nobody wants it any more, nil: never. They are set for policies, which may
	// wait for something of their own.
	Deadline time.Time
	Done     <-chan struct{}

	// Endpoints are those of the service that the exchange goes to, for policies that
	// choose among them; nil: there are none to choose from.
	Endpoints Endpoints
	// Preferred is the address of the endpoint that a policy has chosen; it is asked
	// first if it is there and well. Empty: the service's balancer chooses.
	Preferred string

	// Informer takes interim answers to the client; nil: it would not know them.
	Informer Informer
	// Informed: an interim answer was passed on, so that the final one must come from
	// the same service.
	Informed bool

	notes []note // see Note
	arena []byte
}

// Endpoints lists the endpoints of a service.
type Endpoints interface {
	// Endpoints yields their addresses, "host:port", and whether they are well.
	Endpoints(yield func(address string, healthy bool) bool)
}

// Informer sends the client what x.Response holds while its status is one of
// 102 to 199: an interim answer, beside which the request's body may still be
// read.
type Informer interface {
	Inform(x *Exchange) error
}

// Inform passes on an interim answer that a service has given, if it is one for
// the client: 100 is between neighbours, and 101 no interim answer.
func (x *Exchange) Inform() error {
	if x.Informer == nil || x.Response.Status <= 101 || x.Response.Status > 199 {
		return nil
	}
	x.Informed = true
	return x.Informer.Inform(x)
}

// Copy puts a copy of the concatenated parts into the exchange's arena. The
// result is valid until the exchange ends.
func (x *Exchange) Copy(parts ...string) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	dst := x.reserve(n)
	for _, p := range parts {
		dst = append(dst, p...)
	}
	return dst
}

// CopyBytes is [Exchange.Copy] for one slice.
func (x *Exchange) CopyBytes(b []byte) []byte {
	return append(x.reserve(len(b)), b...)
}

// reserve returns an empty slice with room for exactly n bytes. A full arena
// is left to those who hold parts of it and a larger one takes its place.
func (x *Exchange) reserve(n int) []byte {
	if cap(x.arena)-len(x.arena) < n {
		x.arena = make([]byte, 0, max(1024, 2*cap(x.arena), n))
	}
	from := len(x.arena)
	x.arena = x.arena[:from+n]
	return x.arena[from : from : from+n]
}

// Answer makes the response Weir's own: what was there before is dropped.
// The body is kept, not copied.
func (x *Exchange) Answer(status int, body []byte) {
	x.Response.Status = status
	x.Response.Fields.Reset()
	x.Response.Trailers.Reset()
	x.Response.Body, x.Response.Trailing, x.Response.Tunnel = nil, false, nil
	x.Response.Home, x.Response.Reset = false, false
	if len(body) > 0 {
		x.Response.Body = Bytes(body)
	}
}

// keptArena is how much memory an exchange keeps for the next one.
const keptArena = 64 << 10

// Reset prepares the exchange for its next use and keeps its memory.
func (x *Exchange) Reset() {
	request, response, trailers := x.Request.Fields, x.Response.Fields, x.Request.Trailers
	responseTrailers, arena, notes := x.Response.Trailers, x.arena, x.notes
	request.Reset()
	response.Reset()
	trailers.Reset()
	responseTrailers.Reset()
	if cap(arena) > keptArena {
		arena = nil
	}
	*x = Exchange{
		Request:  Request{Fields: request, Trailers: trailers},
		Response: Response{Fields: response, Trailers: responseTrailers},
		arena:    arena[:0],
		notes:    notes[:0],
	}
}

// Bytes is a Body of one chunk that is already here.
func Bytes(b []byte) Body { return &Chunk{rest: b} }

// Chunk is a Body of one chunk that is already here. It can be set anew.
type Chunk struct{ rest []byte }

// Set makes b what the body holds.
func (c *Chunk) Set(b []byte) { c.rest = b }

// Next implements Body.
func (c *Chunk) Next() ([]byte, error) {
	if len(c.rest) == 0 {
		return nil, io.EOF
	}
	b := c.rest
	c.rest = nil
	return b, nil
}

// Length implements Body.
func (c *Chunk) Length() int64 { return int64(len(c.rest)) }

// Ready reports that Next never waits.
func (c *Chunk) Ready() bool { return true }
