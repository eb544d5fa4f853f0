package http3_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http3"
)

// readAll is a service that wants the whole body, and says how long it was.
func readAll(x *exchange.Exchange) {
	for x.Request.Body != nil {
		if _, err := x.Request.Body.Next(); err == io.EOF {
			break
		} else if err != nil {
			x.Answer(400, nil)
			return
		}
	}
	x.Answer(200, []byte("ok"))
}

func unchanged(*http3.Config) {}

// The error codes of RFC 9114, section 8.1, and RFC 9204, section 6.
const (
	none, streamCreation, closedCritical, unexpected, badFrame = 0x100, 0x103, 0x104, 0x105, 0x106
	excessive, badID, badSettings, noSettings                  = 0x107, 0x108, 0x109, 0x10a
	rejected, incomplete, message                              = 0x10b, 0x10d, 0x10e
	decompression, encoderStream, decoderStream                = 0x200, 0x201, 0x202
)

// What a client must not do on a stream, and what ends by it: the stream, by a
// reset, or the connection.
func TestMalformedRequests(t *testing.T) {
	for name, c := range map[string]struct {
		send string
		want uint64
		conn bool
	}{
		"a request":                          {get(), 0, false},
		"a body":                             {post("content-length", "3") + frame(0, "abc"), 0, false},
		"a body in parts":                    {post("content-length", "3") + frame(0, "ab") + frame(0, "c"), 0, false},
		"a body of unknown length":           {post() + frame(0, "abc") + headers("x-sum", "1"), 0, false},
		"unknown frames":                     {frame(0x21, "grease") + get() + frame(0x40, ""), 0, false},
		"no method":                          {headers(":scheme", "https", ":authority", "a", ":path", "/"), message, false},
		"no scheme":                          {headers(":method", "GET", ":authority", "a", ":path", "/"), message, false},
		"no path":                            {headers(":method", "GET", ":scheme", "https", ":authority", "a"), message, false},
		"an empty path":                      {headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", ""), message, false},
		"a method twice":                     {get(":method", "GET"), message, false},
		"an unknown pseudo-field":            {headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/", ":protocol", "x"), message, false},
		"a response's pseudo-field":          {headers(":status", "200"), message, false},
		"a pseudo-field behind others":       {headers(":method", "GET", ":scheme", "https", "x", "y", ":path", "/", ":authority", "a"), message, false},
		"upper case":                         {get("X-Upper", "a"), message, false},
		"a field without a name":             {get("", "a"), message, false},
		"a line break in a value":            {get("x", "a\r\nb: c"), message, false},
		"a zero in a value":                  {get("x", "a\x00"), message, false},
		"a blank before a value":             {get("x", " a"), message, false},
		"connection":                         {get("connection", "close"), message, false},
		"transfer-encoding":                  {post("transfer-encoding", "chunked"), message, false},
		"upgrade":                            {get("upgrade", "x"), message, false},
		"te of more than trailers":           {get("te", "gzip"), message, false},
		"te of trailers":                     {get("te", "trailers"), 0, false},
		"two hosts":                          {get("host", "b.example"), message, false},
		"host alone":                         {headers(":method", "GET", ":scheme", "https", ":path", "/", "host", "a"), 0, false},
		"a length that is none":              {post("content-length", "+3") + frame(0, "abc"), message, false},
		"two lengths":                        {post("content-length", "3", "content-length", "3") + frame(0, "abc"), message, false},
		"more than its length":               {post("content-length", "2") + frame(0, "abc"), message, false},
		"less than its length":               {post("content-length", "4") + frame(0, "abc"), message, false},
		"a length and no body":               {post("content-length", "4"), message, false},
		"trailers with a pseudo-field":       {post() + frame(0, "a") + headers(":path", "/"), message, false},
		"trailers in upper case":             {post() + frame(0, "a") + headers("X", "/"), message, false},
		"nothing":                            {"", incomplete, false},
		"only unknown frames":                {frame(0x21, ""), incomplete, false},
		"DATA first":                         {frame(0, "abc"), unexpected, true},
		"SETTINGS":                           {frame(4, ""), unexpected, true},
		"GOAWAY":                             {get() + frame(7, "\x00"), unexpected, true},
		"PUSH_PROMISE":                       {get() + frame(5, "\x00"), unexpected, true},
		"a frame of HTTP/2":                  {frame(6, "\x00"), unexpected, true},
		"DATA behind trailers":               {post() + headers("x", "y") + frame(0, "a"), unexpected, true},
		"trailers twice":                     {post() + headers("x", "y") + headers("x", "y"), unexpected, true},
		"half a frame":                       {get()[:10], badFrame, true},
		"half a frame's length":              {"\x01\x40", badFrame, true},
		"half a body":                        {post() + "\x00\x05abc", badFrame, true},
		"a section of nothing":               {frame(1, ""), decompression, true},
		"a section that uses the table":      {frame(1, "\x02\x00\x80"), decompression, true},
		"a field of the table":               {frame(1, "\x00\x00\x80"), decompression, true},
		"a name of the table":                {frame(1, "\x00\x00\x40\x01a"), decompression, true},
		"a field that the table has not got": {frame(1, "\x00\x00\xff\x24"), decompression, true},
		"half a field":                       {frame(1, "\x00\x00\x23ab"), decompression, true},
		"a bad Huffman code":                 {frame(1, "\x00\x00\x51\x81\x00"), decompression, true},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := c, start(t, unchanged, readAll)
			client := s.dial()
			got := client.errorOf(client.send(c.send, true))
			if got != c.want {
				t.Errorf("got %#x, want %#x", got, c.want)
			}
			if c.conn {
				if got := client.closedWith(); got != c.want {
					t.Errorf("the connection ended with %#x", got)
				}
			} else if got := client.errorOf(client.send(get(), true)); got != 0 {
				t.Errorf("the next request of the connection got %#x", got)
			}
		})
	}
}

