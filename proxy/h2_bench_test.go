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
