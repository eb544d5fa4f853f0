package http1_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// parse reads a request's head and says what it became: "GET a /path" and
// whatever is out of the ordinary, or the status that refuses it.
func parse(raw string) string {
	var x exchange.Exchange
	var f http1.Framing
	n, err := http1.ParseRequest([]byte(raw), &x, &f)
	if err != nil {
		return refusal(err)
	}
	if n == 0 {
		return "more"
	}
	s := fmt.Sprintf("%s %s %s", x.Request.Method, x.Request.Authority, x.Request.Path)
	if x.Protocol == exchange.HTTP10 {
		s += " 1.0"
	}
	return s + about(&x.Request.Fields, &f) + rest(raw[n:])
}

// parseAnswer does that for a response: "200" and whatever is out of the
// ordinary.
func parseAnswer(raw string) string {
	var r exchange.Response
	var f http1.Framing
	n, err := http1.ParseResponse([]byte(raw), &r, &f)
	if err != nil {
		return "refused"
	}
	if n == 0 {
		return "more"
	}
	return fmt.Sprint(r.Status) + about(&r.Fields, &f) + rest(raw[n:])
}

func refusal(err error) string {
	var bad *http1.Error
	if !errors.As(err, &bad) {
		return "not an http1.Error: " + err.Error()
	}
	return fmt.Sprint(bad.Status)
}

func about(fields *exchange.Fields, f *http1.Framing) (s string) {
	for i := range fields.Len() {
		s += fmt.Sprintf(" %s=%s", fields.At(i).Name, fields.At(i).Value)
	}
	if f.Length >= 0 {
		s += fmt.Sprintf(" (%d bytes)", f.Length)
	}
	if f.Chunked {
		s += " (chunked)"
	}
	if f.Continue {
		s += " (waits)"
	}
	if !f.KeepAlive {
		s += " (close)"
	}
	return s
}

func rest(s string) string {
	if s == "" {
		return ""
	}
	return " then " + fmt.Sprintf("%q", s)
}

// script is a connection that is sent what it holds, in pieces of a size.
type script struct {
	net.Conn // nil: what is not overridden is not called
	in       []byte
	piece    int
	out      strings.Builder
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), max(1, s.piece))], s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) Close() error                     { return nil }

// readChunked reads a chunked body that arrives in pieces, and what is left
// behind it.
func readChunked(raw []byte, piece int) (body string, trailers exchange.Fields, left string, err error) {
	s := &script{in: raw, piece: piece}
	c := wire.New(s)
	defer c.Free()
	var b http1.Body
	b.BeginChunked(c, &trailers)
	body, err = readAll(&b)
	return body, trailers, string(c.Buffered()) + string(s.in), err
}

func readAll(b exchange.Body) (string, error) {
	var all strings.Builder
	for {
		chunk, err := b.Next()
		if err == io.EOF {
			return all.String(), nil
		}
		if err != nil {
			return all.String(), err
		}
		if len(chunk) == 0 {
			return all.String(), errors.New("Next returned an empty chunk")
		}
		all.Write(chunk)
	}
}
