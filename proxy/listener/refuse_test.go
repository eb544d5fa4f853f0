package listener_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/listener"
	"github.com/weirmesh/weir/proxy/wire"
)

// refusing looks at what it is given of a message that was no request, after
// others have had time to use memory that is free.
type refusing struct{ seen chan string }

func (r *refusing) NewSession() listener.Session          { return r }
func (*refusing) Serve(*exchange.Exchange)                {}
func (*refusing) Finish(*exchange.Exchange, int64, error) {}
func (*refusing) Begin()                                  {}
func (*refusing) Cut()                                    {}
func (r *refusing) Reject(x *exchange.Exchange, _ int, _ string) {
	var others []*wire.Conn
	for range 8 {
		near, _ := net.Pipe()
		other := wire.New(near)
		other.SetOut(append(other.Out(), bytes.Repeat([]byte("another's "), 400)...))
		others = append(others, other)
	}
	r.seen <- string(x.Request.Path) + string(x.Request.Authority) + string(x.Request.Fields.Get("user-agent"))
	for _, other := range others {
		other.Free()
		other.Close()
	}
}

// A head that grew while it was read was moved: what was parsed of it before must
// not be looked at, or the access log shows what others have sent.
func TestWhatWasParsedOfAHeadThatDoesNotEndIsForgotten(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &refusing{seen: make(chan string, 1)}
	l := listener.Serve(socket, listener.Config{Handler: h, Logger: slog.New(slog.DiscardHandler), Head: 100 * time.Millisecond})
	defer l.Close(t.Context())
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /mine HTTP/1.1\r\nHost: mine.example\r\nUser-Agent: mine\r\n")
	time.Sleep(20 * time.Millisecond) // so that it is parsed as far as it goes
	io.WriteString(c, "X-Long: "+strings.Repeat("x", 2*wire.SmallBuffer))
	if seen := <-h.seen; strings.Contains(seen, "another") {
		t.Errorf("it shows %q", seen)
	}
}
