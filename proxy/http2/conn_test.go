package http2_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/weirmesh/weir/proxy/exchange"
)

func TestOneRequest(t *testing.T) {
	s := serveOn(t, hello, nil)
	s.greet()
	s.open(1, true, request("GET", "/a?b", [2]string{"accept", "*/*"}, [2]string{"te", "trailers"}, [2]string{"cookie", "a=1"}, [2]string{"x", "y"}, [2]string{"cookie", "b=2"})...)
	if got := s.outcome(1); got != "200 content-length: 5 hello" {
		t.Errorf("got %q", got)
	}
	s.close()
	if got, want := s.served.requests[0], "GET shop.example /a?b|accept: */*|cookie: a=1; b=2|x: y"; got != want {
		t.Errorf("served %q, want %q", got, want)
	}
}

// What is no request is not served. Where what it means cannot be known, the
// stream is reset; else it is answered.
func TestMessagesThatAreRefused(t *testing.T) {
	reset := "RST_STREAM PROTOCOL_ERROR"
	without := func(name string, more ...[2]string) [][2]string {
		var fields [][2]string
		for _, f := range request("GET", "/", more...) {
			if f[0] != name {
				fields = append(fields, f)
			}
		}
		return fields
	}
	with := func(name, value string) [][2]string { return request("GET", "/", [2]string{name, value}) }
	for name, c := range map[string]struct {
		fields [][2]string
		want   string
	}{
		"an upper-case name":                 {with("X-Upper", "1"), reset},
		"a name with a blank":                {with("x y", "1"), reset},
		"a value with a line break":          {with("x", "a\r\nb"), reset},
		"a value with a zero":                {with("x", "a\x00b"), reset},
		"a value with a blank in front":      {with("x", " a"), reset},
		"Connection":                         {with("connection", "close"), reset},
		"Transfer-Encoding":                  {with("transfer-encoding", "chunked"), reset},
		"Upgrade":                            {with("upgrade", "websocket"), reset},
		"Keep-Alive":                         {with("keep-alive", "1"), reset},
		"Proxy-Connection":                   {with("proxy-connection", "1"), reset},
		"TE with more than trailers":         {with("te", "gzip"), reset},
		"two lengths":                        {append(with("content-length", "0"), [2]string{"content-length", "0"}), reset},
		"a length that is none":              {with("content-length", "+1"), reset},
		"a length without a body":            {with("content-length", "1"), reset},
		"Host and :authority that differ":    {with("host", "other.example"), reset},
		"two Hosts":                          {append(with("host", "shop.example"), [2]string{"host", "shop.example"}), reset},
		"no method":                          {without(":method"), reset},
		"no scheme":                          {without(":scheme"), reset},
		"no path":                            {without(":path"), reset},
		"an empty path":                      {request("GET", ""), reset},
		"a pseudo-field twice":               {with(":path", "/b"), reset},
		"a pseudo-field that is unknown":     {with(":protocol", "websocket"), reset},
		"a pseudo-field of a response":       {with(":status", "200"), reset},
		"a pseudo-field behind others":       {[][2]string{{":method", "GET"}, {"x", "y"}, {":scheme", "http"}, {":path", "/"}, {":authority", "a"}}, reset},
		"a pseudo-field with a line break":   {request("GET", "/\r\nx: y"), reset},
		"no host":                            {without(":authority"), "400"},
		"an empty host":                      {without(":authority", [2]string{":authority", ""}), "400"},
		"a host that is none":                {without(":authority", [2]string{":authority", "a@b"}), "400"},
		"a path that is none":                {request("GET", "path"), "400"},
		"a path with a fragment":             {request("GET", "/a#b"), "400"},
		"a bad percent-encoding":             {request("GET", "/a%zz"), "400"},
		"a method that is none":              {request("GE T", "/"), "400"},
		"an asterisk":                        {request("GET", "*"), "400"},
		"CONNECT":                            {[][2]string{{":method", "CONNECT"}, {":authority", "a:1"}}, "501"},
		"CONNECT with a path":                {request("CONNECT", "/"), reset},
		"a scheme of something else":         {append([][2]string{{":method", "GET"}, {":scheme", "ftp"}, {":authority", "a"}}, [2]string{":path", "/"}), "400"},
		"an expectation that cannot be met":  {with("expect", "miracles"), "417"},
		"a path that is too long":            {request("GET", "/"+strings.Repeat("a", 16<<10)), "414"},
		"a head that is too large":           {with("x", strings.Repeat("a", 70<<10)), "closed"},
		"more of a head than its limit says": {many(40, strings.Repeat("a", 2000)), "431"},
		"too many fields":                    {many(200, "a"), "431"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveOn(t, hello, nil)
			s.greet()
			s.writeBlock(1, c.fields)
			if got := s.outcome(1); !strings.HasPrefix(got, c.want) && !(c.want == "closed" && strings.HasPrefix(got, "GOAWAY")) {
				t.Errorf("got %q", got)
			}
			s.close()
			if len(s.served.requests) > 0 {
				t.Errorf("served %q", s.served.requests)
			}
		})
	}
}

