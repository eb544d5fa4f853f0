package nodeport

import (
	"io"
	"net"
	"testing"
	"time"
)

// benchBoth runs a benchmark over QUIC and over TCP.
func benchBoth(b *testing.B, f func(b *testing.B, from, to *server)) {
	for name, blocked := range map[string]bool{"QUIC": false, "TCP": true} {
		b.Run(name, func(b *testing.B) {
			c := newCluster(b)
			from, to := c.serve("a"), c.serve("b")
			p := from.dialer.path(to.address)
			p.blocked, p.again = blocked, time.Now().Add(time.Hour)
			f(b, from, to)
		})
	}
}

func accept(b *testing.B, s *server) net.Conn {
	conn, _, err := s.members.Accept(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return conn
}

func BenchmarkOpenStream(b *testing.B) {
	benchBoth(b, func(b *testing.B, from, to *server) {
		for b.Loop() {
			conn, err := from.members.Dial(b.Context(), to.address, "b")
			if err != nil {
				b.Fatal(err)
			}
			accept(b, to).Close()
			conn.Close()
		}
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	benchBoth(b, func(b *testing.B, from, to *server) {
		near, far := pair(b, from, to, to.address)
		go io.Copy(far, far)
		buf := make([]byte, 512)
		for b.Loop() {
			if _, err := near.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(near, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkThroughput(b *testing.B) {
	benchBoth(b, func(b *testing.B, from, to *server) {
		near, far := pair(b, from, to, to.address)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(io.Discard, far)
		}()
		buf := make([]byte, 256<<10)
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			if _, err := near.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
		near.Close()
		<-done
	})
}
