package http2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http2"
	"github.com/weirmesh/weir/proxy/upstream"
)

// origin is a service that does as its script says, frame by frame.
type origin struct {
	*xhttp2.Framer
	t    *testing.T
	conn net.Conn
	hpk  *hpack.Encoder
	buf  bytes.Buffer
}

// originOf starts a service whose connections run the script, each told its
// number; settings are what it begins with.
func originOf(t *testing.T, settings []xhttp2.Setting, script func(o *origin, number int)) *upstream.Pool {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				o := &origin{Framer: xhttp2.NewFramer(c, c), t: t, conn: c}
				o.AllowIllegalWrites = true
				o.hpk = hpack.NewEncoder(&o.buf)
				preface := make([]byte, len(xhttp2.ClientPreface))
				if _, err := io.ReadFull(c, preface); err != nil || string(preface) != xhttp2.ClientPreface {
					t.Errorf("preface: %q, %v", preface, err)
					return
				}
				o.WriteSettings(settings...)
				script(o, n)
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	r := upstream.NewRegistry(map[upstream.Protocol]upstream.Dial{upstream.HTTP2: http2.Dial})
	p := r.Acquire(upstream.Key{Address: l.Addr().String(), Protocol: upstream.HTTP2})
	t.Cleanup(func() { r.Release(p); r.Close() })
	return p
}

// await reads frames until one of that type comes. Settings are acknowledged.
func (o *origin) await(kind xhttp2.FrameType) xhttp2.Frame {
	for {
		f, err := o.ReadFrame()
		if err != nil {
			return nil
		}
		if s, ok := f.(*xhttp2.SettingsFrame); ok && !s.IsAck() {
			o.WriteSettingsAck()
		}
		if f.Header().Type == kind {
			return f
		}
	}
}

// asked waits for a request and returns its stream.
func (o *origin) asked() uint32 {
	if f := o.await(xhttp2.FrameHeaders); f != nil {
		return f.Header().StreamID
	}
	return 0
}

// head encodes fields, given in pairs.
func (o *origin) head(pairs ...string) []byte {
	o.buf.Reset()
	for i := 0; i < len(pairs); i += 2 {
		o.hpk.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return bytes.Clone(o.buf.Bytes())
}

func (o *origin) answer(stream uint32, last bool, pairs ...string) {
	o.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: stream, BlockFragment: o.head(pairs...), EndHeaders: true, EndStream: last})
}

// wait keeps the connection until its client closes it.
func (o *origin) wait() { io.Copy(io.Discard, o.conn) }

var unhurried = upstream.Options{Stall: 2 * time.Minute}

// request is one as a codec would have read it.
func asking(method string, body exchange.Body) *exchange.Exchange {
	x := &exchange.Exchange{Start: time.Now(), Protocol: exchange.HTTP2}
	x.Request.Method, x.Request.Scheme = []byte(method), []byte("http")
	x.Request.Authority, x.Request.Path, x.Request.Body = []byte("shop.example"), []byte("/"), body
	return x
}

// outcomeOf asks once and describes what came of it.
func outcomeOf(p *upstream.Pool, x *exchange.Exchange, opts upstream.Options) string {
	var s upstream.Stream
	opts.Now = time.Now()
	err := s.Open(context.Background(), p, x, opts)
	if err != nil {
		return describeError(err)
	}
	defer s.Close(x)
	text := fmt.Sprint(x.Response.Status)
	if x.Response.Body == nil {
		return text
	}
	for before := " "; ; before = "" {
		chunk, err := x.Response.Body.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return text + ", then " + err.Error()
		}
		text += before + string(chunk)
	}
	for i := range x.Response.Trailers.Len() {
		f := x.Response.Trailers.At(i)
		text += fmt.Sprintf(" %s: %s", f.Name, f.Value)
	}
	return text
}

func describeError(err error) string {
	var e *upstream.Error
	if !errors.As(err, &e) {
		return "no upstream.Error: " + err.Error()
	}
	var words []string
	for word, so := range map[string]bool{"sent": e.Sent, "refused": e.Refused, "timeout": e.Timeout, "client": e.Client, "stale": e.Stale} {
		if so {
			words = append(words, word)
		}
	}
	slices.Sort(words)
	return fmt.Sprintf("%v %v", words, e.Err)
}