func many(n int, value string) [][2]string {
	fields := request("GET", "/")
	for i := range n {
		fields = append(fields, [2]string{fmt.Sprintf("x-%d", i), value})
	}
	return fields
}

// writeBlock sends a head in as many frames as it needs.
func (s *server) writeBlock(stream uint32, fields [][2]string) {
	s.t.Helper()
	block := bytes.Clone(s.head(fields...))
	first := block[:min(len(block), 16<<10)]
	block = block[len(first):]
	s.must(s.framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndStream: true, EndHeaders: len(block) == 0}))
	for len(block) > 0 {
		part := block[:min(len(block), 16<<10)]
		block = block[len(part):]
		if err := s.framer.WriteContinuation(stream, len(block) == 0, part); err != nil {
			return // the server may have had enough
		}
	}
}

// readAll reads a request's body to its end.
func readAll(x *exchange.Exchange) (string, error) {
	var all []byte
	for x.Request.Body != nil {
		chunk, err := x.Request.Body.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return string(all), err
		}
		all = append(all, chunk...)
	}
	return string(all), nil
}

func TestRequestBody(t *testing.T) {
	echo := func(_ *place, x *exchange.Exchange) {
		body, err := readAll(x)
		if err != nil {
			x.Answer(400, []byte(err.Error()))
			return
		}
		for i := range x.Request.Trailers.Len() {
			f := x.Request.Trailers.At(i)
			body += fmt.Sprintf("|%s: %s", f.Name, f.Value)
		}
		x.Answer(200, []byte(body))
	}
	for name, c := range map[string]struct {
		send func(s *server)
		want string
	}{
		"in parts": {func(s *server) {
			s.open(1, false, request("POST", "/")...)
			s.must(s.framer.WriteData(1, false, []byte("one ")))
			s.must(s.framer.WriteDataPadded(1, false, []byte("two "), make([]byte, 20)))
			s.must(s.framer.WriteData(1, true, []byte("three")))
		}, "200 content-length: 13 one two three"},
		"with trailers": {func(s *server) {
			s.open(1, false, request("POST", "/")...)
			s.must(s.framer.WriteData(1, false, []byte("body")))
			s.open(1, true, [2]string{"x-sum", "5"}, [2]string{"content-length", "9"})
		}, "200 content-length: 13 body|x-sum: 5"},
		"trailers with a pseudo-field": {func(s *server) {
			s.open(1, false, request("POST", "/")...)
			s.open(1, true, [2]string{":path", "/"})
		}, "RST_STREAM PROTOCOL_ERROR"},
		"trailers that do not end it": {func(s *server) {
			s.open(1, false, request("POST", "/")...)
			s.open(1, false, [2]string{"x", "y"})
		}, "RST_STREAM PROTOCOL_ERROR"},
		"longer than announced": {func(s *server) {
			s.open(1, false, request("POST", "/", [2]string{"content-length", "3"})...)
			s.must(s.framer.WriteData(1, true, []byte("four")))
		}, "RST_STREAM PROTOCOL_ERROR"},
		"shorter than announced": {func(s *server) {
			s.open(1, false, request("POST", "/", [2]string{"content-length", "5"})...)
			s.must(s.framer.WriteData(1, true, []byte("four")))
		}, "RST_STREAM PROTOCOL_ERROR"},
		"shorter than announced, with trailers": {func(s *server) {
			s.open(1, false, request("POST", "/", [2]string{"content-length", "5"})...)
			s.must(s.framer.WriteData(1, false, []byte("four")))
			s.open(1, true, [2]string{"x", "y"})
		}, "RST_STREAM PROTOCOL_ERROR"},
		"asked for": {func(s *server) {
			s.open(1, false, request("POST", "/", [2]string{"expect", "100-continue"})...)
			f, err := s.framer.ReadFrame()
			for err == nil && f.Header().StreamID != 1 {
				f, err = s.framer.ReadFrame()
			}
			s.must(err)
			if f := f.(*xhttp2.MetaHeadersFrame); f.PseudoValue("status") != "100" || f.StreamEnded() {
				s.t.Errorf("got %v", f)
			}
			s.must(s.framer.WriteData(1, true, []byte("here")))
		}, "200 content-length: 4 here"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveOn(t, echo, nil)
			s.greet()
			c.send(s)
			if got := s.outcome(1); got != c.want {
				t.Errorf("got %q", got)
			}
		})
	}
}