// What a client must not do beside its requests ends the connection.
func TestMalformedConnections(t *testing.T) {
	type list []string
	const control = "\x00\x04\x00"
	for name, c := range map[string]struct {
		open list
		want uint64 // 0: it goes on
	}{
		"settings":                     {list{"\x00" + frame(4, "\x01\x00\x06\x40\x64\x07\x00\x21\x05")}, 0},
		"streams of QPACK":             {list{control, "\x02\x20", "\x03\x45\x7f\x80\x01"}, 0},
		"an unknown stream":            {list{control, "\x21abc"}, 0},
		"unknown frames":               {list{control + frame(0x21, "x") + frame(0xf0700, "\x00u=1")}, 0},
		"GOAWAY":                       {list{control + frame(7, "\x08") + frame(7, "\x04")}, 0},
		"MAX_PUSH_ID":                  {list{control + frame(0xd, "\x04") + frame(0xd, "\x08")}, 0},
		"no settings":                  {list{"\x00" + frame(7, "\x00")}, noSettings},
		"settings twice":               {list{control + frame(4, "")}, unexpected},
		"a setting twice":              {list{"\x00" + frame(4, "\x06\x00\x06\x00")}, badSettings},
		"a setting of HTTP/2":          {list{"\x00" + frame(4, "\x03\x01")}, badSettings},
		"datagrams, perhaps":           {list{"\x00" + frame(4, "\x33\x02")}, badSettings},
		"half a setting":               {list{"\x00" + frame(4, "\x06")}, badFrame},
		"too many settings":            {list{"\x00" + frame(4, manySettings(65))}, excessive},
		"DATA":                         {list{control + frame(0, "abc")}, unexpected},
		"HEADERS":                      {list{control + get()}, unexpected},
		"a frame of HTTP/2":            {list{control + frame(8, "\x00")}, unexpected},
		"a large frame":                {list{control + frame(7, strings.Repeat("\x00", 5000))}, excessive},
		"GOAWAY of a wrong length":     {list{control + frame(7, "\x08\x08")}, badFrame},
		"GOAWAY that takes back":       {list{control + frame(7, "\x04") + frame(7, "\x08")}, badID},
		"MAX_PUSH_ID that takes back":  {list{control + frame(0xd, "\x04") + frame(0xd, "\x03")}, badID},
		"CANCEL_PUSH":                  {list{control + frame(3, "\x00")}, badID},
		"two control streams":          {list{control, control}, streamCreation},
		"two streams of the encoder":   {list{control, "\x02", "\x02"}, streamCreation},
		"a push":                       {list{control, "\x01\x00"}, streamCreation},
		"a table":                      {list{control, "\x02\x3f\x81\x01"}, encoderStream},
		"an entry of the table":        {list{control, "\x02\x40\x00"}, encoderStream},
		"acknowledgement of a section": {list{control, "\x03\x84"}, decoderStream},
		"acknowledgement of an entry":  {list{control, "\x03\x01"}, decoderStream},
		"many unknown streams":         {append(list{control}, manyTimes("\x21", 5000)...), excessive}, // however slowly they come
		"many unknown frames":          {list{control + strings.Repeat(frame(0x21, ""), 1100)}, excessive},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, unchanged, readAll)
			client := s.dial(true)
			for _, open := range c.open {
				if q, err := client.OpenUniStreamSync(client.Context()); err == nil {
					_, _ = q.Write([]byte(open)) // it may be refused already
				}
			}
			if c.want == 0 {
				if got := client.errorOf(client.send(get(), true)); got != 0 {
					t.Errorf("a request got %#x", got)
				}
			} else if got := client.closedWith(); got != c.want {
				t.Errorf("got %#x, want %#x", got, c.want)
			}
		})
	}
}