// What a service may answer, and what is made of it.
func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		script func(o *origin, id uint32)
		want   string
	}{
		"a head alone": {"GET", func(o *origin, id uint32) { o.answer(id, true, ":status", "200") }, "200"},
		"a body": {"GET", func(o *origin, id uint32) {
			o.answer(id, false, ":status", "200", "content-length", "5")
			o.WriteData(id, true, []byte("hello"))
		}, "200 hello"},
		"a body in padded frames": {"GET", func(o *origin, id uint32) {
			o.answer(id, false, ":status", "200")
			o.WriteDataPadded(id, false, []byte("a"), make([]byte, 200))
			o.WriteDataPadded(id, true, []byte("b"), make([]byte, 200))
		}, "200 ab"},
		"trailers": {"GET", func(o *origin, id uint32) {
			o.answer(id, false, ":status", "200")
			o.WriteData(id, false, []byte("hello"))
			o.answer(id, true, "grpc-status", "0")
		}, "200 hello grpc-status: 0"},
		"trailers without a body": {"GET", func(o *origin, id uint32) {
			o.answer(id, false, ":status", "200")
			o.answer(id, true, "grpc-status", "5")
		}, "200 grpc-status: 5"},
		"a length for HEAD": {"HEAD", func(o *origin, id uint32) { o.answer(id, true, ":status", "200", "content-length", "5") }, "200"},
		"interim answers": {"GET", func(o *origin, id uint32) {
			o.answer(id, false, ":status", "103", "link", "x")
			o.answer(id, true, ":status", "204")
		}, "204"},
		"a head in many parts": {"GET", func(o *origin, id uint32) {
			head := o.head(":status", "200", "x", strings.Repeat("v", 20_000))
			o.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: head[:10], EndStream: true})
			o.WriteContinuation(id, false, head[10:8000])
			o.WriteContinuation(id, true, head[8000:])
		}, "200"},
		"frames of no known type": {"GET", func(o *origin, id uint32) {
			o.WriteRawFrame(0xfa, 0, id, []byte("?"))
			o.WriteRawFrame(0xfa, 0, 0, nil)
			o.answer(id, true, ":status", "200")
		}, "200"},
		"an end of the rest of the request": {"GET", func(o *origin, id uint32) {
			o.answer(id, true, ":status", "200")
			o.WriteRSTStream(id, xhttp2.ErrCodeNo)
		}, "200"},

		"no status":                {"GET", func(o *origin, id uint32) { o.answer(id, true, "x", "y") }, "it has no status"},
		"two statuses":             {"GET", func(o *origin, id uint32) { o.answer(id, true, ":status", "200", ":status", "200") }, "a pseudo-field is repeated"},
		"a status of two digits":   {"GET", func(o *origin, id uint32) { o.answer(id, true, ":status", "20") }, "its status is no number of three digits"},
		"a status of letters":      {"GET", func(o *origin, id uint32) { o.answer(id, true, ":status", "abc") }, "its status is no number of three digits"},
		"a switch of protocols":    {"GET", func(o *origin, id uint32) { o.answer(id, true, ":status", "101") }, "its status is one of HTTP/1.1 alone"},
		"a pseudo-field of asking": {"GET", func(o *origin, id uint32) { o.answer(id, true, ":status", "200", ":path", "/") }, "a pseudo-field is unknown"},
		"a pseudo-field behind":    {"GET", func(o *origin, id uint32) { o.answer(id, true, "x", "y", ":status", "200") }, "a pseudo-field stands behind other fields"},
		"an upper-case name":       {"GET", func(o *origin, id uint32) { o.answer(id, true, ":status", "200", "X-Y", "z") }, "a field's name is invalid"},
		"a line break in a value":  {"GET", func(o *origin, id uint32) { o.answer(id, true, ":status", "200", "x", "y\r\nz: a") }, "a field's value holds a forbidden character"},
		"Connection":               {"GET", func(o *origin, id uint32) { o.answer(id, true, ":status", "200", "connection", "close") }, "a field belongs to HTTP/1.1 alone"},
		"Transfer-Encoding":        {"GET", func(o *origin, id uint32) { o.answer(id, true, ":status", "200", "transfer-encoding", "chunked") }, "a field belongs to HTTP/1.1 alone"},
		"two lengths": {"GET", func(o *origin, id uint32) {
			o.answer(id, true, ":status", "200", "content-length", "0", "content-length", "1")
		}, "the length of the body is given twice"},
		"a length and no body": {"GET", func(o *origin, id uint32) { o.answer(id, true, ":status", "200", "content-length", "5") }, "there is no body, where a length is announced"},
		"a head too large": {"GET", func(o *origin, id uint32) {
			pairs := []string{":status", "200"}
			for range 10 {
				pairs = append(pairs, "x", strings.Repeat("v", 8000))
			}
			head := o.head(pairs...)
			o.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: head[:1000], EndStream: true})
			for head = head[1000:]; len(head) > 16000; head = head[16000:] {
				o.WriteContinuation(id, false, head[:16000])
			}
			o.WriteContinuation(id, true, head)
		}, "its head is too large"},
		"a head that does not end": {"GET", func(o *origin, id uint32) {
			o.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: o.head(":status", "200")})
			for range 200 {
				o.WriteContinuation(id, false, nil)
			}
		}, "a head does not come to its end"},
		"a head interrupted": {"GET", func(o *origin, id uint32) {
			o.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: o.head(":status", "200")})
			o.WritePing(false, [8]byte{})
		}, "a head is interrupted"},
		"a head that cannot be read": {"GET", func(o *origin, id uint32) {
			o.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true})
		}, "COMPRESSION_ERROR"},
		"a body without a head":     {"GET", func(o *origin, id uint32) { o.WriteData(id, true, []byte("hello")) }, "a body without a head"},
		"a stream that is not open": {"GET", func(o *origin, id uint32) { o.answer(id+2, true, ":status", "200") }, "HEADERS for a stream that is not open"},
		"a push": {"GET", func(o *origin, id uint32) {
			o.WritePushPromise(xhttp2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: o.head(":method", "GET"), EndHeaders: true})
		}, "it pushes, which it may not"},
		"a frame too large":         {"GET", func(o *origin, id uint32) { o.WriteRawFrame(xhttp2.FrameData, 0, id, make([]byte, 20_000)) }, "a frame is too large"},
		"a window that overflows":   {"GET", func(o *origin, id uint32) { o.WriteWindowUpdate(0, 1<<31-1) }, "the window grows too large"},
		"a window of nothing":       {"GET", func(o *origin, id uint32) { o.WriteRawFrame(xhttp2.FrameWindowUpdate, 0, 0, make([]byte, 4)) }, "a window grows by nothing"},
		"settings of an odd length": {"GET", func(o *origin, id uint32) { o.WriteRawFrame(xhttp2.FrameSettings, 0, 0, make([]byte, 5)) }, "SETTINGS are of a wrong length"},
		"a ping of a wrong length":  {"GET", func(o *origin, id uint32) { o.WriteRawFrame(xhttp2.FramePing, 0, 0, make([]byte, 7)) }, "PING is of a wrong length"},
		"a reset":                   {"GET", func(o *origin, id uint32) { o.WriteRSTStream(id, xhttp2.ErrCodeInternal) }, "[sent] answer by HTTP/2: it has reset the stream (INTERNAL_ERROR)"},
		"a refusal":                 {"GET", func(o *origin, id uint32) { o.WriteRSTStream(id, xhttp2.ErrCodeRefusedStream) }, "[refused sent] answer by HTTP/2: it has reset the stream (REFUSED_STREAM)"},
		"a farewell that refuses":   {"GET", func(o *origin, id uint32) { o.WriteGoAway(id-1, xhttp2.ErrCodeNo, nil) }, "[refused sent] answer by HTTP/2: it takes no more requests on this connection (NO_ERROR)"},
		"a farewell that does not": {"GET", func(o *origin, id uint32) {
			o.WriteGoAway(id, xhttp2.ErrCodeNo, nil)
			o.answer(id, true, ":status", "200")
		}, "200"},
		"the end": {"GET", func(o *origin, id uint32) { o.conn.Close() }, "[sent] answer by HTTP/2: it closed the connection"},
		"the end in a body": {"GET", func(o *origin, id uint32) {
			o.answer(id, false, ":status", "200")
			o.WriteData(id, false, []byte("hel"))
			o.conn.Close()
		}, "200 hel, then answer by HTTP/2: it closed the connection"},
		"a reset in a body": {"GET", func(o *origin, id uint32) {
			o.answer(id, false, ":status", "200")
			o.WriteData(id, false, []byte("hel"))
			o.WritePing(false, [8]byte{1})
			o.await(xhttp2.FramePing)
			o.WriteRSTStream(id, xhttp2.ErrCodeCancel)
		}, "200 hel, then answer by HTTP/2: it has reset the stream (CANCEL)"},
		"a body too long": {"GET", func(o *origin, id uint32) {
			o.answer(id, false, ":status", "200", "content-length", "3")
			o.WriteData(id, true, []byte("hello"))
		}, "200, then answer by HTTP/2: PROTOCOL_ERROR: the body is longer than its Content-Length"},
		"a body too short": {"GET", func(o *origin, id uint32) {
			o.answer(id, false, ":status", "200", "content-length", "7")
			o.WriteData(id, true, []byte("hello"))
		}, "200, then answer by HTTP/2: PROTOCOL_ERROR: the body is shorter than its Content-Length"},
		"trailers that do not end": {"GET", func(o *origin, id uint32) {
			o.answer(id, false, ":status", "200")
			o.answer(id, false, "grpc-status", "0")
		}, "200, then answer by HTTP/2: PROTOCOL_ERROR: trailers do not end the answer"},
		"trailers with a status": {"GET", func(o *origin, id uint32) {
			o.answer(id, false, ":status", "200")
			o.answer(id, true, ":status", "200")
		}, "200, then answer by HTTP/2: PROTOCOL_ERROR: trailers hold a pseudo-field"},
	} {
		t.Run(name, func(t *testing.T) {
			p := originOf(t, nil, func(o *origin, _ int) {
				if id := o.asked(); id != 0 {
					c.script(o, id)
					o.wait()
				}
			})
			x := asking(c.method, nil)
			got := outcomeOf(p, x, unhurried)
			if strings.HasPrefix(c.want, "2") || strings.HasPrefix(c.want, "[") {
				if got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			} else if !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q in it", got, c.want)
			}
		})
	}
}