// A client that sends more than it was given room for is cut off; one that is
// given room again can go on for ever.
func TestWindowsOfRequests(t *testing.T) {
	release := make(chan struct{})
	s := serveOn(t, func(_ *place, x *exchange.Exchange) {
		<-release
		n, err := readAll(x)
		x.Answer(200, fmt.Appendf(nil, "%d %v", len(n), err))
	}, nil)
	s.greet()
	s.open(1, false, request("POST", "/")...)
	chunk := make([]byte, 16<<10)
	for range 16 { // all that a stream may have on its way
		s.must(s.framer.WriteData(1, false, chunk))
	}
	close(release)
	room := 0
	for room < 256<<10-32<<10 {
		f, err := s.framer.ReadFrame()
		s.must(err)
		if f, ok := f.(*xhttp2.WindowUpdateFrame); ok && f.StreamID == 1 {
			room += int(f.Increment)
		}
	}
	s.must(s.framer.WriteData(1, true, chunk))
	if got := s.outcome(1); !strings.HasSuffix(got, "278528 <nil>") {
		t.Errorf("got %q", got)
	}

	over := serveOn(t, func(p *place, x *exchange.Exchange) { <-p.cut; x.Answer(200, nil) }, nil)
	over.greet()
	over.open(1, false, request("POST", "/")...)
	for range 17 {
		over.must(over.framer.WriteData(1, false, chunk))
	}
	if got := over.outcome(1); got != "RST_STREAM FLOW_CONTROL_ERROR" {
		t.Errorf("got %q", got)
	}
}

// endless is a body without end.
type endless struct{ chunk []byte }

func (e endless) Next() ([]byte, error) { return e.chunk, nil }
func (e endless) Length() int64         { return -1 }

// A response stops where the client's window does.
func TestWindowsOfResponses(t *testing.T) {
	s := serveOn(t, func(_ *place, x *exchange.Exchange) {
		x.Answer(200, nil)
		x.Response.Body = endless{make([]byte, 1000)}
	}, nil)
	s.greet(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10_000})
	s.open(1, true, request("GET", "/")...)
	read := func(n int) {
		t.Helper()
		for got := 0; got < n; {
			f, err := s.framer.ReadFrame()
			s.must(err)
			if f, ok := f.(*xhttp2.DataFrame); ok {
				if got += len(f.Data()); got > n {
					t.Fatalf("%d bytes came where there was room for %d", got, n)
				}
			}
		}
	}
	quiet := func() {
		t.Helper()
		s.must(s.framer.WritePing(false, [8]byte{1}))
		for {
			f, err := s.framer.ReadFrame()
			s.must(err)
			switch f := f.(type) {
			case *xhttp2.PingFrame:
				return
			case *xhttp2.DataFrame:
				t.Fatalf("%d bytes came without room", len(f.Data()))
			}
		}
	}
	read(10_000)
	quiet()
	s.must(s.framer.WriteWindowUpdate(1, 5_000))
	read(5_000)
	quiet()
	s.must(s.framer.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 12_000}))
	read(2_000)
	s.must(s.framer.WriteWindowUpdate(1, 1<<20))
	read(65_535 - 17_000) // the connection's
	quiet()
	s.must(s.framer.WriteRSTStream(1, xhttp2.ErrCodeCancel))
	s.close()
	if s.served.failed != 1 {
		t.Error("the exchange did not learn of it")
	}
}

