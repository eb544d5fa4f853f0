// Package compress makes answers smaller for clients that can read them so: by
// zstd, Brotli or gzip (RFC 9110, section 8.4).
//
//	Accept-Encoding ─negotiate─▶ coding ─▶ Body (encoder around the service's body) ─▶ client
//
// # What is compressed
//
// An answer with a body of a listed media type, at least as long as the rule
// says where its length is known, that bears no coding yet, is no part of a
// range, and may be changed (no Cache-Control: no-transform on either side, no
// digest of its bytes). Vary says that another client may get another answer, a
// strong ETag becomes a weak one, the length is not known any more. The answer to
// a HEAD bears the same fields as that to a GET.
//
// # Promises
//
//   - What has arrived from the service is on its way to the client before more
//     is waited for: each event of a stream comes when it happens.
//   - Encoders are kept and used again, and there are at most MaxEncoders of
//     them at work in a process. An answer that comes when all are is sent as it
//     is, not held up.
//   - No more than a chunk of the body is held, beside the encoder's window.
package compress

import (
	"bytes"
	"slices"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// Coding is a content coding.
type Coding uint8

// The codings, and none.
const (
	Identity Coding = iota
	Zstd
	Brotli
	Gzip
)

var names = [...]string{"identity", "zstd", "br", "gzip"}

// String is the coding's name in Content-Encoding.
func (c Coding) String() string { return names[c] }

// Rule says which answers are compressed, and how. It never changes.
type Rule struct {
	codings   []Coding // the preferred first
	minLength int64
	types     []mediaRange
}

// mediaRange is a media type: all of it, or what stands before and after a "*".
type mediaRange struct {
	before, after string
	wild          bool
}

const defaultMinLength = 1024

// defaultTypes are text by nature, or formats that leave room.
var defaultTypes = []string{
	"text/*", "application/json", "application/*+json", "application/xml", "application/*+xml", "application/javascript",
	"application/x-javascript", "application/x-ndjson", "application/yaml", "application/graphql", "application/wasm",
	"application/vnd.ms-fontobject", "font/ttf", "font/otf", "image/svg+xml", "image/bmp", "image/x-icon",
}

// New compiles a declaration.
func New(spec *weirv1.Compression) *Rule {
	r := &Rule{minLength: defaultMinLength}
	if spec.MinLength != nil {
		r.minLength = int64(spec.GetMinLength())
	}
	for _, name := range spec.GetAlgorithms() {
		if i := slices.Index(names[:], name); i > 0 {
			r.codings = append(r.codings, Coding(i))
		}
	}
	if len(r.codings) == 0 {
		r.codings = []Coding{Zstd, Brotli, Gzip}
	}
	types := spec.GetTypes()
	if len(types) == 0 {
		types = defaultTypes
	}
	for _, t := range types {
		before, after, wild := strings.Cut(t, "*")
		r.types = append(r.types, mediaRange{before, after, wild})
	}
	return r
}

func (r *Rule) covers(contentType []byte) bool {
	if i := bytes.IndexByte(contentType, ';'); i >= 0 {
		contentType = contentType[:i]
	}
	contentType = bytes.ToLower(bytes.TrimSpace(contentType))
	return slices.ContainsFunc(r.types, func(m mediaRange) bool {
		if !m.wild {
			return string(contentType) == m.before
		}
		rest, ok := bytes.CutPrefix(contentType, []byte(m.before))
		return ok && len(rest) > len(m.after) && bytes.HasSuffix(rest, []byte(m.after))
	})
}

// Apply compresses the answer of x if that is due and possible. head: the client
// asked for the fields alone. b is where the body is compressed, and is to be
// closed once the answer was sent.
func (r *Rule) Apply(x *exchange.Exchange, head bool, b *Body) {
	f := &x.Response.Fields
	if x.Response.Status == 304 { // what the 200 would say
		f.AddVary("Accept-Encoding")
		return
	}
	length, suits := r.suits(x, head)
	if !suits {
		return
	}
	coding, must := r.negotiate(x)
	if length >= 0 && length < r.minLength && !must {
		return
	}
	f.AddVary("Accept-Encoding")
	if coding == Identity || !head && !b.begin(x.Response.Body, coding) {
		return
	}
	f.Set(fieldEncoding, []byte(coding.String()))
	f.Del("content-length")
	f.Del("accept-ranges")
	if tag := f.Get("etag"); len(tag) > 0 && tag[0] == '"' {
		f.Set(fieldETag, x.Copy("W/", string(tag)))
	}
	if !head {
		x.Response.Body = b
	}
}

var fieldEncoding, fieldETag = []byte("Content-Encoding"), []byte("ETag")

// bound are fields that say something of the very bytes.
var bound = []string{"content-range", "content-md5", "digest", "content-digest", "repr-digest"}

// suits reports whether the answer may be compressed, whoever asks, and how long
// it is; -1: not known.
func (r *Rule) suits(x *exchange.Exchange, head bool) (length int64, ok bool) {
	f := &x.Response.Fields
	switch s := x.Response.Status; {
	case s < 200 || s == 204 || s == 205 || s == 206:
		return 0, false
	case x.Protocol == exchange.HTTP10: // only the end of its connection could tell where the body ends
		return 0, false
	case head:
		if length, ok = announced(f); !ok {
			return 0, false
		}
	case x.Response.Body == nil:
		return 0, false
	default:
		length = x.Response.Body.Length()
	}
	for value := range f.Values("content-encoding") {
		if !exchange.EqualFold(value, "identity") {
			return 0, false
		}
	}
	if slices.ContainsFunc(bound, f.Has) || noTransform(f) || noTransform(&x.Request.Fields) {
		return 0, false
	}
	return length, length != 0 && r.covers(f.Get("content-type"))
}

// announced is the Content-Length of an answer without body; -1: none.
func announced(f *exchange.Fields) (n int64, ok bool) {
	value := f.Get("content-length")
	if value == nil {
		return -1, true
	}
	for _, c := range value {
		if c < '0' || c > '9' || n > 1<<53 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, len(value) > 0
}

func noTransform(f *exchange.Fields) bool {
	for value := range f.Values("cache-control") {
		for one := range bytes.SplitSeq(value, []byte{','}) {
			if exchange.EqualFold(bytes.TrimSpace(one), "no-transform") {
				return true
			}
		}
	}
	return false
}
