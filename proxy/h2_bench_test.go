package proxy_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// h2Loop asks for one thing after the other on a connection of HTTP/2, without
// allocating.
type h2Loop struct {
	t       testing.TB
	conn    net.Conn
	request []byte // HEADERS of a stream whose number is to be filled in
	stream  uint32
	in      []byte
	held    int
}

func newH2Loop(t testing.TB, conn net.Conn) *h2Loop {
	var block, out bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encoder.SetMaxDynamicTableSize(0)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "shop.example"}, {":path", "/books"},
		{"user-agent", "test"}, {"accept", "*/*"}} {
		_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	_ = http2.NewFramer(&out, nil).WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
	l := &h2Loop{t: t, conn: conn, request: out.Bytes(), stream: 1, in: make([]byte, 64<<10)}
	greeting := http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x00\x04\x01\x00\x00\x00\x00" + "\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\x00\x00\x00"
	if _, err := io.WriteString(conn, greeting); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *h2Loop) ask() {
	binary.BigEndian.PutUint32(l.request[5:], l.stream)
	if _, err := l.conn.Write(l.request); err != nil {
		l.t.Fatal(err)
	}
	for {
		for l.held >= 9 {
			n := 9 + int(l.in[0])<<16 + int(l.in[1])<<8 + int(l.in[2])
			if l.held < n {
				break
			}
			ended := l.in[3] == 0 && l.in[4]&1 != 0 && binary.BigEndian.Uint32(l.in[5:]) == l.stream
			if ended && n != 9+500 || l.in[3] == 3 || l.in[3] == 7 {
				l.t.Fatalf("got the frame %q", l.in[:n])
			}
			l.held = copy(l.in, l.in[n:l.held])
			if ended {
				l.stream += 2
				return
			}
		}
		n, err := l.conn.Read(l.in[l.held:])
		if err != nil {
			l.t.Fatal(err)
		}
		l.held += n
	}
}

func benchmarkLoops(b *testing.B, e *edge, secure bool) {
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		var conn net.Conn
		var err error
		if secure {
			conn, err = tls.Dial("tcp", e.addr, &tls.Config{RootCAs: testAuthority().pool(), ServerName: "shop.example", NextProtos: []string{"h2"}})
		} else {
			conn, err = net.Dial("tcp", e.addr)
		}
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		l := newH2Loop(b, conn)
		for pb.Next() {
			l.ask()
		}
	})
}

func BenchmarkHTTP2(b *testing.B) {
	benchmarkLoops(b, startEdge(b, service("s", plainOrigin(b)), route("r", "/", "s")), false)
}

func BenchmarkHTTP2TLS(b *testing.B) {
	benchmarkLoops(b, startEdge(b, gateway(secureListener("https", "", nil, "shop")), certificate(b, "shop", "shop.example"),
		service("s", plainOrigin(b)), route("r", "/", "s")), true)
}

// plainH2Origin is a service of HTTP/2 that answers each request with 500 bytes,
// and allocates nothing for it.
func plainH2Origin(t testing.TB) *weirv1.Service {
	t.Helper()
	s := service("s", mute(t, answerH2))
	s.Spec.Protocol = weirv1.ServiceSpec_HTTP2
	return s
}

func answerH2(c net.Conn) {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	var block, answer bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encoder.SetMaxDynamicTableSize(0)
	for _, f := range [][2]string{{":status", "200"}, {"content-type", "text/plain"}, {"content-length", "500"}} {
		_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	framer := http2.NewFramer(&answer, nil)
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	at := answer.Len()
	_ = framer.WriteData(1, true, make([]byte, 500))
	if _, err := io.WriteString(c, "\x00\x00\x00\x04\x00\x00\x00\x00\x00"+"\x00\x00\x00\x04\x01\x00\x00\x00\x00"+"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\x00\x00\x00"); err != nil {
		return
	}
	in, held, raw, out := make([]byte, 64<<10), 0, answer.Bytes(), make([]byte, 0, 64<<10)
	for {
		n, err := c.Read(in[held:])
		if err != nil {
			return
		}
		held, out = held+n, out[:0]
		from := 0
		for held-from >= 9 {
			f := in[from:held]
			size := 9 + int(f[0])<<16 + int(f[1])<<8 + int(f[2])
			if len(f) < size {
				break
			}
			if f[3] == 1 { // HEADERS, which end it
				copy(raw[5:9], f[5:9])
				copy(raw[at+5:at+9], f[5:9])
				out = append(out, raw...)
			}
			from += size
		}
		held = copy(in, in[from:held])
		if len(out) > 0 {
			if _, err := c.Write(out); err != nil {
				return
			}
		}
	}
}

// What a request from HTTP/2 to HTTP/2 costs the collector: the stream of its
// client, the goroutine that serves it, and what the decoders read into strings.
func TestAllocationsFromHTTP2ToHTTP2(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector pools forget on purpose")
	}
	measure := func(s *weirv1.Service) float64 {
		e := startEdge(t, s, route("r", "/", "s"))
		conn, err := net.Dial("tcp", e.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		l := newH2Loop(t, conn)
		return testing.AllocsPerRun(500, l.ask)
	}
	to1, to2 := measure(service("s", plainOrigin(t))), measure(plainH2Origin(t))
	t.Logf("to HTTP/1.1: %v, to HTTP/2: %v", to1, to2)
	if to2 > to1+6 {
		t.Errorf("%v allocations, where HTTP/1.1 to the service makes them %v", to2, to1)
	}
}

func BenchmarkHTTP2ToHTTP2(b *testing.B) {
	benchmarkLoops(b, startEdge(b, plainH2Origin(b), route("r", "/", "s")), false)
}
