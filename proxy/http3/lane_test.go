package http3_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http3"
	"github.com/weirmesh/weir/proxy/upstream"
)

// service is a server of HTTP/3 with nothing but QUIC. It answers each stream by a
// function.
func service(t testing.TB, control string, answer func(c *quic.Conn, q *quic.Stream)) string {
	t.Helper()
	l, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{http3.Protocol}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := l.Accept(ctx)
			if err != nil {
				return
			}
			done.Go(func() {
				defer c.CloseWithError(0x100, "")
				if uni, err := c.OpenUniStream(); err == nil {
					_, _ = uni.Write([]byte(control))
				}
				for {
					q, err := c.AcceptStream(ctx)
					if err != nil {
						return
					}
					done.Go(func() { answer(c, q) })
				}
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		done.Wait()
	})
	return l.Addr().String()
}

// connect makes a connection as a pool does.
func connect(t testing.TB, address string) upstream.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := http3.Dial(ctx, upstream.Target{Address: address, Security: &tls.Config{InsecureSkipVerify: true}, Changed: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() { c.Run(); close(over) }()
	t.Cleanup(func() { c.Close(); <-over })
	return c
}

// request is an exchange that asks for /.
func request(body exchange.Body) *exchange.Exchange {
	x := &exchange.Exchange{}
	x.Request.Method, x.Request.Scheme, x.Request.Authority, x.Request.Path = []byte("POST"), []byte("http"), []byte("a"), []byte("/")
	x.Request.Body = body
	return x
}

// outcome is what becomes of an exchange: "200 body", or whose fault it is that it
// has no answer, or that the answer broke off.
func outcome(t testing.TB, c upstream.Conn, x *exchange.Exchange) (said string) {
	t.Helper()
	l := c.Lane()
	defer l.Close(x)
	err := l.Open(t.Context(), x, &upstream.Options{Stall: time.Minute})
	var failed *upstream.Error
	switch {
	case errors.As(err, &failed) && failed.Refused:
		return "refused"
	case errors.As(err, &failed) && failed.Stale:
		return "stale"
	case errors.As(err, &failed) && !failed.Sent:
		return "not sent"
	case errors.As(err, &failed) && failed.Client:
		return "client's fault"
	case errors.As(err, &failed):
		return "service's fault"
	case err != nil:
		t.Fatalf("an error of another kind: %v", err)
	}
	said = string('0'+rune(x.Response.Status/100)) + "xx "
	for x.Response.Body != nil {
		chunk, err := x.Response.Body.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return said + "broken off"
		}
		said += string(chunk)
	}
	if sum := x.Response.Trailers.Get("x-sum"); sum != nil {
		said += " " + string(sum)
	}
	return said
}

func answerOf(fields ...string) string {
	return headers(append([]string{":status", "200"}, fields...)...)
}