// A reset ends what the exchange waits for, and nothing else.
func TestResetCancels(t *testing.T) {
	s := serveOn(t, func(p *place, x *exchange.Exchange) {
		if string(x.Request.Path) == "/wait" {
			<-p.cut
		}
		x.Answer(200, []byte("ok"))
	}, nil)
	s.greet()
	s.open(1, true, request("GET", "/wait")...)
	s.open(3, true, request("GET", "/wait")...)
	s.must(s.framer.WriteRSTStream(1, xhttp2.ErrCodeCancel))
	s.open(5, true, request("GET", "/go")...)
	if got := s.outcome(5); !strings.HasSuffix(got, "ok") {
		t.Errorf("got %q", got)
	}
	s.served.mu.Lock()
	cuts := s.served.cuts
	s.served.mu.Unlock()
	if cuts != 1 {
		t.Errorf("%d exchanges are cut", cuts)
	}
}

func TestAResponseBeforeTheRequestEnds(t *testing.T) {
	s := serveOn(t, hello, nil)
	s.greet()
	s.open(1, false, request("POST", "/")...)
	if got := s.outcome(1); got != "200 content-length: 5 hello" {
		t.Errorf("got %q", got)
	}
	for { // and is told to stop sending
		f, err := s.framer.ReadFrame()
		s.must(err)
		if f, ok := f.(*xhttp2.RSTStreamFrame); ok {
			if f.ErrCode != xhttp2.ErrCodeNo {
				t.Errorf("got %v", f)
			}
			break
		}
	}
	s.must(s.framer.WriteData(1, false, []byte("late"))) // which is no crime
	s.open(1, true, [2]string{"late", "trailers"})
	s.open(3, true, request("GET", "/")...)
	if got := s.outcome(3); got != "200 content-length: 5 hello" {
		t.Errorf("got %q", got)
	}
}

func TestAPanicCostsOneStream(t *testing.T) {
	s := serveOn(t, func(_ *place, x *exchange.Exchange) {
		if string(x.Request.Path) == "/panic" {
			panic("test")
		}
		hello(nil, x)
	}, nil)
	s.greet()
	s.open(1, true, request("GET", "/panic")...)
	if got := s.outcome(1); got != "RST_STREAM INTERNAL_ERROR" {
		t.Errorf("got %q", got)
	}
	s.open(3, true, request("GET", "/")...)
	if got := s.outcome(3); got != "200 content-length: 5 hello" {
		t.Errorf("got %q", got)
	}
	s.served.mu.Lock()
	s.served.given++ // its place is given up
	s.served.finished++
	s.served.mu.Unlock()
}

func TestBrokenBodies(t *testing.T) {
	for name, c := range map[string]struct {
		length int64
		chunks []string
		err    error
	}{
		"longer than its length":  {3, []string{"four"}, io.EOF},
		"shorter than its length": {5, []string{"four"}, io.EOF},
		"fails":                   {-1, []string{"four"}, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveOn(t, func(_ *place, x *exchange.Exchange) {
				x.Answer(200, nil)
				x.Response.Body = &scripted{c.length, c.chunks, c.err}
			}, nil)
			s.greet()
			s.open(1, true, request("GET", "/")...)
			if got := s.outcome(1); !strings.HasSuffix(got, "RST_STREAM INTERNAL_ERROR") {
				t.Errorf("got %q", got)
			}
		})
	}
}

type scripted struct {
	length int64
	chunks []string
	err    error
}

func (s *scripted) Length() int64 { return s.length }

func (s *scripted) Next() ([]byte, error) {
	if len(s.chunks) == 0 {
		return nil, s.err
	}
	chunk := s.chunks[0]
	s.chunks = s.chunks[1:]
	return []byte(chunk), nil
}

// Large heads and trailers go out in several frames.
func TestLargeResponseHead(t *testing.T) {
	large := strings.Repeat("x", 40<<10)
	s := serveOn(t, func(_ *place, x *exchange.Exchange) {
		x.Answer(200, nil)
		x.Response.Fields.Add([]byte("X-Large"), []byte(large))
		x.Response.Fields.Add([]byte("Connection"), []byte("close"))
		x.Response.Body = &scripted{-1, []string{"body "}, io.EOF}
		x.Response.Trailers.Add([]byte("X-Sum"), []byte("1"))
	}, nil)
	s.greet(xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: 0})
	s.open(1, true, request("GET", "/")...)
	if got := s.outcome(1); got != "200 x-large: "+large+" body x-sum: 1 " {
		t.Errorf("got %.100q", got)
	}
}
