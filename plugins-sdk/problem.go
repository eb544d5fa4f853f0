package sdk

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// Problem is an answer that says what is wrong, for programs and for people:
// application/problem+json (RFC 9457).
type Problem struct {
	Status int
	// Type is a URI that names the kind of problem; empty: "about:blank".
	Type string
	// Title is the same for all problems of a type, Detail is about this one
	// and says what to do.
	Title, Detail string
}

// Refuse answers with a problem and further header fields. The request id
// goes into the body where there is one, and the last word of the type into the
// access log. Return its result.
func (x *Exchange) Refuse(p Problem, header ...Field) Action {
	body := make([]byte, 0, 256)
	body = appendMember(append(body, '{'), "type", orBlank(p.Type))
	body = appendMember(append(body, ','), "title", p.Title)
	body = append(body, `,"status":`...)
	body = strconv.AppendInt(body, int64(p.Status), 10)
	if p.Detail != "" {
		body = appendMember(append(body, ','), "detail", p.Detail)
	}
	if id := x.requestID(); id != "" {
		body = appendMember(append(body, ','), "requestId", id)
	}
	body = append(body, "}\n"...)
	fields := make([]Field, 0, 8)
	fields = append(fields, Field{"content-type", "application/problem+json"})
	return x.respond(p.Status, p.word(), append(fields, header...), body)
}

func (x *Exchange) requestID() string {
	if id := x.request.Header.Get("x-request-id"); id != "" {
		return id
	}
	id, _ := abi.GetProperty("request\x00id")
	return id
}

// word is the end of the type, for the access log.
func (p Problem) word() string {
	return p.Type[strings.LastIndexAny(p.Type, ":#/")+1:]
}

func orBlank(uri string) string {
	if uri == "" {
		return "about:blank"
	}
	return uri
}

func appendMember(dst []byte, name, value string) []byte {
	dst = append(append(append(dst, '"'), name...), `":`...)
	return AppendJSON(dst, value)
}

// AppendJSON appends s as a JSON string. It is there because encoding/json is
// slow in a sandbox.
func AppendJSON(dst []byte, s string) []byte {
	dst = append(dst, '"')
	plain := 0 // from here to i nothing needs an escape
	for i := 0; i < len(s); {
		c := s[i]
		if ' ' <= c && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		dst = appendEscaped(append(dst, s[plain:i]...), r)
		i += size
		plain = i
	}
	return append(append(dst, s[plain:]...), '"')
}

func appendEscaped(dst []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r < ' ' || r == 0x7f:
		return append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
	}
	// What is not UTF-8 was decoded as U+FFFD.
	return utf8.AppendRune(dst, r)
}
