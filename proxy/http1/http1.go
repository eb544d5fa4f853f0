// Package http1 is HTTP/1.1 on the wire (RFC 9112), for both sides of a proxy:
// heads are parsed in place, bodies are read as a stream of chunks, and what is
// written is one well-formed message or nothing.
//
// # Strictness
//
// A proxy that reads a message otherwise than its neighbour can be made to
// smuggle requests. So wherever RFC 9112 leaves a choice between repairing and
// refusing, this package refuses: bare CR or LF, white space before a colon,
// folded lines, a Content-Length that is repeated or stands beside a
// Transfer-Encoding, any transfer coding but a final "chunked", a field name that
// is no token, a control character in a value. The connection is to be closed
// after an [Error]: where the message ended is not known.
//
// # What a head becomes
//
// The fields that describe this hop alone (Connection and those it names,
// Keep-Alive, Proxy-Connection, TE, Transfer-Encoding, Upgrade, and Host, which
// becomes the authority) are taken out and kept in a [Framing]; all others pass
// in their order and case. Slices point into the caller's buffer.
package http1

import (
	"bytes"

	"github.com/weirmesh/weir/proxy/exchange"
)

// Limits on a head. Reaching one is an [Error] with status 414 or 431.
const (
	MaxHead        = 64 << 10 // all of it
	MaxRequestLine = 16 << 10
	MaxFields      = 128
)

// Error is a message that is refused, with the status that says so.
type Error struct {
	Status int
	Reason string
}

func (e *Error) Error() string { return e.Reason }

func malformed(reason string) *Error { return &Error{400, reason} }

// Framing is what a head says about its own message and connection.
type Framing struct {
	// Length is the Content-Length, -1 when there is none.
	Length int64
	// Chunked: the body ends with its last chunk.
	Chunked bool
	// KeepAlive: the peer means to use the connection again.
	KeepAlive bool
	// Continue: the client waits for 100 before it sends the body.
	Continue bool
	// Upgrade is the protocol asked for by Upgrade and Connection, if any.
	Upgrade []byte

	connection bool // there was a Connection field with names in it
	closing    bool
	keeping    bool
}

// ParseRequest reads a request's head from the front of b into x.Request. It
// returns how many bytes the head took, 0 when b does not hold all of it yet.
func ParseRequest(b []byte, x *exchange.Exchange, f *Framing) (int, error) {
	at := 0
	for at+1 < len(b) && b[at] == '\r' && b[at+1] == '\n' && at < 8 {
		at += 2 // RFC 9112, section 2.2: ignore an empty line before the request line
	}
	line, next, err := cutLine(b, at)
	if err != nil {
		return 0, err
	}
	if next == 0 {
		if len(b)-at > MaxRequestLine {
			return 0, &Error{414, "request line is too long"}
		}
		if err := plausible(b[at:]); err != nil {
			return 0, err
		}
		return 0, nil
	}
	*f = Framing{Length: -1}
	x.Request.Fields.Reset()
	if err := parseRequestLine(line, x); err != nil {
		return 0, err
	}
	n, err := parseFields(b, next, &x.Request.Fields, f, &x.Request)
	if n == 0 || err != nil {
		return 0, err
	}
	return n, finishRequest(x, f)
}

// plausible refuses early what cannot become a request line, such as a TLS
// handshake on a plain port.
func plausible(b []byte) error {
	if len(b) > 0 && !exchange.TokenByte(b[0]) && b[0] != '\r' {
		return malformed("this is not HTTP/1.1")
	}
	return nil
}

// cutLine returns the line that starts at from, without its CRLF, and where the
// next one starts; 0 when its end is not there yet.
func cutLine(b []byte, from int) (line []byte, next int, err error) {
	i := bytes.IndexByte(b[from:], '\n')
	if i < 0 {
		return nil, 0, nil
	}
	if i == 0 || b[from+i-1] != '\r' {
		return nil, 0, malformed("a line ends in a bare line feed")
	}
	return b[from : from+i-1], from + i + 1, nil
}

func parseRequestLine(line []byte, x *exchange.Exchange) error {
	r := &x.Request
	if len(line) > MaxRequestLine {
		return &Error{414, "request line is too long"}
	}
	method := bytes.IndexByte(line, ' ')
	if method <= 0 || !exchange.ValidName(line[:method]) {
		return malformed("request line has no valid method")
	}
	target := line[method+1:]
	version := bytes.LastIndexByte(target, ' ')
	if version < 0 {
		return malformed("request line has no HTTP version")
	}
	switch string(target[version+1:]) {
	case "HTTP/1.1":
		x.Protocol = exchange.HTTP11
	case "HTTP/1.0":
		x.Protocol = exchange.HTTP10
	default:
		if bytes.HasPrefix(target[version+1:], []byte("HTTP/")) {
			return &Error{505, "this HTTP version is not spoken here"}
		}
		return malformed("request line has no HTTP version")
	}
	r.Method = line[:method]
	r.Authority = nil
	return parseTarget(target[:version], r)
}

