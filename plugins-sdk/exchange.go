package sdk

import (
	"strconv"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// Exchange is one request and its response. Requests and responses embed it.
type Exchange struct {
	// State is the handler's own: what it puts there in one method it finds in
	// the next ones of the same exchange. An exchange without State costs a host
	// less: set it to nil when it is not needed any more.
	State any

	id       uint32
	next     *Exchange // in the VM's list
	policy   *policy
	answered bool
	replying bool // a call's answer is looked at
	spare    bool // VM.spare, and not answered
	due      bool // the trailers' method is, when the body's has its answer
	open     int  // streams of its own
	request  Request
	response Response
}

// Request is what the client asked, as the policies before this one left it.
type Request struct {
	*Exchange
	Header Header
	// Body is readable and writable in OnRequestBody only.
	Body Body
	// End tells that this is all there is: in OnRequest that there is no body,
	// in OnRequestBody that it is complete.
	End bool
	// Trailers are there in OnRequestTrailers only.
	Trailers Header
}

// Response is what it is answered.
type Response struct {
	*Exchange
	Header Header
	// Body is readable and writable in OnResponseBody only.
	Body Body
	// End is as in Request.
	End bool
	// Trailers are there in OnResponseTrailers only.
	Trailers Header
}

// Method is the request's method.
func (r *Request) Method() string { return r.Header.Get(":method") }

// Path is the path with the query, as it was sent.
func (r *Request) Path() string { return r.Header.Get(":path") }

// Authority is the host and, where it was sent, the port.
func (r *Request) Authority() string { return r.Header.Get(":authority") }

// Scheme is "http" or "https".
func (r *Request) Scheme() string { return r.Header.Get(":scheme") }

// Status is the response's status, 0 where the host does not know it.
func (r *Response) Status() int {
	status, _ := strconv.Atoi(r.Header.Get(":status"))
	return status
}

// SetStatus changes the response's status.
func (r *Response) SetStatus(status int) { r.Header.Set(":status", strconv.Itoa(status)) }

// Property asks the host about the exchange, in the words of Envoy's
// attributes: x.Property("source", "address"). It is false where there is none.
// Numbers are eight bytes, little endian.
func (x *Exchange) Property(path ...string) (string, bool) { return Property(path...) }

// ClientAddress is the client's address and port, empty where the host does
// not tell.
func (x *Exchange) ClientAddress() string {
	address, _ := abi.GetProperty("source\x00address")
	return address
}

// Field is one line of a header section.
type Field struct {
	Name, Value string
}

// Respond answers the exchange at once: a request goes no further, a response
// is replaced. Return its result:
//
//	return r.Respond(204, nil, nil)
//
// The handler's later methods, but for OnDone, do not see the exchange.
func (x *Exchange) Respond(status int, header []Field, body []byte) Action {
	return x.respond(status, "", header, body)
}

// respond takes a word for the access log that says why.
func (x *Exchange) respond(status int, details string, header []Field, body []byte) Action {
	x.policy.scratch = abi.AppendPairs(x.policy.scratch[:0], len(header), func(i int) (string, string) {
		return header[i].Name, header[i].Value
	})
	if s := abi.Respond(uint32(status), details, body, x.policy.scratch); s != abi.OK {
		Errorf("respond with %d: %v", status, s)
		return Continue
	}
	x.answered, x.spare = true, false
	return Hold
}