func TestAServiceKeepsToTheWindow(t *testing.T) {
	told := make(chan xhttp2.ErrCode, 1)
	p := originOf(t, nil, func(o *origin, _ int) {
		id := o.asked()
		o.answer(id, false, ":status", "200")
		for range 17 {
			o.WriteData(id, false, make([]byte, 16<<10))
		}
		if f, ok := o.await(xhttp2.FrameRSTStream).(*xhttp2.RSTStreamFrame); ok {
			told <- f.ErrCode
		}
		o.wait()
	})
	var s upstream.Stream
	x := asking("GET", nil)
	if err := s.Open(t.Context(), p, x, unhurried); err != nil {
		t.Fatal(err)
	}
	defer s.Close(x)
	if got := <-told; got != xhttp2.ErrCodeFlowControl { // nobody has read anything yet
		t.Errorf("got %v", got)
	}
}

// slowly is a body that comes when the test says so.
type slowly struct {
	chunks chan []byte
	gone   chan struct{}
	once   sync.Once
}

func newSlowly() *slowly { return &slowly{chunks: make(chan []byte), gone: make(chan struct{})} }

func (s *slowly) Next() ([]byte, error) {
	select {
	case chunk, ok := <-s.chunks:
		if !ok {
			return nil, io.EOF
		}
		return chunk, nil
	case <-s.gone:
		return nil, os.ErrDeadlineExceeded
	}
}
func (s *slowly) Length() int64 { return -1 }
func (s *slowly) Abort()        { s.once.Do(func() { close(s.gone) }) }

