package proxy_test

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// agree is a service that agrees to WebSocket as it should, and then says back
// what it hears, to the end.
func agree(t testing.TB) string {
	return scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		if r.Method != "GET" || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-WebSocket-Version") != "13" {
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Protocol: chat\r\n"+
			"Sec-WebSocket-Accept: %s\r\n\r\nwelcome ", base64.StdEncoding.EncodeToString(sum[:]))
		io.Copy(c, in)
		io.WriteString(c, " bye")
	})
}

// framed is a client that speaks HTTP/2 frame by frame, on stream 1.
type framed struct {
	t *testing.T
	net.Conn
	*xhttp2.Framer
	settings map[xhttp2.SettingID]uint32
	heard    bytes.Buffer
	head     map[string]string
	ended    bool
	reset    string
}

func dialFramed(t *testing.T, e *edge) *framed {
	t.Helper()
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, xhttp2.ClientPreface)
	f := &framed{t: t, Conn: c, Framer: xhttp2.NewFramer(c, c), settings: map[xhttp2.SettingID]uint32{}}
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.must(f.WriteSettings())
	f.until(func() bool { return len(f.settings) > 0 })
	return f
}

func (f *framed) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *framed) ask(end bool, fields ...string) {
	f.t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		f.must(encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	f.must(f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end}))
}

// until reads frames until something is so.
func (f *framed) until(so func() bool) {
	f.t.Helper()
	for !so() {
		frame, err := f.ReadFrame()
		f.must(err)
		switch frame := frame.(type) {
		case *xhttp2.SettingsFrame:
			if !frame.IsAck() {
				f.must(frame.ForeachSetting(func(s xhttp2.Setting) error { f.settings[s.ID] = s.Val; return nil }))
				f.must(f.WriteSettingsAck())
			}
		case *xhttp2.MetaHeadersFrame:
			f.head = map[string]string{}
			for _, field := range frame.Fields {
				f.head[field.Name] = field.Value
			}
			f.ended = frame.StreamEnded()
		case *xhttp2.DataFrame:
			f.heard.Write(frame.Data())
			f.ended = frame.StreamEnded()
			if n := uint32(len(frame.Data())); n > 0 {
				f.must(f.WriteWindowUpdate(0, n))
				f.must(f.WriteWindowUpdate(1, n))
			}
		case *xhttp2.RSTStreamFrame:
			f.reset = frame.ErrCode.String()
		}
	}
}

var extended = []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "shop.example", ":path", "/chat",
	"sec-websocket-version", "13", "sec-websocket-protocol", "chat"}

// A client that speaks WebSocket by HTTP/2 (RFC 8441) reaches a service that
// speaks it by HTTP/1.1.
func TestWebSocketByHTTP2(t *testing.T) {
	e := startEdge(t, service("s", agree(t)), route("r", "/", "s"))
	f := dialFramed(t, e)
	if f.settings[xhttp2.SettingEnableConnectProtocol] != 1 {
		t.Fatal("it is not offered")
	}
	f.ask(false, extended...)
	f.until(func() bool { return f.head != nil })
	if f.head[":status"] != "200" || f.head["sec-websocket-protocol"] != "chat" || f.head["sec-websocket-accept"] != "" || f.head["upgrade"] != "" {
		t.Fatalf("answered %v", f.head)
	}
	f.must(f.WriteData(1, false, []byte("hello")))
	f.until(func() bool { return f.heard.String() == "welcome hello" })
	large := strings.Repeat("0123456789", 10_000)
	for part := range len(large) / 10_000 {
		f.must(f.WriteData(1, false, []byte(large[part*10_000:(part+1)*10_000])))
	}
	f.until(func() bool { return f.heard.Len() == len("welcome hello")+len(large) })
	f.must(f.WriteData(1, true, nil))
	f.until(func() bool { return f.ended })
	if !strings.HasSuffix(f.heard.String(), large+" bye") {
		t.Errorf("heard %d bytes, at the end %q", f.heard.Len(), f.heard.String()[f.heard.Len()-8:])
	}
}

func TestWebSocketByHTTP2IsRefused(t *testing.T) {
	without := func(name string) (fields []string) {
		for i := 0; i < len(extended); i += 2 {
			if extended[i] != name {
				fields = append(fields, extended[i:i+2]...)
			}
		}
		return fields
	}
	with := func(name, value string) []string {
		fields := append([]string(nil), extended...)
		for i := 0; i < len(fields); i += 2 {
			if fields[i] == name {
				fields[i+1] = value
			}
		}
		return fields
	}
	plain := upstreamServer(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "no conversation") })
	liar := scripted(t, func(c *net.TCPConn, _ *bufio.Reader, _ *http.Request) {
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: guess\r\n\r\n")
	})
	for name, c := range map[string]struct {
		service       string
		fields        []string
		status, reset string
	}{
		"another protocol":               {agree(t), with(":protocol", "connect-udp"), "501", ""},
		"a protocol for a GET":           {agree(t), with(":method", "GET"), "", "PROTOCOL_ERROR"},
		"no path":                        {agree(t), without(":path"), "", "PROTOCOL_ERROR"},
		"a length":                       {agree(t), append(append([]string(nil), extended...), "content-length", "5"), "", "PROTOCOL_ERROR"},
		"a service that answers as ever": {plain, extended, "502", ""},
		"a service that has not heard":   {liar, extended, "502", ""},
		"a service that refuses":         {agree(t), with("sec-websocket-version", "8"), "400", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := dialFramed(t, startEdge(t, service("s", c.service), route("r", "/", "s")))
			f.ask(false, c.fields...)
			f.until(func() bool { return f.head != nil || f.reset != "" })
			if f.head[":status"] != c.status || c.reset != "" && f.reset != c.reset {
				t.Errorf("answered %v, reset %q", f.head, f.reset)
			}
		})
	}
}

// What a client says and hears ends with it.
func TestWebSocketByHTTP2IsLeft(t *testing.T) {
	left := make(chan struct{})
	addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:]))
		io.Copy(io.Discard, in)
		close(left)
	})
	f := dialFramed(t, startEdge(t, service("s", addr), route("r", "/", "s")))
	f.ask(false, extended...)
	f.until(func() bool { return f.head != nil })
	f.must(f.WriteRSTStream(1, xhttp2.ErrCodeCancel))
	select {
	case <-left:
	case <-time.After(2 * time.Minute):
		t.Error("the service is not told")
	}
}
