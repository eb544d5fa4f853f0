package http1_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/wire"
)

// What this package accepts, net/http must read in the same way: two readers
// that differ are how requests are smuggled. Then what is written for it must be
// read back as the same.

// message is a request or a response that was read whole.
type message struct {
	x        exchange.Exchange
	f        http1.Framing
	head     int
	body     string
	trailers exchange.Fields
	left     string
	bodyErr  error
}

// readRequest reads a whole request; nil when its head is not accepted.
func readRequest(raw []byte) *message {
	m := &message{}
	n, err := http1.ParseRequest(raw, &m.x, &m.f)
	if err != nil || n == 0 {
		return nil
	}
	m.readBody(raw, n, false)
	return m
}

func readResponse(raw []byte) *message {
	m := &message{}
	n, err := http1.ParseResponse(raw, &m.x.Response, &m.f)
	if err != nil || n == 0 {
		return nil
	}
	m.readBody(raw, n, true)
	return m
}

func (m *message) readBody(raw []byte, head int, untilClose bool) {
	m.head = head
	s := &script{in: raw[head:], piece: 7}
	c := wire.New(s)
	defer c.Free()
	var b http1.Body
	switch {
	case m.f.Chunked:
		b.BeginChunked(c, &m.trailers)
	case m.f.Length >= 0 || !untilClose:
		b.BeginSized(c, max(0, m.f.Length))
	default:
		b.BeginUntilClose(c)
	}
	m.body, m.bodyErr = readAll(&b)
	m.left = string(c.Buffered()) + string(s.in)
}

// prefixes: a head that is accepted is never refused while it arrives, and
// nothing behind it matters.
func checkPrefixes(t *testing.T, raw []byte, head int, parse func([]byte) (int, error)) {
	t.Helper()
	for i := range min(head, 300) {
		if n, err := parse(raw[:i]); n != 0 || err != nil {
			t.Fatalf("%q is accepted, %q of it gives %d, %v", raw[:head], raw[:i], n, err)
		}
	}
	if n, err := parse(raw[:head]); n != head || err != nil {
		t.Fatalf("%q is accepted only with what follows: %d, %v", raw[:head], n, err)
	}
}

// sameFields compares what goes on with what net/http saw. It knows names only
// in their canonical form, and keeps or drops others than we do.
func sameFields(t *testing.T, ours *exchange.Fields, theirs http.Header) {
	t.Helper()
	got := http.Header{}
	for i := range ours.Len() {
		name := textproto.CanonicalMIMEHeaderKey(string(ours.At(i).Name))
		got[name] = append(got[name], string(ours.At(i).Value))
	}
	for name, values := range got {
		switch name {
		case "Trailer", "Content-Length": // net/http keeps them elsewhere, or not
			continue
		}
		if !slices.Equal(values, theirs[name]) {
			t.Fatalf("field %s: we read %q, net/http %q", name, values, theirs[name])
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /p?q=%zz HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nX-A: b\r\nx-a: c\r\n\r\nhelloGET / HTTP/1.1\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\nrest",
		"GET http://b/p HTTP/1.1\r\nHost: a\r\nConnection: x-a, close\r\nX-A: 1\r\nTE: trailers\r\nExpect: 100-continue\r\n\r\n",
		"\r\nOPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"GET /\xff HTTP/1.1\r\nHost: [::1]:80\r\nA:\t \x80 \r\nPragma: no-cache\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := readRequest(raw)
		if m == nil {
			return
		}
		checkPrefixes(t, raw, m.head, func(b []byte) (int, error) {
			var x exchange.Exchange
			var f http1.Framing
			return http1.ParseRequest(b, &x, &f)
		})
		compareRequest(t, raw, m)
		if m.bodyErr == nil {
			roundTripRequest(t, m)
		}
	})
}