// A request's body goes out as the service lets it, and no further.
func TestRequestBodyKeepsToTheWindows(t *testing.T) {
	const size = 300_000
	p := originOf(t, []xhttp2.Setting{{ID: xhttp2.SettingInitialWindowSize, Val: 1000}}, func(o *origin, _ int) {
		id := o.asked()
		got, before, window, whole := 0, 0, 1000, 65535
		for {
			f, ok := o.await(xhttp2.FrameData).(*xhttp2.DataFrame)
			if !ok {
				return
			}
			got += len(f.Data())
			if window, whole = window-len(f.Data()), whole-len(f.Data()); window < 0 || whole < 0 {
				t.Errorf("it sends more than it may: %d, %d", window, whole)
			}
			if f.StreamEnded() {
				break
			}
			if window == 0 {
				o.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1000 + uint32(got)}) // moves what is open, too
				o.WriteWindowUpdate(id, 500)
				o.WriteWindowUpdate(0, uint32(got))
				window, whole, before = got-before+500, whole+got, got
			}
		}
		o.answer(id, false, ":status", "200")
		o.WriteData(id, true, fmt.Append(nil, got))
		o.wait()
	})
	if got := outcomeOf(p, asking("POST", exchange.Bytes(make([]byte, size))), unhurried); got != fmt.Sprintf("200 %d", size) {
		t.Errorf("got %q", got)
	}
}

