package http1_test

import (
	"strings"
	"testing"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/wire"
)

// unknown is a body of unknown length.
type unknown struct{ exchange.Body }

func (unknown) Length() int64 { return -1 }

func fields(pairs ...string) (f exchange.Fields) {
	for i := 0; i+1 < len(pairs); i += 2 {
		f.AddParsed([]byte(pairs[i]), []byte(pairs[i+1]))
	}
	return f
}

func TestAppendRequest(t *testing.T) {
	for _, c := range []struct {
		name, method string
		fields       exchange.Fields
		body         exchange.Body
		want         string
	}{
		{"no body", "GET", fields("X-A", "1"), nil, "GET /p HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n\r\n"},
		{"no body where one is usual", "POST", fields(), nil, "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"},
		{"no body, but it was announced", "GET", fields("Content-Length", "0"), nil, "GET /p HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"},
		{"a body", "GET", fields(), exchange.Bytes([]byte("abc")), "GET /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"},
		{"a body that became another", "PUT", fields("content-length", "99"), exchange.Bytes([]byte("abc")), "PUT /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"},
		{"a body of unknown length", "PUT", fields("Content-Length", "99"), unknown{}, "PUT /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"what someone put there to frame it otherwise", "GET",
			fields("transfer-encoding", "chunked", "Host", "evil", "CONNECTION", "close", "Keep-Alive", "1", "TE", "trailers", "Upgrade", "h2c", "Proxy-Connection", "x", "Expect", "100-continue", "X-A", "1"),
			nil, "GET /p HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n\r\n"},
	} {
		r := exchange.Request{Method: []byte(c.method), Authority: []byte("h"), Path: []byte("/p"), Fields: c.fields, Body: c.body}
		if got := string(http1.AppendRequest(nil, &r)); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestCheckRequest(t *testing.T) {
	for _, c := range []struct {
		method, authority, path string
		ok                      bool
	}{
		{"GET", "a:80", "/p?q", true},
		{"OPTIONS", "", "*", true},
		{"GE T", "a", "/", false},
		{"GET / HTTP/1.1\r\nX:", "a", "/", false},
		{"CONNECT", "a", "/", false},
		{"", "a", "/", false},
		{"GET", "a\r\nX: y", "/", false},
		{"GET", "a/b", "/", false},
		{"GET", "a", "", false},
		{"GET", "a", "p", false},
		{"GET", "a", "/ HTTP/1.1\r\nX: y", false},
	} {
		r := exchange.Request{Method: []byte(c.method), Authority: []byte(c.authority), Path: []byte(c.path)}
		if err := http1.CheckRequest(&r); (err == nil) != c.ok {
			t.Errorf("%q at %q of %q: %v", c.method, c.path, c.authority, err)
		}
	}
}

func TestAppendResponse(t *testing.T) {
	abc := func() exchange.Body { return exchange.Bytes([]byte("abc")) }
	for _, c := range []struct {
		name   string
		status int
		fields exchange.Fields
		body   exchange.Body
		change func(x *exchange.Exchange)
		head   bool
		keep   bool
		want   string
	}{
		{"sized", 200, fields("X-A", "1"), abc(), nil, false, true, "HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 3\r\n\r\n"},
		{"nothing", 404, fields(), nil, nil, false, true, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"},
		{"a status without a reason", 299, fields(), nil, nil, false, true, "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"},
		{"a body that became another", 200, fields("Content-Length", "99"), abc(), nil, false, true, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"},
		{"unknown length", 200, fields(), unknown{abc()}, nil, false, true, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"unknown length, HTTP/1.0", 200, fields(), unknown{abc()}, http10, false, false, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"},
		{"HTTP/1.0 is told that the connection is kept", 200, fields(), abc(), http10, false, true, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n"},
		{"the last answer", 200, fields(), abc(), nil, false, false, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"},
		{"HEAD keeps the length it would have had", 200, fields("Content-Length", "99"), nil, nil, true, true, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"},
		{"HEAD without one", 200, fields(), nil, nil, true, true, "HTTP/1.1 200 OK\r\n\r\n"},
		{"HEAD that a policy made a GET of has no body still", 200, fields(), abc(), nil, true, true, "HTTP/1.1 200 OK\r\n\r\n"},
		{"GET that a policy made a HEAD of has a length still", 200, fields("Content-Length", "99"), nil,
			func(x *exchange.Exchange) { x.Request.Method = []byte("HEAD") }, false, true, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"204", 204, fields("Content-Length", "3"), abc(), nil, false, true, "HTTP/1.1 204 No Content\r\n\r\n"},
		{"304", 304, fields("Content-Length", "3"), nil, nil, false, true, "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n"},
		{"what someone put there to frame it otherwise", 200, fields("transfer-encoding", "chunked", "Connection", "x", "Upgrade", "h2c"), nil, nil, false, true, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	} {
		x := exchange.Exchange{Protocol: exchange.HTTP11, Response: exchange.Response{Status: c.status, Fields: c.fields, Body: c.body}}
		x.Request.Method = []byte("GET")
		if c.change != nil {
			c.change(&x)
		}
		if got := string(http1.AppendResponse(nil, &x, http1.DeliveryOf(&x, c.head), c.keep)); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}

func http10(x *exchange.Exchange) { x.Protocol = exchange.HTTP10 }

func TestWriteChunks(t *testing.T) {
	s := &script{}
	c := wire.New(s)
	big := strings.Repeat("x", 5000)
	for _, chunk := range []string{"hello", "", big} { // an empty one must not end the body
		if err := http1.WriteChunk(c, []byte(chunk)); err != nil {
			t.Fatal(err)
		}
	}
	trailers := fields("X-Sum", "1", "Transfer-Encoding", "chunked", "Content-Length", "5")
	http1.EndChunks(c, &trailers)
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if want := "5\r\nhello\r\n1388\r\n" + big + "\r\n0\r\nX-Sum: 1\r\n\r\n"; s.out.String() != want {
		t.Errorf("got %q", s.out.String())
	}
}

// The plain path costs no allocation once it is warm.
func TestParseAndWriteAllocateNothing(t *testing.T) {
	request := []byte("GET /books/1?a=b HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: curl/8\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n")
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\n\r\n")
	var x exchange.Exchange
	var f http1.Framing
	out := make([]byte, 0, 4<<10)
	once := func() {
		x.Reset()
		if _, err := http1.ParseRequest(request, &x, &f); err != nil {
			t.Fatal(err)
		}
		out = http1.AppendRequest(out[:0], &x.Request)
		if _, err := http1.ParseResponse(answer, &x.Response, &f); err != nil {
			t.Fatal(err)
		}
		out = http1.AppendResponse(out[:0], &x, http1.DeliveryOf(&x, false), true)
	}
	if n := testing.AllocsPerRun(100, once); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParseAndWrite(b *testing.B) {
	request := []byte("GET /books/1?a=b HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: curl/8\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n")
	var x exchange.Exchange
	var f http1.Framing
	out := make([]byte, 0, 4<<10)
	b.ReportAllocs()
	for b.Loop() {
		x.Reset()
		if _, err := http1.ParseRequest(request, &x, &f); err != nil {
			b.Fatal(err)
		}
		out = http1.AppendRequest(out[:0], &x.Request)
	}
}