func compareRequest(t *testing.T, raw []byte, m *message) {
	t.Helper()
	// Empty lines before a request: net/http's server skips them elsewhere.
	raw = bytes.TrimLeft(raw, "\r\n")
	reader := bufio.NewReader(bytes.NewReader(raw))
	theirs, err := http.ReadRequest(reader)
	if err != nil {
		t.Fatalf("we accept %q, net/http says: %v", raw, err)
	}
	if theirs.Method != string(m.x.Request.Method) {
		t.Fatalf("method: %q and %q", m.x.Request.Method, theirs.Method)
	}
	if theirs.Host != string(m.x.Request.Authority) {
		t.Fatalf("host: %q and %q", m.x.Request.Authority, theirs.Host)
	}
	if u, err := url.Parse(theirs.RequestURI); theirs.RequestURI != string(m.x.Request.Path) &&
		(err != nil || u.Host == "" || !strings.HasSuffix(theirs.RequestURI, strings.TrimPrefix(string(m.x.Request.Path), "/"))) {
		t.Fatalf("target: %q and %q", m.x.Request.Path, theirs.RequestURI)
	}
	if theirs.ProtoMinor != int(m.x.Protocol) {
		t.Fatalf("version: %v and %s", m.x.Protocol, theirs.Proto)
	}
	sameFields(t, &m.x.Request.Fields, theirs.Header)
	sameBody(t, m, theirs.Body, reader)
}

func sameBody(t *testing.T, m *message, theirs io.Reader, reader *bufio.Reader) {
	t.Helper()
	if m.bodyErr != nil {
		return // refused, or cut short: nothing of what follows is read
	}
	body, err := io.ReadAll(theirs)
	if err != nil {
		if strings.Contains(err.Error(), "trailer") || strings.Contains(err.Error(), "suspiciously long") {
			return // net/http refuses some trailers that we drop
		}
		t.Fatalf("we read %q, net/http says: %v", m.body, err)
	}
	left, _ := io.ReadAll(reader)
	if string(body) != m.body || string(left) != m.left {
		t.Fatalf("we read %q and leave %q, net/http reads %q and leaves %q", m.body, m.left, body, left)
	}
}

func roundTripRequest(t *testing.T, m *message) {
	t.Helper()
	if len(m.body) > 0 {
		m.x.Request.Body = exchange.Bytes([]byte(m.body))
	}
	written := http1.AppendRequest(nil, &m.x.Request)
	again := readRequest(append(written, m.body...))
	if again == nil {
		t.Fatalf("what we write is not accepted: %q", written)
	}
	if a, b := m.x.Request, again.x.Request; string(a.Method) != string(b.Method) || string(a.Authority) != string(b.Authority) ||
		string(a.Path) != string(b.Path) || again.body != m.body || again.left != "" || !sameList(&a.Fields, &b.Fields) {
		t.Fatalf("what we write is read as another: %q", written)
	}
}

// sameList compares all but Content-Length, which follows from the body.
func sameList(a, b *exchange.Fields) bool {
	list := func(f *exchange.Fields) (l []string) {
		for i := range f.Len() {
			if !exchange.EqualFold(f.At(i).Name, "content-length") {
				l = append(l, string(f.At(i).Name)+": "+string(f.At(i).Value))
			}
		}
		return l
	}
	return slices.Equal(list(a), list(b))
}

func FuzzParseResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\nrest",
		"HTTP/1.0 404 Not Found\r\nConnection: keep-alive, x-a\r\nX-A: b\r\n\r\nto the end",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200\r\nPragma: no-cache\r\nA:\t\x80\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := readResponse(raw)
		if m == nil {
			return
		}
		checkPrefixes(t, raw, m.head, func(b []byte) (int, error) {
			var r exchange.Response
			var f http1.Framing
			return http1.ParseResponse(b, &r, &f)
		})
		compareResponse(t, raw, m)
		roundTripResponse(t, m)
	})
}

func compareResponse(t *testing.T, raw []byte, m *message) {
	t.Helper()
	reader := bufio.NewReader(bytes.NewReader(raw))
	theirs, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatalf("we accept %q, net/http says: %v", raw, err)
	}
	if theirs.StatusCode != m.x.Response.Status {
		t.Fatalf("status: %d and %d", m.x.Response.Status, theirs.StatusCode)
	}
	sameFields(t, &m.x.Response.Fields, theirs.Header)
	switch s := m.x.Response.Status; {
	case s < 200, s == 204, s == 304: // whoever reads them knows that they have no body
		return
	}
	sameBody(t, m, theirs.Body, reader)
}