// A length that was announced does not change with what has arrived: a head that was
// made by it is sent already.
func TestLengthsStay(t *testing.T) {
	end := make(chan struct{})
	p := originOf(t, nil, func(o *origin, _ int) {
		id := o.asked()
		o.answer(id, false, ":status", "200", "content-length", "4")
		o.WriteData(id, false, []byte("body"))
		<-end
		o.answer(id, true, "x-sum", "4")
		o.wait()
	})
	var s upstream.Stream
	x := asking("GET", nil)
	if err := s.Open(t.Context(), p, x, unhurried); err != nil {
		t.Fatal(err)
	}
	defer s.Close(x)
	body := x.Response.Body
	for deadline := time.Now().Add(2 * time.Minute); body.Length() == 4 && !body.(interface{ Ready() bool }).Ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing arrives")
		}
	}
	if n := body.Length(); n != 4 {
		t.Errorf("it is %d once all has arrived", n)
	}
	close(end)
	if chunk, err := body.Next(); string(chunk) != "body" || err != nil {
		t.Errorf("got %q, %v", chunk, err)
	}
	if n := body.Length(); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// Where one connection has no room there are more, as many as may be.
func TestRoomAndConnections(t *testing.T) {
	const requests = 6
	release := make(chan struct{})
	var connections atomic.Int64
	p := originOf(t, []xhttp2.Setting{{ID: xhttp2.SettingMaxConcurrentStreams, Val: 2}}, func(o *origin, _ int) {
		connections.Add(1)
		for id := o.asked(); id != 0; id = o.asked() {
			<-release
			o.answer(id, true, ":status", "200")
		}
	})
	results := make(chan string, requests)
	for range requests {
		go func() { results <- outcomeOf(p, asking("GET", nil), unhurried) }()
	}
	for deadline := time.Now().Add(2 * time.Minute); p.InFlight() < requests || connections.Load() < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d in flight on %d connections", p.InFlight(), connections.Load())
		}
	}
	close(release)
	for range requests {
		if got := <-results; got != "200" {
			t.Errorf("got %q", got)
		}
	}
	if n := connections.Load(); n != 3 {
		t.Errorf("%d connections", n)
	}
}

// A request in the middle of whose body the service answers is answered; what is
// left of it is not sent.
func TestAnEarlyAnswer(t *testing.T) {
	for name, last := range map[string]func(o *origin, id uint32){
		"and a reset": func(o *origin, id uint32) { o.WriteRSTStream(id, xhttp2.ErrCodeNo) },
		"and no word": func(*origin, uint32) {},
	} {
		t.Run(name, func(t *testing.T) {
			p := originOf(t, nil, func(o *origin, _ int) {
				id := o.asked()
				o.answer(id, true, ":status", "413")
				last(o, id)
				o.wait()
			})
			body := newSlowly()
			x := asking("POST", body)
			if got := outcomeOf(p, x, unhurried); got != "413" {
				t.Errorf("got %q", got)
			}
			if x.Request.Shared {
				t.Error("the body is still read")
			}
		})
	}
}

