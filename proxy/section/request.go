// Package section reads the field sections of HTTP/2 and HTTP/3: heads and
// trailers, whatever has compressed them. It is where the rules that both share
// are kept (RFC 9113, sections 8.1 to 8.3; RFC 9114, sections 4.1 to 4.3).
//
//	HPACK ─▶┐
//	        ├▶ Field, Field, … ─▶ Finish ─▶ exchange
//	QPACK ─▶┘
//
// # Promises
//
//   - A request that comes out could have come by HTTP/1.1: no field has a meaning
//     there that it did not have here.
//   - What is malformed is told from what is only refused: the first has no
//     answer, the second one.
//   - The size of a section is bounded by http1's limits, whatever it was
//     compressed to.
package section

import (
	"bytes"
	"errors"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
)

// Reader takes in one field section after the other: a request's head, then its
// trailers. The zero value is ready to begin.
type Reader struct {
	into     *exchange.Exchange // whose head it is; nil: nobody's
	trailers *exchange.Fields   // where the fields of trailers go; else nil

	bad    error // the first thing that is wrong: Malformed, or a refusal
	size   int   // as RFC 9113, section 6.5.2, and RFC 9114, section 4.2.2, count
	fields bool  // the pseudo-fields are over
	seen   uint8 // which of them there were
	host   []byte

	tunnels  bool // CONNECT is taken, and may name a protocol (RFC 8441, RFC 9220)
	protocol string

	cookies   int
	length    int64 // of the body as announced; -1: not
	expecting bool  // 100 Continue
}

// Bits of Reader.seen.
const (
	seenMethod = 1 << iota
	seenScheme
	seenAuthority
	seenPath
	seenProtocol
)

// Malformed is a message that the RFCs forbid. Its stream is reset, because what
// it means is anyone's guess.
type Malformed string

func (m Malformed) Error() string { return string(m) }

// refused is a message that is well-formed, and answered with a status.
func refused(status int, reason string) error { return &http1.Error{Status: status, Reason: reason} }

// Begin starts the head of a request.
func (r *Reader) Begin(x *exchange.Exchange) { *r = Reader{into: x, length: -1} }

// AllowConnect: the head that was begun may ask by CONNECT for a tunnel, and by an
// extended one for WebSocket (RFC 9113, section 8.5; RFC 8441, section 4; RFC 9220).
func (r *Reader) AllowConnect() { r.tunnels = true }

// BeginTrailers starts trailers, which are added to what is given.
func (r *Reader) BeginTrailers(to *exchange.Fields) { *r = Reader{trailers: to, length: -1} }

// Skip starts a section that is nobody's: its fields must not be given.
func (r *Reader) Skip() { *r = Reader{length: -1} }

// Err is the first thing that is wrong with what was read.
func (r *Reader) Err() error { return r.bad }

// Length is the length of the body as announced, -1 when it is not.
func (r *Reader) Length() int64 { return r.length }

// Expecting: the client waits to be asked for the body.
func (r *Reader) Expecting() bool { return r.expecting }

// Overhead is what a field counts beside its bytes.
const Overhead = 32

// Field takes in the next field. It is false once the section is too large: those
// that follow need not be given.
func (r *Reader) Field(name, value string) (more bool) {
	r.size += len(name) + len(value) + Overhead
	switch {
	case r.bad != nil:
		return r.size <= http1.MaxHead
	case r.size > http1.MaxHead:
		r.bad = refused(431, "head is too large")
		return false
	case len(name) > 0 && name[0] == ':':
		r.bad = r.pseudo(name, value)
		return true
	}
	r.fields = true
	if r.bad = CheckField(name, value); r.bad != nil {
		return true
	}
	if r.trailers != nil {
		r.trailer(name, value)
	} else {
		r.regular(name, value)
	}
	return true
}

func (r *Reader) pseudo(name, value string) error {
	q := &exchange.Request{}
	if r.into != nil {
		q = &r.into.Request
	}
	var at *[]byte
	var bit uint8
	var protocol []byte
	switch name {
	case ":method":
		at, bit = &q.Method, seenMethod
	case ":scheme":
		at, bit = &q.Scheme, seenScheme
	case ":authority":
		at, bit = &q.Authority, seenAuthority
	case ":path":
		at, bit = &q.Path, seenPath
	case ":protocol":
		if r.tunnels {
			at, bit = &protocol, seenProtocol
		}
	}
	switch {
	case r.trailers != nil:
		return Malformed("trailers hold a pseudo-field")
	case r.fields:
		return Malformed("a pseudo-field stands behind other fields")
	case at == nil:
		return Malformed("a pseudo-field is unknown")
	case r.seen&bit != 0:
		return Malformed("a pseudo-field is repeated")
	case !validValue(value):
		return Malformed("a pseudo-field holds a forbidden character")
	}
	r.seen |= bit
	*at = r.into.Copy(value)
	if bit == seenProtocol {
		r.protocol = value
	}
	return nil
}

// CheckField looks at what every field must be (RFC 9113, section 8.2.1; RFC
// 9114, section 4.2).
func CheckField(name, value string) error {
	for i := range len(name) {
		if c := name[i]; !exchange.TokenByte(c) || 'A' <= c && c <= 'Z' {
			return Malformed("a field's name is invalid")
		}
	}
	switch {
	case name == "":
		return Malformed("a field has no name")
	case !validValue(value):
		return Malformed("a field's value holds a forbidden character")
	}
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return Malformed("a field belongs to HTTP/1.1 alone")
	}
	return nil
}

// validValue: no control character, and no blank at either end.
func validValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return s == "" || !blank(s[0]) && !blank(s[len(s)-1])
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