// What a service answers, as it should and as it must not, and whose fault that is.
func TestAnswers(t *testing.T) {
	const settings = "\x00\x04\x00"
	for name, c := range map[string]struct{ control, send, want string }{
		"an answer":                    {settings, answerOf("content-length", "2") + frame(0, "ok"), "2xx ok"},
		"of unknown length":            {settings, answerOf() + frame(0, "o") + frame(0, "k"), "2xx ok"},
		"with trailers":                {settings, answerOf() + frame(0, "ok") + headers("x-sum", "7"), "2xx ok 7"},
		"trailers alone":               {settings, answerOf() + headers("x-sum", "7"), "2xx  7"},
		"nothing but a head":           {settings, answerOf(), "2xx "},
		"after interim answers":        {settings, headers(":status", "100") + headers(":status", "103", "link", "x") + answerOf() + frame(0, "ok"), "2xx ok"},
		"unknown frames":               {settings + frame(0x21, "x"), frame(0x40, "abc") + answerOf() + frame(0x21, "") + frame(0, "ok"), "2xx ok"},
		"a large head":                 {settings, answerOf("x", strings.Repeat("a", 30<<10)) + frame(0, "ok"), "2xx ok"},
		"no head":                      {settings, "", "service's fault"},
		"DATA first":                   {settings, frame(0, "abc"), "service's fault"},
		"no status":                    {settings, headers("x", "y"), "service's fault"},
		"two statuses":                 {settings, answerOf(":status", "200"), "service's fault"},
		"a status of two digits":       {settings, headers(":status", "20"), "service's fault"},
		"101":                          {settings, headers(":status", "101"), "service's fault"},
		"a request's pseudo-field":     {settings, answerOf(":path", "/"), "service's fault"},
		"upper case":                   {settings, answerOf("X-Upper", "y"), "service's fault"},
		"a line break":                 {settings, answerOf("x", "a\r\nb: c"), "service's fault"},
		"transfer-encoding":            {settings, answerOf("transfer-encoding", "chunked"), "service's fault"},
		"two lengths":                  {settings, answerOf("content-length", "2", "content-length", "3"), "service's fault"},
		"a length that is none":        {settings, answerOf("content-length", "-2"), "service's fault"},
		"a head that is too large":     {settings, answerOf("x", strings.Repeat("a", 70<<10)), "service's fault"},
		"interim answers without end":  {settings, strings.Repeat(headers(":status", "103", "x", strings.Repeat("a", 1000)), 100) + answerOf(), "service's fault"},
		"interim answers alone":        {settings, headers(":status", "103"), "service's fault"},
		"a field of the table":         {settings, frame(1, "\x00\x00\x80"), "service's fault"},
		"SETTINGS in an answer":        {settings, frame(4, ""), "service's fault"},
		"a push that was not allowed":  {settings, frame(5, "\x00"), "service's fault"},
		"less than its length":         {settings, answerOf("content-length", "3") + frame(0, "ok"), "2xx okbroken off"},
		"more than its length":         {settings, answerOf("content-length", "1") + frame(0, "ok"), "2xx broken off"},
		"half a frame":                 {settings, answerOf() + "\x00\x05ok", "2xx okbroken off"},
		"DATA behind trailers":         {settings, answerOf() + headers("x", "y") + frame(0, "ok"), "2xx broken off"},
		"trailers with a pseudo-field": {settings, answerOf() + frame(0, "ok") + headers(":status", "200"), "2xx okbroken off"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := connect(t, service(t, c.control, func(_ *quic.Conn, q *quic.Stream) {
				_, _ = io.Copy(io.Discard, q)
				_, _ = q.Write([]byte(c.send))
				_ = q.Close()
			}))
			got := outcome(t, conn, request(nil))
			// What is wrong may be found with the head already: it is here by then.
			if got != c.want && !(strings.Contains(c.want, "broken off") && got == "service's fault") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// What a service must not say beside its answers ends the connection.
func TestMalformedServices(t *testing.T) {
	for name, c := range map[string]struct {
		control string
		want    uint64
	}{
		"no settings": {"\x00" + frame(7, "\x00"), noSettings},
		"MAX_PUSH_ID": {"\x00\x04\x00" + frame(0xd, "\x04"), unexpected},
		"a push":      {"\x01\x00", badID},
		"an entry":    {"\x02\x40\x00", encoderStream},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan uint64, 1)
			l, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{http3.Protocol}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				q, err := l.Accept(context.Background())
				if err != nil {
					ended <- 0
					return
				}
				uni, _ := q.OpenUniStream() // there is room for one
				_, _ = uni.Write([]byte(c.control))
				<-q.Context().Done()
				var closed *quic.ApplicationError
				errors.As(context.Cause(q.Context()), &closed)
				ended <- uint64(closed.ErrorCode)
			}()
			conn := connect(t, l.Addr().String())
			if got := <-ended; got != c.want {
				t.Errorf("got %#x, want %#x", got, c.want)
			}
			eventually(t, func() bool { return conn.Room() == 0 })
		})
	}
}

