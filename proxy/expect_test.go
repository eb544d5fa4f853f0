package proxy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync/atomic"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// waits is a request whose body is sent when it is asked for; asked is called then,
// and the body is what it returns.
func waits(t *testing.T, url string, asked func() string) *http.Request {
	t.Helper()
	body, send := io.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	t.Cleanup(func() { send.Close() })
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
		if code == 100 {
			text := asked()
			go func() {
				io.WriteString(send, text)
				send.Close()
			}()
		}
		return nil
	}})
	req := newRequest(t, "POST", url, body).WithContext(ctx)
	req.Header.Set("Expect", "100-continue")
	return req
}

// The service decides whether the client is asked for the body, and its answer can
// come without (RFC 9110, section 10.1.1).
func TestExpectIsTheServices(t *testing.T) {
	var reads atomic.Bool
	crossings(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Expect") != "100-continue" && r.ProtoMajor != 2 { // net/http takes it out there
			t.Errorf("the service was told Expect %q", r.Header.Get("Expect"))
		}
		if r.URL.Path == "/refused" {
			w.WriteHeader(401)
			return
		}
		reads.Store(true)
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	}, func(*weirv1.RouteRule) {}, func(t *testing.T, client *http.Client, base string) {
		reads.Store(false)
		_, got := do(t, client, waits(t, base+"/wanted", func() string {
			if !reads.Load() {
				t.Error("the client was asked before the service wanted the body")
			}
			return "body"
		}))
		if got != "body" {
			t.Errorf("the service got %q", got)
		}
		resp, err := client.Do(waits(t, base+"/refused", func() string {
			t.Error("the client was asked for what nobody reads")
			return ""
		}))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 401 {
			t.Errorf("got %s", resp.Status)
		}
	})
}

// A service that knows nothing of it is sent the body after a while, and one that goes
// without an answer is to blame.
func TestExpectNothingOfTheService(t *testing.T) {
	addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		if r.URL.Path == "/goes" {
			return
		}
		var body [5]byte
		if _, err := io.ReadFull(in, body[:]); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"+string(body[:]))
		}
	})
	e := startEdge(t, service("s", addr), route("r", "/", "s"))
	const fields = " HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
	c := dial(t, e.addr)
	c.send("POST /silent" + fields)
	if resp := c.head("POST"); resp.StatusCode != 100 {
		t.Fatalf("got %s", resp.Status)
	}
	c.send("hello")
	if resp, body := c.answer("POST"); resp.StatusCode != 200 || body != "hello" {
		t.Errorf("got %s %s", resp.Status, body)
	}
	// One that sends it unasked meanwhile loses nothing.
	c.send("POST /impatient" + fields + "he")
	c.send("llo")
	if resp, body := c.answer("POST"); resp.StatusCode != 200 && resp.StatusCode != 100 {
		t.Errorf("got %s %s", resp.Status, body)
	}
	c = dial(t, e.addr)
	c.send("POST /goes" + fields)
	if got := c.verdicts("POST"); got != "502!" {
		t.Errorf("got %s", got)
	}
}

// A client that goes while its body is held leaves nothing behind.
func TestExpectAndGo(t *testing.T) {
	arrived, gone := make(chan bool, 1), make(chan bool)
	addr := scripted(t, func(_ *net.TCPConn, in *bufio.Reader, _ *http.Request) {
		arrived <- true
		in.ReadByte()
		close(gone)
	})
	e := startEdge(t, service("s", addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	<-arrived
	c.Close()
	select {
	case <-gone:
	case <-time.After(2 * time.Minute):
		t.Error("the service's connection is still there")
	}
}