func (r *Reader) regular(name, value string) {
	x := r.into
	switch name {
	case "te":
		if value != "trailers" {
			r.bad = Malformed("TE asks for more than trailers")
		}
		x.Request.Trailing = true
		return
	case "host":
		if r.host != nil {
			r.bad = Malformed("Host is repeated")
		}
		r.host = x.Copy(value)
		return
	case "content-length":
		r.bad = r.takeLength(value)
	case "expect":
		if r.expecting = exchange.EqualFold([]byte(value), "100-continue"); !r.expecting {
			r.bad = refused(417, "this expectation cannot be met")
		}
		return
	case "cookie":
		r.cookies++
	}
	if x.Request.Fields.Len() >= http1.MaxFields {
		r.bad = refused(431, "head has too many fields")
		return
	}
	x.Request.Fields.AddParsed(x.Copy(name), x.Copy(value))
}

func (r *Reader) takeLength(value string) (err error) {
	if r.length >= 0 {
		return Malformed("the length of the body is given twice")
	}
	r.length, err = ParseLength(value)
	return err
}

// ParseLength reads a Content-Length.
func ParseLength(value string) (length int64, err error) {
	if len(value) == 0 || len(value) > 18 {
		return 0, Malformed("Content-Length is no number")
	}
	for i := range len(value) {
		if value[i] < '0' || value[i] > '9' {
			return 0, Malformed("Content-Length is no number")
		}
		length = length*10 + int64(value[i]-'0')
	}
	return length, nil
}

// trailer keeps a field for the end of the body. The exchange is its goroutine's
// by now, so the bytes are the trailer's own.
func (r *Reader) trailer(name, value string) {
	if !http1.MayTrail([]byte(name)) {
		return
	}
	if r.trailers.Len() >= http1.MaxFields {
		r.bad = Malformed("trailers have too many fields")
		return
	}
	r.trailers.AddParsed([]byte(name), []byte(value))
}

// Finish draws the conclusions from a request's whole head.
func (r *Reader) Finish() error {
	x := r.into
	q := &x.Request
	q.Connect = string(q.Method) == "CONNECT" // how it is refused depends on that, too
	if r.bad != nil {
		return r.bad
	}
	switch {
	case r.seen&seenProtocol != 0:
		if err := r.convert(q); err != nil {
			return err
		}
	case q.Connect:
		return r.connect(q)
	}
	const needed = seenMethod | seenScheme | seenPath
	if r.seen&needed != needed || len(q.Path) == 0 {
		return Malformed("a pseudo-field is missing")
	}
	if err := r.settleAuthority(q); err != nil {
		return err
	}
	if r.cookies > 1 {
		joinCookies(x)
	}
	return checkRequest(q)
}

// connect is the end of a head that asks for a tunnel.
func (r *Reader) connect(q *exchange.Request) error {
	switch {
	case r.seen&(seenScheme|seenPath) != 0:
		return Malformed("CONNECT has a path")
	case r.seen&seenAuthority == 0:
		return Malformed("CONNECT names no host and port")
	case r.length >= 0:
		return Malformed("CONNECT announces the length of a body")
	case !r.tunnels:
		return refused(501, "CONNECT is not served here")
	}
	if err := r.settleAuthority(q); err != nil {
		return err
	}
	return http1.SetConnect(q, q.Authority)
}

// convert makes an extended CONNECT what it would be in HTTP/1.1. The rest of the
// handshake is for that version alone, and written with the request.
func (r *Reader) convert(q *exchange.Request) error {
	switch {
	case !q.Connect:
		return Malformed("a protocol is named for another method than CONNECT")
	case r.length >= 0:
		return Malformed("CONNECT announces the length of a body")
	case r.protocol != "websocket":
		return refused(501, "this protocol is not served here")
	}
	q.Method, q.Connect, q.WebSocket = methodGet, false, true
	return nil
}

var methodGet = []byte("GET")

// settleAuthority: :authority and Host must not name two hosts.
func (r *Reader) settleAuthority(q *exchange.Request) error {
	switch {
	case r.seen&seenAuthority == 0:
		q.Authority = r.host
	case r.host != nil && !exchange.EqualFold(r.host, string(q.Authority)):
		return Malformed("Host and :authority differ")
	}
	if len(q.Authority) == 0 {
		return refused(400, "request has no host")
	}
	return nil
}

func checkRequest(r *exchange.Request) error {
	switch {
	case len(r.Path) > http1.MaxRequestLine:
		return refused(414, "path is too long")
	case string(r.Path) == "*" && string(r.Method) != "OPTIONS":
		return refused(400, "only OPTIONS may ask for *")
	case !exchange.EqualFold(r.Scheme, "http") && !exchange.EqualFold(r.Scheme, "https"):
		return refused(400, "the scheme is not one of HTTP")
	}
	return http1.CheckRequest(r)
}

// joinCookies makes one field of several, which HTTP/2 allows and HTTP/1.1 does
// not (RFC 9113, section 8.2.3).
func joinCookies(x *exchange.Exchange) {
	fields := &x.Request.Fields
	var all [][]byte
	for value := range fields.Values("cookie") {
		all = append(all, value)
	}
	fields.Set([]byte("cookie"), x.CopyBytes(bytes.Join(all, []byte("; "))))
}

// StatusOf is how a message that cannot be served is answered; 0: with a reset.
func StatusOf(err error) (status int, reason string) {
	var e *http1.Error
	if errors.As(err, &e) {
		return e.Status, e.Reason
	}
	return 0, err.Error()
}