func manySettings(n int) (s string) {
	for i := range n {
		s += string([]byte{0x40 + byte((i+100)>>8), byte(i + 100), 0})
	}
	return s
}

func manyTimes(s string, n int) (list []string) {
	for range n {
		list = append(list, s)
	}
	return list
}

// The streams that carry a connection must stay.
func TestClosedCriticalStreams(t *testing.T) {
	for name, kind := range map[string]string{"control": "\x00\x04\x00", "encoder": "\x02", "decoder": "\x03"} {
		t.Run(name, func(t *testing.T) {
			client := start(t, unchanged, readAll).dial(true)
			client.uni(kind).Close()
			if got := client.closedWith(); got != closedCritical {
				t.Errorf("got %#x", got)
			}
		})
	}
}

// What is well-formed and refused has an answer.
func TestRefusedRequests(t *testing.T) {
	for name, c := range map[string]struct{ send, want string }{
		"CONNECT":                     {headers(":method", "CONNECT", ":authority", "a:443"), "501"},
		"no host":                     {headers(":method", "GET", ":scheme", "https", ":path", "/"), "400"},
		"a large head":                {get("x", strings.Repeat("a", 64<<10)), "431"},
		"a head that grows":           {get("x", strings.Repeat("a", 30<<10), "y", strings.Repeat("b", 30<<10), "z", strings.Repeat("c", 5<<10)), "431"},
		"many fields":                 {get(manyTimes("x", 260)...), "431"},
		"a long path":                 {headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"+strings.Repeat("a", 17<<10)), "414"},
		"another expectation":         {post("expect", "the unexpected"), "417"},
		"a path without slash":        {headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "x"), "400"},
		"a large head that is served": {get("x", strings.Repeat("a", 40<<10)), "200"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, unchanged, readAll)
			client := s.dial()
			if got := client.status(client.send(c.send, true)); got != c.want {
				t.Errorf("got %q, want %s", got, c.want)
			}
		})
	}
}

// status reads an answer's :status, which is in the static table or a literal
// behind its name.
func (c *client) status(q *quic.Stream) string {
	c.t.Helper()
	_ = q.SetReadDeadline(time.Now().Add(2 * time.Minute))
	b, err := io.ReadAll(q)
	if err != nil {
		c.t.Fatal(err)
	}
	fields := decodeAnswer(c.t, b)
	return fields[":status"]
}

// A client that is slow with its head is told so, and one that gives up is not
// waited for.
func TestSlowHead(t *testing.T) {
	s := start(t, func(c *http3.Config) { c.Head = 50 * time.Millisecond }, readAll)
	client := s.dial()
	for _, begin := range []string{"\x01", get()[:20], get()} { // the last one does not end
		if got := client.status(client.send(begin, false)); got != "408" {
			t.Errorf("%q: got %q", begin, got)
		}
	}
}

// A body that does not come is not waited for, either.
func TestStalledBody(t *testing.T) {
	s := start(t, func(c *http3.Config) { c.Stall = 50 * time.Millisecond }, readAll)
	client := s.dial()
	if got := client.status(client.send(post("content-length", "10")+frame(0, "abc"), false)); got != "400" {
		t.Errorf("got %q", got)
	}
}