// A request that the service says it has not looked at may be tried elsewhere,
// whatever it asks for.
func TestRefusedByTheService(t *testing.T) {
	t.Run("by a reset", func(t *testing.T) {
		conn := connect(t, service(t, "\x00\x04\x00", func(_ *quic.Conn, q *quic.Stream) {
			q.CancelRead(rejected)
			q.CancelWrite(rejected)
		}))
		if got := outcome(t, conn, request(nil)); got != "refused" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("by GOAWAY", func(t *testing.T) {
		var control *quic.SendStream
		var once sync.Once
		conn := connect(t, service(t, "\x03", func(c *quic.Conn, q *quic.Stream) {
			once.Do(func() {
				control, _ = c.OpenUniStream() // there is room for it
				_, _ = control.Write([]byte("\x00\x04\x00" + frame(7, "\x00")))
			})
		}))
		if got := outcome(t, conn, request(nil)); got != "refused" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("from the start", func(t *testing.T) {
		conn := connect(t, service(t, "\x00\x04\x00"+frame(7, "\x00"), func(*quic.Conn, *quic.Stream) {}))
		eventually(t, func() bool { return conn.Room() == 0 })
		if got := outcome(t, conn, request(nil)); got != "not sent" {
			t.Errorf("got %q", got)
		}
	})
}

// A connection that dies before it has ever answered leaves open what became of
// the request; on one that has, the request is stale.
func TestConnectionDies(t *testing.T) {
	conn := connect(t, service(t, "\x00\x04\x00", func(c *quic.Conn, q *quic.Stream) {
		_, _ = io.Copy(io.Discard, q)
		if q.StreamID() > 0 {
			c.CloseWithError(0x102, "dead")
			return
		}
		_, _ = q.Write([]byte(answerOf() + frame(0, "ok")))
		_ = q.Close()
	}))
	for _, want := range []string{"2xx ok", "stale", "not sent"} {
		if want == "not sent" {
			eventually(t, func() bool { return conn.Room() == 0 })
		}
		if got := outcome(t, conn, request(nil)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// failing is a body whose client leaves.
type failing struct{}

func (failing) Next() ([]byte, error) { return nil, net.ErrClosed }
func (failing) Length() int64         { return 10 }

func TestClientsBodyFails(t *testing.T) {
	conn := connect(t, service(t, "\x00\x04\x00", func(_ *quic.Conn, q *quic.Stream) { _, _ = io.Copy(io.Discard, q) }))
	if got := outcome(t, conn, request(failing{})); got != "client's fault" {
		t.Errorf("got %q", got)
	}
}

// Whatever a lane waits for, Abort ends it.
func TestAbort(t *testing.T) {
	asked := make(chan struct{}, 1)
	conn := connect(t, service(t, "\x00\x04\x00", func(_ *quic.Conn, q *quic.Stream) {
		asked <- struct{}{}
		_, _ = io.Copy(io.Discard, q)
	}))
	x := request(exchange.Bytes([]byte("body")))
	l := conn.Lane()
	defer l.Close(x)
	go func() { <-asked; l.Abort() }()
	var failed *upstream.Error
	if err := l.Open(t.Context(), x, &upstream.Options{Stall: time.Minute}); !errors.As(err, &failed) || !failed.Timeout {
		t.Errorf("got %v", err)
	}
}

// Who finds a connection dead takes its room away: a pool that is asked again makes
// another, though nobody has read from this one yet.
func TestADeadConnectionHasNoRoom(t *testing.T) {
	addr := service(t, "\x00\x04\x00", func(c *quic.Conn, _ *quic.Stream) { _ = c.CloseWithError(0x100, "") })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := http3.Dial(ctx, upstream.Target{Address: addr, Security: &tls.Config{InsecureSkipVerify: true}, Changed: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Room() == 0 {
		t.Error("it has no room before anyone has found out")
	}
	outcome(t, c, request(nil)) // it dies of that
	if n := c.Room(); n != 0 {
		t.Errorf("it has room for %d", n)
	}
	c.Run()
}
