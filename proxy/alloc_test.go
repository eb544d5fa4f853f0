package proxy_test

import (
	"bytes"
	"net"
	"testing"
)

// plainOrigin answers each request that comes in one packet, and allocates
// nothing for it.
func plainOrigin(t testing.TB) string {
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 500\r\n\r\n" + string(bytes.Repeat([]byte("x"), 500)))
	return mute(t, func(c net.Conn) {
		buf := make([]byte, 4<<10)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) || bytes.HasSuffix(buf[:n], []byte("hello")) {
				c.Write(answer)
			}
		}
	})
}

// roundTrip sends a request and reads an answer of 500 bytes, without
// allocating.
func roundTrip(t testing.TB, c net.Conn, request, buf []byte) {
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	got, head := 0, -1
	for head < 0 || got < head+4+500 {
		n, err := c.Read(buf[got:])
		if err != nil {
			t.Fatal(err)
		}
		got += n
		head = bytes.Index(buf[:got], []byte("\r\n\r\n"))
	}
	if !bytes.HasPrefix(buf[:got], []byte("HTTP/1.1 200 OK\r\n")) || got != head+4+500 {
		t.Fatalf("got %q", buf[:got])
	}
}

// The plain path costs no memory that the collector would have to find again.
// Client and service, which are measured with it, allocate nothing.
func TestAllocationsPerRequest(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector pools forget on purpose")
	}
	e := startEdge(t, service("s", plainOrigin(t)), route("r", "/", "s"))
	for name, request := range map[string]string{
		"GET":          "GET /books HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n",
		"POST":         "POST /books HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhello",
		"encoded path": "GET /bo%6Fks/../x HTTP/1.1\r\nHost: shop.example\r\n\r\n",
		"HTTP/1.0":     "GET /books HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, e.addr)
			raw, buf := []byte(request), make([]byte, 8<<10)
			if n := testing.AllocsPerRun(300, func() { roundTrip(t, c.TCPConn, raw, buf) }); n > 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// benchmarkRequest asks for the same thing by many connections.
func benchmarkRequest(b *testing.B, addr string, request []byte) {
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		buf := make([]byte, 8<<10)
		for pb.Next() {
			roundTrip(b, c, request, buf)
		}
	})
}

func BenchmarkProxy(b *testing.B) {
	e := startEdge(b, service("s", plainOrigin(b)), route("r", "/", "s"))
	request := []byte("GET /books HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n")
	benchmarkRequest(b, e.addr, request)
}
