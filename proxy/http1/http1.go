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
	"strconv"

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
	// Foreign: it bears no sign of HTTP/1.1, so that who sent it would make
	// nothing of an answer.
	Foreign bool
}

func (e *Error) Error() string { return e.Reason }

func malformed(reason string) *Error { return &Error{Status: 400, Reason: reason} }

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
	// Head: the request was a HEAD, so its answer has no body, whatever becomes
	// of the method on the way.
	Head bool

	host       bool // there was a Host field
	connection bool // there was a Connection field with names in it
	upgrading  bool // Connection names Upgrade
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
			return 0, &Error{Status: 414, Reason: "request line is too long"}
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
		return &Error{Status: 414, Reason: "request line is too long"}
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
	switch v := target[version+1:]; {
	case string(v) == "HTTP/1.1":
		x.Protocol = exchange.HTTP11
	case string(v) == "HTTP/1.0":
		x.Protocol = exchange.HTTP10
	case len(v) == 8 && string(v[:5]) == "HTTP/" && digitBytes[v[5]] && v[6] == '.' && digitBytes[v[7]]:
		return &Error{Status: 505, Reason: "this HTTP version is not spoken here"}
	default:
		path := version > 0 && (target[0] == '/' || bytes.Contains(target[:version], []byte("://")))
		return &Error{Status: 400, Reason: "request line has no HTTP version", Foreign: !path}
	}
	r.Method = line[:method]
	r.Authority, r.Connect = nil, false
	return parseTarget(target[:version], r)
}

// parseTarget knows the four forms of RFC 9112, section 3.2.
func parseTarget(target []byte, r *exchange.Request) error {
	if len(target) == 0 {
		return malformed("request target is empty")
	}
	if string(r.Method) == "CONNECT" {
		return SetConnect(r, target)
	}
	if err := checkTarget(target); err != nil {
		return err
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
	}
	return parseAbsolute(target, r)
}

var slash = []byte("/")

// SetConnect makes a request one for a tunnel to a host and a port, which is never
// left out (RFC 9110, section 9.3.6).
func SetConnect(r *exchange.Request, target []byte) error {
	r.Authority, r.Connect, r.Path = target, true, slash
	return checkConnect(target)
}

func checkConnect(target []byte) error {
	colon := bytes.LastIndexByte(target, ':')
	if colon <= 0 || !validAuthority(target) || !validPort(target[colon+1:]) {
		return malformed("CONNECT names no host and port")
	}
	return nil
}

func validPort(digits []byte) bool {
	n, err := strconv.ParseUint(string(digits), 10, 16)
	return err == nil && n > 0 && allOf(digits, digitBytes)
}

// checkTarget looks at every byte of a target. A percent sign that encodes
// nothing is read by some as itself and by others as an error: it is refused,
// but in a query, where it is common and nobody routes by it.
func checkTarget(target []byte) error {
	query := false
	for i, c := range target {
		if plainBytes[c] {
			continue
		}
		switch {
		case c <= ' ' || c == 0x7f || c == '#':
			return malformed("request target holds a forbidden character")
		case c == '?':
			query = true
		case c == '%' && !query && !(len(target)-i > 2 && hexDigit(target[i+1]) && hexDigit(target[i+2])):
			return malformed("request target holds a bad percent-encoding")
		}
	}
	return nil
}

func hexDigit(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
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

// validAuthority checks a Host: a name or a bracketed address, and a port of
// digits. There is no user information in it, nothing that some servers read as
// its end (RFC 9110, section 7.2), and no percent-encoding, which some decode.
func validAuthority(host []byte) bool {
	name, port := host, []byte(nil)
	if len(host) > 0 && host[0] == '[' {
		end := bytes.IndexByte(host, ']')
		if end < 0 || !allOf(host[1:end], addressBytes) {
			return false
		}
		name, port = nil, host[end+1:]
	} else if colon := bytes.IndexByte(host, ':'); colon >= 0 {
		name, port = host[:colon], host[colon:]
	}
	return allOf(name, nameBytes) && (len(port) == 0 || port[0] == ':' && allOf(port[1:], digitBytes))
}

func allOf(b []byte, set *[256]bool) bool {
	for _, c := range b {
		if !set[c] {
			return false
		}
	}
	return true
}

const (
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// plainBytes are what most targets consist of.
var plainBytes = setOf(digits + letters + "/.-_~&=+")

// What may stand in a port, between brackets (RFC 3986, section 3.2.2), and in
// a registered name: unreserved and sub-delims, but for the comma, which joins
// the values of fields.
var (
	digitBytes   = setOf(digits)
	addressBytes = setOf(digits + "abcdefABCDEF:.")
	nameBytes    = setOf(digits + letters + ".-_~!$&'()*+;=")
)

func setOf(chars string) *[256]bool {
	var set [256]bool
	for _, c := range []byte(chars) {
		set[c] = true
	}
	return &set
}

func finishRequest(x *exchange.Exchange, f *Framing) error {
	r := &x.Request
	if !f.host && x.Protocol == exchange.HTTP11 {
		return malformed("request has no Host")
	}
	f.Head = string(r.Method) == "HEAD"
	if x.Protocol == exchange.HTTP10 {
		f.Continue = false // an HTTP/1.0 client knows no interim answers (RFC 9110, section 10.1.1)
	}
	// Of all protocols that HTTP/1.1 can be left for, this one alone: others, such
	// as h2c, would carry requests past whoever looks at requests.
	r.WebSocket = f.Switches() && x.Protocol == exchange.HTTP11 && string(r.Method) == "GET" && f.Length <= 0 && !f.Chunked
	if err := f.settle(x.Protocol, &r.Fields); err != nil || !r.Connect {
		return err
	}
	f.KeepAlive = false // what follows is the tunnel's, agreed to or not
	if f.Chunked || f.Length > 0 {
		return malformed("CONNECT has a body")
	}
	return nil
}

// Switches: the message asks for WebSocket, or agrees to it.
func (f *Framing) Switches() bool { return f.upgrading && exchange.EqualFold(f.Upgrade, "websocket") }

// settle draws the conclusions from all of a head.
func (f *Framing) settle(p exchange.Protocol, fields *exchange.Fields) error {
	if f.Chunked && p == exchange.HTTP10 {
		return malformed("an HTTP/1.0 message cannot be chunked")
	}
	f.KeepAlive = !f.closing && (p == exchange.HTTP11 || f.keeping)
	if f.connection {
		return dropNominated(fields)
	}
	return nil
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
	if r.Status, err = parseStatus(line[9:]); err != nil {
		return 0, err
	}
	n, err := parseFields(b, next, &r.Fields, f, nil)
	if n == 0 || err != nil {
		return 0, err
	}
	if err := f.settle(protocol, &r.Fields); err != nil {
		return 0, err
	}
	if r.Status == 204 && (f.Chunked || f.Length > 0) {
		f.KeepAlive = false // it has no body, but its sender may think so: read no further
	}
	return n, nil
}

// parseStatus reads the status and checks the reason, which is dropped.
func parseStatus(b []byte) (status int, err error) {
	for _, d := range b[:3] {
		if d < '0' || d > '9' {
			return 0, malformed("status is no number")
		}
		status = status*10 + int(d-'0')
	}
	if status < 100 {
		return 0, malformed("status is out of range")
	}
	for _, c := range b[3:] {
		if control(c) {
			return 0, malformed("status line holds a control character")
		}
	}
	return status, nil
}

// control reports a byte that may stand nowhere in a field or a reason.
func control(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }
