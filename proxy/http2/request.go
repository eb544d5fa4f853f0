package http2

import (
	"bytes"
	"errors"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
)

// block reads header blocks into exchanges, one after the other: what one says
// may rest on what another has said.
type block struct {
	hpack *hpack.Decoder

	into     *exchange.Exchange // nil: what it holds is dropped
	trailers *exchange.Fields   // the fields of a second block go here
	open     bool               // CONTINUATION frames are to follow
	since    time.Time          // when it began
	parts    int                // frames that it came in
	bytes    int                // of it, compressed
	head     requestHead
}

// requestHead is what a head says beside what the exchange holds of it.
type requestHead struct {
	bad       error // the first thing that is wrong: malformed, or a refusal
	size      int   // as RFC 9113, section 6.5.2, counts
	fields    bool  // the pseudo-fields are over
	seen      uint8 // which of them there were
	host      []byte
	cookies   int
	length    int64 // of the body as announced; -1: not
	expecting bool  // 100 Continue
}

// Bits of requestHead.seen.
const (
	seenMethod = 1 << iota
	seenScheme
	seenAuthority
	seenPath
)

// malformed is a message that RFC 9113 forbids. Its stream is reset, because
// what it means is anyone's guess.
type malformed string

func (m malformed) Error() string { return string(m) }

// refused is a message that is well-formed, and answered with a status.
func refused(status int, reason string) error { return &http1.Error{Status: status, Reason: reason} }

func newBlock() *block {
	b := &block{}
	b.hpack = hpack.NewDecoder(defaultTableSize, b.field)
	b.hpack.SetMaxStringLength(http1.MaxHead)
	return b
}

// begin starts a block for an exchange, or for its trailers, or for nobody.
func (b *block) begin(into *exchange.Exchange, trailers *exchange.Fields) {
	b.into, b.trailers, b.open, b.parts, b.bytes = into, trailers, true, 0, 0
	b.head, b.since = requestHead{length: -1}, time.Now()
	b.hpack.SetEmitEnabled(into != nil || trailers != nil)
}

// add takes in the block's next part. A block that cannot be read leaves the
// tables of both sides apart, which ends the connection.
func (b *block) add(part []byte, last bool) *connError {
	b.parts++
	b.bytes += len(part)
	if b.parts > maxContinuations || b.bytes > 2*http1.MaxHead {
		return &connError{codeCalm, "a head does not come to its end"}
	}
	if _, err := b.hpack.Write(part); err != nil {
		return &connError{codeCompression, err.Error()}
	}
	if !last {
		return nil
	}
	b.open = false
	if err := b.hpack.Close(); err != nil {
		return &connError{codeCompression, err.Error()}
	}
	return nil
}

// field takes in one field of the block.
func (b *block) field(f hpack.HeaderField) {
	h := &b.head
	h.size += len(f.Name) + len(f.Value) + fieldOverhead
	if h.bad != nil {
		return
	}
	if h.size > http1.MaxHead {
		h.bad = refused(431, "head is too large")
		b.hpack.SetEmitEnabled(false)
		return
	}
	if f.IsPseudo() {
		h.bad = b.pseudo(f)
		return
	}
	h.fields = true
	if h.bad = checkField(f); h.bad != nil {
		return
	}
	if b.trailers != nil {
		b.trailer(f)
		return
	}
	b.regular(f)
}

func (b *block) pseudo(f hpack.HeaderField) error {
	h, r := &b.head, &exchange.Request{}
	if b.into != nil {
		r = &b.into.Request
	}
	var at *[]byte
	var bit uint8
	switch f.Name {
	case ":method":
		at, bit = &r.Method, seenMethod
	case ":scheme":
		at, bit = &r.Scheme, seenScheme
	case ":authority":
		at, bit = &r.Authority, seenAuthority
	case ":path":
		at, bit = &r.Path, seenPath
	}
	switch {
	case b.trailers != nil:
		return malformed("trailers hold a pseudo-field")
	case h.fields:
		return malformed("a pseudo-field stands behind other fields")
	case at == nil:
		return malformed("a pseudo-field is unknown")
	case h.seen&bit != 0:
		return malformed("a pseudo-field is repeated")
	case !validValue(f.Value):
		return malformed("a pseudo-field holds a forbidden character")
	}
	h.seen |= bit
	*at = b.into.Copy(f.Value)
	return nil
}

// checkField looks at what every field must be (RFC 9113, section 8.2.1).
func checkField(f hpack.HeaderField) error {
	for i := range len(f.Name) {
		if c := f.Name[i]; !exchange.TokenByte(c) || 'A' <= c && c <= 'Z' {
			return malformed("a field's name is invalid")
		}
	}
	switch {
	case f.Name == "":
		return malformed("a field has no name")
	case !validValue(f.Value):
		return malformed("a field's value holds a forbidden character")
	}
	switch f.Name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return malformed("a field belongs to HTTP/1.1 alone")
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

func (b *block) regular(f hpack.HeaderField) {
	h, x := &b.head, b.into
	switch f.Name {
	case "te":
		if f.Value != "trailers" {
			h.bad = malformed("TE asks for more than trailers")
		}
		x.Request.Trailing = true
		return
	case "host":
		if h.host != nil {
			h.bad = malformed("Host is repeated")
		}
		h.host = x.Copy(f.Value)
		return
	case "content-length":
		h.bad = h.takeLength(f.Value)
	case "expect":
		if h.expecting = exchange.EqualFold([]byte(f.Value), "100-continue"); !h.expecting {
			h.bad = refused(417, "this expectation cannot be met")
		}
		return
	case "cookie":
		h.cookies++
	}
	if x.Request.Fields.Len() >= http1.MaxFields {
		h.bad = refused(431, "head has too many fields")
		return
	}
	x.Request.Fields.AddParsed(x.Copy(f.Name), x.Copy(f.Value))
}

func (h *requestHead) takeLength(value string) error {
	if h.length >= 0 {
		return malformed("the length of the body is given twice")
	}
	if len(value) == 0 || len(value) > 18 {
		return malformed("Content-Length is no number")
	}
	h.length = 0
	for i := range len(value) {
		if value[i] < '0' || value[i] > '9' {
			return malformed("Content-Length is no number")
		}
		h.length = h.length*10 + int64(value[i]-'0')
	}
	return nil
}

// trailer keeps a field for the end of the body. The exchange is its goroutine's
// by now, so the bytes are the trailer's own.
func (b *block) trailer(f hpack.HeaderField) {
	if !http1.MayTrail([]byte(f.Name)) {
		return
	}
	if b.trailers.Len() >= http1.MaxFields {
		b.head.bad = malformed("trailers have too many fields")
		return
	}
	b.trailers.AddParsed([]byte(f.Name), []byte(f.Value))
}

// finish draws the conclusions from a request's whole head.
func (b *block) finish() error {
	h, x := &b.head, b.into
	r := &x.Request
	if h.bad != nil {
		return h.bad
	}
	if string(r.Method) == "CONNECT" {
		if h.seen&(seenScheme|seenPath) != 0 {
			return malformed("CONNECT has a path")
		}
		return refused(501, "CONNECT is not served here")
	}
	const needed = seenMethod | seenScheme | seenPath
	if h.seen&needed != needed || len(r.Path) == 0 {
		return malformed("a pseudo-field is missing")
	}
	if err := h.settleAuthority(r); err != nil {
		return err
	}
	if h.cookies > 1 {
		joinCookies(x)
	}
	return checkRequest(r)
}

// settleAuthority: :authority and Host must not name two hosts.
func (h *requestHead) settleAuthority(r *exchange.Request) error {
	switch {
	case h.seen&seenAuthority == 0:
		r.Authority = h.host
	case h.host != nil && !exchange.EqualFold(h.host, string(r.Authority)):
		return malformed("Host and :authority differ")
	}
	if len(r.Authority) == 0 {
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

// statusOf is how a message that cannot be served is answered; 0: with a reset.
func statusOf(err error) (status int, reason string) {
	var e *http1.Error
	if errors.As(err, &e) {
		return e.Status, e.Reason
	}
	return 0, err.Error()
}