func roundTripResponse(t *testing.T, m *message) {
	t.Helper()
	if m.x.Response.Status < 200 || m.bodyErr != nil {
		return
	}
	m.x.Protocol = exchange.HTTP11
	if len(m.body) > 0 {
		m.x.Response.Body = exchange.Bytes([]byte(m.body))
	}
	d := http1.DeliveryOf(&m.x, false)
	written := http1.AppendResponse(nil, &m.x, d, m.f.KeepAlive)
	if d == http1.Sized {
		written = append(written, m.body...)
	}
	again := readResponse(written)
	if again == nil {
		t.Fatalf("what we write is not accepted: %q", written)
	}
	if again.x.Response.Status != m.x.Response.Status || !sameList(&again.x.Response.Fields, &m.x.Response.Fields) ||
		d == http1.Sized && (again.body != m.body || again.left != "") || again.f.KeepAlive != m.f.KeepAlive {
		t.Fatalf("what we write is read as another: %q", written)
	}
}

func FuzzChunked(f *testing.F) {
	for _, s := range []string{
		"5\r\nhello\r\n0\r\n\r\n", "a;b=c\r\n0123456789\r\n0\r\nX: y\r\n\r\nrest", "0\r\n\r\n", "5 ;a\r\nhello\r\n00\r\n\r\n",
		"1\r\na\r\n1\r\nb\r\n0;\r\nContent-Length: 5\r\n\r\n", "fffffffffffffff\r\n",
	} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, raw []byte, piece uint8) {
		body, trailers, left, err := readChunked(raw, int(piece))
		whole, wholeTrailers, wholeLeft, wholeErr := readChunked(raw, len(raw))
		if (err == nil) != (wholeErr == nil) || err == nil && (body != whole || left != wholeLeft || !sameList(&trailers, &wholeTrailers)) {
			t.Fatalf("in pieces of %d: %q, left %q, %v; at once: %q, left %q, %v", piece, body, left, err, whole, wholeLeft, wholeErr)
		}
		if err != nil {
			return
		}
		theirs, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(raw)))
		if err != nil && strings.Contains(err.Error(), "too much overhead") {
			return // it counts otherwise
		}
		if err != nil || string(theirs) != body {
			t.Fatalf("we read %q, net/http %q, %v", body, theirs, err)
		}
		writeChunked(t, body, &trailers)
	})
}

// FuzzReady: what a body says of what is here holds. Where it is ready the next chunk
// takes no read, where it is complete nothing does until the end, and what is checked
// as broken fails.
func FuzzReady(f *testing.F) {
	for _, s := range []string{"5\r\nhello\r\n0\r\n\r\n", "5\r\nhe", "5\r\nhello\r\n", "0\r\n", "5\r\nhellox", "x"} {
		f.Add([]byte(s), uint8(4), false)
		f.Add([]byte(s), uint8(20), true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, here uint8, sized bool) {
		s := &script{in: raw, piece: max(1, int(here))}
		c := wire.New(s)
		defer c.Free()
		if c.Fill(wire.SmallBuffer, wire.SmallBuffer) != nil {
			return
		}
		var trailers exchange.Fields
		var b http1.Body
		if sized {
			b.BeginSized(c, int64(len(raw)))
		} else {
			b.BeginChunked(c, &trailers)
		}
		done, broken := false, error(nil)
		if !sized {
			done, broken = b.Check()
		}
		whole := b.Complete()
		if done && !whole {
			t.Fatal("it is checked to its end and not complete")
		}
		for first := true; ; first = false {
			ready, left := b.Ready(), len(s.in)
			_, err := b.Next()
			if (ready || whole) && len(s.in) != left {
				t.Fatalf("ready %v, complete %v, and it was waited for more", ready, whole)
			}
			if first && broken != nil && len(s.in) == left && err == io.EOF {
				t.Fatalf("it was checked as broken, %v, and ends", broken)
			}
			if err != nil {
				if whole && err != io.EOF {
					t.Fatalf("it was complete, and fails: %v", err)
				}
				return
			}
		}
	})
}

// writeChunked: what is written for a body is read back as the same.
func writeChunked(t *testing.T, body string, trailers *exchange.Fields) {
	t.Helper()
	s := &script{}
	c := wire.New(s)
	for part := range slices.Chunk([]byte(body), 10) {
		if err := http1.WriteChunk(c, part); err != nil {
			t.Fatal(err)
		}
	}
	http1.EndChunks(c, trailers)
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	again, againTrailers, left, err := readChunked([]byte(s.out.String()), 100)
	if err != nil || again != body || left != "" || !sameList(trailers, &againTrailers) {
		t.Fatalf("written %q, read back %q, left %q, %v", s.out.String(), again, left, err)
	}
}
