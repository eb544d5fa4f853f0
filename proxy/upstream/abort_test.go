package upstream_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/upstream"
)

// A connection on which Abort came too late to end anything is not kept: the next
// exchange would be ended by it, which may be another listener's.
func TestAnAbortedConnectionIsNotKept(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		c.Read(make([]byte, 1))
	}()
	r := upstream.NewRegistry(nil)
	defer r.Close()
	p := r.Acquire(upstream.Key{Address: l.Addr().String()})
	defer r.Release(p)
	x := &exchange.Exchange{Start: time.Now()}
	x.Request.Method, x.Request.Path, x.Request.Authority = []byte("GET"), []byte("/"), []byte("a")
	var s upstream.Stream
	if err := s.Open(t.Context(), p, x, upstream.Options{Now: x.Start, Stall: time.Minute}); err != nil {
		t.Fatal(err)
	}
	s.Abort()
	s.Close(x)
	if n := p.Stats().Idle; n != 0 {
		t.Error("it is kept")
	}
}
