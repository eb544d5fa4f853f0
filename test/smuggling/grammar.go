package smuggling

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Message is one well-formed message.
type Message struct {
	Line     string // request line or status line
	Fields   []string
	Body     string
	Trailers []string
	// ToClose: nothing but the end of the connection ends the body.
	ToClose bool
}

// Method and Target are those of a request.
func (m *Message) Method() string { return strings.Split(m.Line, " ")[0] }

// Target is as in the request line.
func (m *Message) Target() string { return strings.Split(m.Line, " ")[1] }

// Field is the value of a field, "" when there is none.
func (m *Message) Field(name string) string {
	for _, f := range m.Fields {
		if n, value, _ := strings.Cut(f, ": "); strings.EqualFold(n, name) {
			return value
		}
	}
	return ""
}

// String is the message with its body in one piece, however that was cut.
func (m *Message) String() string {
	s := m.Line + "\r\n" + strings.Join(m.Fields, "\r\n") + "\r\n\r\n" + m.Body
	if len(m.Trailers) > 0 {
		s += "\r\n--\r\n" + strings.Join(m.Trailers, "\r\n")
	}
	return s
}

// The grammar (RFC 9112, sections 3, 4, 5 and 7.1; RFC 9110, section 5.5), as a
// sender must keep it: what a recipient may tolerate is not in it.
const (
	token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
	// A value is visible, with white space only within.
	value  = `(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?`
	fields = `((?:` + token + `: ` + value + `\r\n)*)\r\n`
)

var (
	requestHead = regexp.MustCompile(`^(?s-m:(` + token + ` (?:/[\x21\x22\x24-\x7e\x80-\xff]*|\*) HTTP/1\.1)\r\n` + fields + `)`)
	answerHead  = regexp.MustCompile(`^(?s-m:(HTTP/1\.1 [1-9][0-9]{2} [\t\x20-\x7e\x80-\xff]*)\r\n` + fields + `)`)
	chunkHead   = regexp.MustCompile(`^([0-9a-f]{1,15})\r\n`)
	trailers    = regexp.MustCompile(`^` + fields)
	number      = regexp.MustCompile(`^(?:0|[1-9][0-9]{0,17})$`)
)

// Next cuts one message from the front of raw. It is an answer to a request of
// method answers, or, if that is empty, a request. nil and no error: raw breaks
// off within it. Bytes, not characters: raw is read as Latin-1 would be.
func Next(raw, answers string) (m *Message, rest string, err error) {
	text := latin1(raw)
	end := strings.Index(text, "\r\n\r\n")
	if end < 0 {
		return nil, raw, nil
	}
	grammar := requestHead
	if answers != "" {
		grammar = answerHead
	}
	parts := grammar.FindStringSubmatch(text)
	if parts == nil || len([]rune(parts[0])) != len([]rune(text[:end+4])) {
		return nil, raw, fmt.Errorf("malformed head: %q", raw[:min(len(raw), 300)])
	}
	m = &Message{Line: bytesOf(parts[1]), Fields: lines(bytesOf(parts[2]))}
	return m.takeBody(raw, bytesOf(text[end+4:]), answers)
}

// latin1 makes a character of each byte, for regular expressions.
func latin1(raw string) string {
	var b strings.Builder
	for i := range len(raw) {
		b.WriteRune(rune(raw[i]))
	}
	return b.String()
}

func bytesOf(text string) string {
	b := make([]byte, 0, len(text))
	for _, r := range text {
		b = append(b, byte(r))
	}
	return string(b)
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\r\n"), "\r\n")
}

// takeBody knows the rules of RFC 9112, section 6.3.
func (m *Message) takeBody(raw, body, answers string) (*Message, string, error) {
	lengths, codings := m.values("content-length"), m.values("transfer-encoding")
	if len(lengths)+len(codings) > 1 {
		return nil, raw, fmt.Errorf("framed twice: %q", m)
	}
	status := ""
	if answers != "" {
		status = strings.Split(m.Line, " ")[1]
	}
	bodyless := answers == "HEAD" || status == "204" || status == "304" || strings.HasPrefix(status, "1")
	switch {
	case len(codings) == 1 && (codings[0] != "chunked" || status == "204" || strings.HasPrefix(status, "1")):
		return nil, raw, fmt.Errorf("bad transfer coding: %q", m)
	case len(lengths) == 1 && (!number.MatchString(lengths[0]) || status == "204" || strings.HasPrefix(status, "1")):
		return nil, raw, fmt.Errorf("bad length: %q", m)
	case bodyless:
		return m, body, nil
	case len(codings) == 1:
		return m.takeChunks(raw, body)
	case len(lengths) == 1:
		n, _ := strconv.Atoi(lengths[0])
		if len(body) < n {
			return nil, raw, nil
		}
		m.Body = body[:n]
		return m, body[n:], nil
	case answers != "":
		m.Body, m.ToClose = body, true
		return m, "", nil
	}
	return m, body, nil
}

func (m *Message) values(name string) (all []string) {
	for _, f := range m.Fields {
		if n, v, _ := strings.Cut(f, ": "); strings.EqualFold(n, name) {
			all = append(all, v)
		}
	}
	return all
}

func (m *Message) takeChunks(raw, body string) (*Message, string, error) {
	for {
		line, _, whole := strings.Cut(body, "\r\n")
		if !whole {
			return nil, raw, nil
		}
		head := chunkHead.FindStringSubmatch(line + "\r\n")
		if head == nil {
			return nil, raw, fmt.Errorf("bad chunk: %q", line)
		}
		n, _ := strconv.ParseInt(head[1], 16, 64)
		body = body[len(head[0]):]
		if n == 0 {
			return m.takeTrailers(raw, body)
		}
		if int64(len(body)) < n+2 {
			return nil, raw, nil
		}
		if body[n:n+2] != "\r\n" {
			return nil, raw, fmt.Errorf("a chunk does not end where it should: %q", body)
		}
		m.Body += body[:n]
		body = body[n+2:]
	}
}

func (m *Message) takeTrailers(raw, body string) (*Message, string, error) {
	if !strings.HasPrefix(body, "\r\n") && !strings.Contains(body, "\r\n\r\n") {
		return nil, raw, nil
	}
	found := trailers.FindStringSubmatch(latin1(body))
	if found == nil {
		return nil, raw, fmt.Errorf("bad trailers: %q", body)
	}
	m.Trailers = lines(bytesOf(found[1]))
	return m, body[len(bytesOf(found[0])):], nil
}