// What takes too long, and what is given up, ends the stream and not the
// connection.
func TestWaitsEnd(t *testing.T) {
	resets := make(chan xhttp2.ErrCode, 4)
	p := originOf(t, nil, func(o *origin, _ int) {
		for {
			f := o.await(xhttp2.FrameRSTStream)
			if f == nil {
				return
			}
			resets <- f.(*xhttp2.RSTStreamFrame).ErrCode
		}
	})
	if got := outcomeOf(p, asking("GET", nil), upstream.Options{Stall: 20 * time.Millisecond}); !strings.HasPrefix(got, "[sent timeout]") {
		t.Errorf("a silent service: got %q", got)
	}
	if got := outcomeOf(p, asking("GET", nil), upstream.Options{Stall: time.Hour, Deadline: time.Now().Add(20 * time.Millisecond)}); !strings.HasPrefix(got, "[sent timeout]") {
		t.Errorf("a deadline: got %q", got)
	}
	var s upstream.Stream
	x := asking("GET", nil)
	go func() {
		for p.InFlight() == 0 {
			time.Sleep(time.Millisecond)
		}
		for range 1000 { // it may not have come to wait yet, but it will
			s.Abort()
			time.Sleep(time.Millisecond)
		}
	}()
	if err := s.Open(t.Context(), p, x, unhurried); err == nil {
		t.Error("it was aborted")
	}
	failed := newSlowly()
	failed.Abort()
	if got := outcomeOf(p, asking("POST", failed), unhurried); !strings.HasPrefix(got, "[client sent]") {
		t.Errorf("a body that fails: got %q", got)
	}
	for range 4 {
		if got := <-resets; got != xhttp2.ErrCodeCancel {
			t.Errorf("got %v", got)
		}
	}
	if st := p.Stats(); st.Dials != 1 {
		t.Errorf("%d connections", st.Dials)
	}
}

// What does not speak HTTP/2 is said not to, and nothing was sent to it.
func TestWhatIsNoHTTP2(t *testing.T) {
	for name, c := range map[string]struct{ says, want string }{
		"HTTP/1.1":         {"HTTP/1.1 400 Bad Request\r\n\r\n", "[] connect to HERE: begin HTTP/2: it does not speak HTTP/2, but HTTP/1.1"},
		"another":          {"220 mail.example ESMTP\r\n", "[] connect to HERE: begin HTTP/2: it does not speak HTTP/2"},
		"who says nothing": {"", "[] connect to HERE: begin HTTP/2: it closed the connection"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					c2, err := l.Accept()
					if err != nil {
						return
					}
					io.WriteString(c2, c.says)
					io.CopyN(io.Discard, c2, int64(len(xhttp2.ClientPreface)))
					c2.Close()
				}
			}()
			r := upstream.NewRegistry(map[upstream.Protocol]upstream.Dial{upstream.HTTP2: http2.Dial})
			defer r.Close()
			p := r.Acquire(upstream.Key{Address: l.Addr().String(), Protocol: upstream.HTTP2})
			defer r.Release(p)
			got := strings.ReplaceAll(outcomeOf(p, asking("GET", nil), unhurried), l.Addr().String(), "HERE")
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A connection on which nothing is heard when an answer is late is given up.
func TestASilentConnectionIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		_ = theirs
		c := http2.ClientOn(ours)
		go func() { // it takes everything and says nothing but its settings
			f := xhttp2.NewFramer(theirs, nil)
			f.WriteSettings()
			io.Copy(io.Discard, theirs)
		}()
		ended := make(chan struct{})
		go func() { c.Run(); close(ended) }()
		lane := c.Lane()
		x := asking("GET", nil)
		if err := lane.Open(t.Context(), x, &upstream.Options{Stall: time.Minute}); err == nil {
			t.Error("answered")
		}
		lane.Close(x)
		<-ended
		if c.Room() != 0 {
			t.Error("it is still used")
		}
		theirs.Close()
	})
}