// A client that does not read is given up.
func TestStalledReader(t *testing.T) {
	s := start(t, func(c *http3.Config) { c.Stall = 50 * time.Millisecond }, func(x *exchange.Exchange) {
		x.Answer(200, nil)
		x.Response.Body = endless{}
	})
	client := s.dial()
	client.send(get(), true)
	eventually(t, func() bool { return s.failed.Load() == 1 })
}

type endless struct{}

var block = make([]byte, 64<<10)

func (endless) Next() ([]byte, error) { return block, nil }
func (endless) Length() int64         { return -1 }

func eventually(t testing.TB, so func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not become so")
		}
	}
}

// Whoever waits for a client that has left is told.
func TestClientLeaves(t *testing.T) {
	for name, leave := range map[string]func(*client, *quic.Stream){
		"the stream":     func(_ *client, q *quic.Stream) { q.CancelRead(0x10c) },
		"the connection": func(c *client, _ *quic.Stream) { c.CloseWithError(0x100, "") },
	} {
		t.Run(name, func(t *testing.T) {
			begun, started := make(chan struct{}), make(chan struct{})
			var s *server
			s = start(t, unchanged, func(x *exchange.Exchange) {
				close(begun)
				<-started
				<-s.cut
				x.Answer(200, nil)
			})
			close(started)
			client := s.dial()
			q := client.send(get(), true)
			<-begun
			leave(client, q)
			eventually(t, func() bool { return s.finished.Load() == 1 })
		})
	}
}

// A client that resets what it asks for has no more at once than one that waits,
// and not for long.
func TestRapidReset(t *testing.T) {
	s := start(t, unchanged, func(x *exchange.Exchange) { x.Answer(200, nil) })
	client := s.dial()
	for client.Context().Err() == nil {
		q, err := client.OpenStreamSync(client.Context())
		if err != nil {
			break
		}
		_, _ = q.Write([]byte(get()))
		q.CancelRead(0x10c)
		q.CancelWrite(0x10c)
	}
	if got := client.closedWith(); got != excessive {
		t.Errorf("got %#x", got)
	}
}

// A drained connection answers what it was asked, refuses what comes later, and
// ends.
func TestDrain(t *testing.T) {
	begun, finish := make(chan struct{}, 1), make(chan struct{})
	s := start(t, unchanged, func(x *exchange.Exchange) {
		begun <- struct{}{}
		<-finish
		x.Answer(200, []byte("ok"))
	})
	client := s.dial()
	under := client.send(get(), true)
	<-begun
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	conn.Drain()
	eventually(t, func() bool { // what comes before the second GOAWAY is served, too
		q := client.send(get(), false)
		q.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		_, err := q.Read(make([]byte, 1))
		var reset *quic.StreamError
		if errors.As(err, &reset) {
			return reset.ErrorCode == rejected
		}
		q.CancelRead(0x10c)
		q.CancelWrite(0x10c)
		return false
	})
	close(finish)
	go func() {
		for range begun { // of those that were served
		}
	}()
	if got := client.status(under); got != "200" {
		t.Errorf("got %q", got)
	}
	if got := client.closedWith(); got != none {
		t.Errorf("it ended with %#x", got)
	}
	close(begun)
}

// A connection that nobody uses is closed.
func TestIdle(t *testing.T) {
	s := start(t, func(c *http3.Config) { c.Idle = 50 * time.Millisecond }, readAll)
	client := s.dial()
	if got := client.errorOf(client.send(get(), true)); got != 0 && got != none {
		t.Errorf("got %#x", got)
	}
	if got := client.closedWith(); got != none {
		t.Errorf("it ended with %#x", got)
	}
}

// A panic ends its stream alone.
func TestPanic(t *testing.T) {
	s := start(t, unchanged, func(x *exchange.Exchange) {
		if string(x.Request.Path) == "/" && x.Request.Fields.Has("x-panic") {
			panic("this is a test")
		}
		x.Answer(200, nil)
	})
	client := s.dial()
	if got := client.errorOf(client.send(get("x-panic", "now"), true)); got != 0x102 {
		t.Errorf("got %#x", got)
	}
	if got := client.status(client.send(get(), true)); got != "200" {
		t.Errorf("the next one got %q", got)
	}
}