// parseTarget knows the four forms of RFC 9112, section 3.2.
func parseTarget(target []byte, r *exchange.Request) error {
	if len(target) == 0 {
		return malformed("request target is empty")
	}
	for _, c := range target {
		if c <= ' ' || c == 0x7f || c == '#' {
			return malformed("request target holds a forbidden character")
		}
	}
	switch {
	case target[0] == '/':
		r.Path = target
		return nil
	case len(target) == 1 && target[0] == '*':
		if string(r.Method) != "OPTIONS" {
			return malformed("only OPTIONS may ask for *")
		}
		r.Path = target
		return nil
	case string(r.Method) == "CONNECT":
		return &Error{501, "CONNECT is not served here"}
	}
	return parseAbsolute(target, r)
}

func parseAbsolute(target []byte, r *exchange.Request) error {
	rest, ok := cutScheme(target)
	if !ok {
		return malformed("request target is neither a path nor an http URL")
	}
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	r.Authority = rest[:end]
	if !validAuthority(r.Authority) || len(r.Authority) == 0 {
		return malformed("request target has no valid host")
	}
	r.Path = rest[end:]
	if len(r.Path) == 0 {
		r.Path = []byte("/")
	} else if r.Path[0] == '?' {
		r.Path = append([]byte("/"), r.Path...)
	}
	return nil
}

func cutScheme(target []byte) ([]byte, bool) {
	for _, scheme := range []string{"http://", "https://"} {
		if len(target) > len(scheme) && exchange.EqualFold(target[:len(scheme)], scheme) {
			return target[len(scheme):], true
		}
	}
	return nil, false
}

// validAuthority checks a Host: no user information, nothing that some servers
// read as the end of it (RFC 9110, section 7.2).
func validAuthority(host []byte) bool {
	for _, c := range host {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c == '.', c == '-', c == ':', c == '_':
		case c == '[', c == ']', c == '%', c == '~', c == '!', c == '$', c == '&', c == '\'', c == '(', c == ')',
			c == '*', c == '+', c == ';', c == '=':
		default:
			return false
		}
	}
	return true
}

func finishRequest(x *exchange.Exchange, f *Framing) error {
	r := &x.Request
	if r.Authority == nil && x.Protocol == exchange.HTTP11 {
		return malformed("request has no Host")
	}
	if f.Chunked && x.Protocol == exchange.HTTP10 {
		return malformed("an HTTP/1.0 request cannot be chunked")
	}
	f.settle(x.Protocol)
	if f.connection {
		dropNominated(&r.Fields, &r.Fields)
	}
	return nil
}

func (f *Framing) settle(p exchange.Protocol) {
	f.KeepAlive = !f.closing && (p == exchange.HTTP11 || f.keeping)
}

// ParseResponse reads a response's head from the front of b into x.Response. It
// returns how many bytes the head took, 0 when b does not hold all of it yet.
func ParseResponse(b []byte, r *exchange.Response, f *Framing) (int, error) {
	line, next, err := cutLine(b, 0)
	if err != nil || next == 0 {
		return 0, err
	}
	*f = Framing{Length: -1}
	r.Fields.Reset()
	protocol := exchange.HTTP11
	switch {
	case len(line) < 12 || line[8] != ' ' || len(line) > 12 && line[12] != ' ':
		return 0, malformed("status line is malformed")
	case string(line[:8]) == "HTTP/1.1":
	case string(line[:8]) == "HTTP/1.0":
		protocol = exchange.HTTP10
	default:
		return 0, malformed("status line has an unknown version")
	}
	r.Status = 0
	for _, d := range line[9:12] {
		if d < '0' || d > '9' {
			return 0, malformed("status is no number")
		}
		r.Status = r.Status*10 + int(d-'0')
	}
	if r.Status < 100 {
		return 0, malformed("status is out of range")
	}
	n, err := parseFields(b, next, &r.Fields, f, nil)
	if n == 0 || err != nil {
		return 0, err
	}
	f.settle(protocol)
	if f.connection {
		dropNominated(&r.Fields, &r.Fields)
	}
	return n, nil
}
