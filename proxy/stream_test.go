package proxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// scripted is a service that is given each connection once a request's head was
// read; it reads the body itself.
func scripted(t testing.TB, serve func(c *net.TCPConn, in *bufio.Reader, r *http.Request)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(2 * time.Minute))
				in := bufio.NewReader(c)
				if r, err := http.ReadRequest(in); err == nil {
					serve(c.(*net.TCPConn), in, r)
				}
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestHEAD(t *testing.T) {
	o := startOrigin(t, func(c net.Conn, r *http.Request, _ string) bool {
		switch r.URL.Path {
		case "/sized":
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
		case "/chunked":
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		case "/open":
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		}
		return true
	})
	e := startEdge(t, service("s", o.addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	for range 2 {
		for _, path := range []string{"/sized", "/chunked", "/open"} {
			resp, _ := c.exchange("HEAD " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
			if resp.StatusCode != 200 || path == "/sized" && resp.ContentLength != 5 || len(resp.TransferEncoding) > 0 {
				t.Errorf("%s: %+v", path, resp)
			}
		}
		resp, _ := c.exchange("HEAD /../x HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp.StatusCode != 400 {
			t.Errorf("our own answer: %+v", resp)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	o := startOrigin(t, nil)
	o.expect(t, "POST /waits hello", "POST /chunks hello", "POST /impatient hello", "POST /old hello")
	e := startEdge(t, service("s", o.addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	const fields = "HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"

	c.send("POST /waits " + fields + "Content-Length: 5\r\n\r\n")
	if resp := c.head("POST"); resp.StatusCode != 100 {
		t.Fatalf("a client that waits got %d", resp.StatusCode)
	}
	c.send("hello")
	if resp, body := c.answer("POST"); resp.StatusCode != 200 || body != "POST /waits hello" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}

	c.send("POST /chunks " + fields + "Transfer-Encoding: chunked\r\n\r\n")
	if resp := c.head("POST"); resp.StatusCode != 100 {
		t.Fatalf("a client that waits got %d", resp.StatusCode)
	}
	c.send("5\r\nhello\r\n0\r\n\r\n")
	if resp, body := c.answer("POST"); resp.StatusCode != 200 || body != "POST /chunks hello" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}

	// One that does not wait is not told to go on.
	if resp, body := c.exchange("POST /impatient " + fields + "Content-Length: 5\r\n\r\nhello"); resp.StatusCode != 200 || body != "POST /impatient hello" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}

	// HTTP/1.0 knows nothing of it.
	old := dial(t, e.addr)
	old.send("POST /old HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	time.Sleep(10 * time.Millisecond)
	old.send("hello")
	if got := old.verdicts(); got != "200!" {
		t.Errorf("got %s", got)
	}
}

// Nobody is asked to send what will not be read.
func TestExpectContinueIsRefusedEarly(t *testing.T) {
	e := startEdge(t)
	c := dial(t, e.addr)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if got := c.verdicts(); got != "404!" {
		t.Errorf("got %s", got)
	}
}

func TestInterimAnswers(t *testing.T) {
	o := startOrigin(t, func(c net.Conn, r *http.Request, _ string) bool {
		if r.URL.Path == "/switch" {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
			return true
		}
		io.WriteString(c, strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 3)+"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		return true
	})
	e := startEdge(t, service("s", o.addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	for range 2 {
		resp, _ := c.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp.StatusCode != 103 || resp.Header.Get("Link") != "</a>" { // and not one of the 100, which were for the edge
			t.Errorf("got %d %v", resp.StatusCode, resp.Header)
		}
		if resp, body := c.answer("GET"); resp.StatusCode != 200 || body != "ok" || resp.Header.Get("Link") != "" {
			t.Errorf("got %d %q %v", resp.StatusCode, body, resp.Header)
		}
	}
	old := dial(t, e.addr)
	if resp, body := old.exchange("GET / HTTP/1.0\r\nHost: a\r\n\r\n"); resp.StatusCode != 200 || body != "ok" {
		t.Errorf("HTTP/1.0: got %d %q", resp.StatusCode, body)
	}
	if resp, _ := c.exchange("GET /switch HTTP/1.1\r\nHost: a\r\n\r\n"); resp.StatusCode != 502 {
		t.Errorf("a switch of protocols that nobody asked for: %d", resp.StatusCode)
	}
}

func TestClientLeavesInItsRequest(t *testing.T) {
	broken := make(chan error, 1)
	addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		broken <- err
	})
	e := startEdge(t, service("s", addr), route("r", "/", "s"))
	for _, framing := range []string{"Content-Length: 100000\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"} {
		c := dial(t, e.addr)
		c.send("POST / HTTP/1.1\r\nHost: a\r\n" + framing)
		c.Close()
		if err := <-broken; err == nil {
			t.Errorf("%q: the service took it for whole", framing)
		}
	}
}

func TestClientLeavesInItsAnswer(t *testing.T) {
	stopped := make(chan error, 1)
	addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for {
			if _, err := io.WriteString(c, "400\r\n"+strings.Repeat("x", 1024)+"\r\n"); err != nil {
				stopped <- err
				return
			}
		}
	})
	e := startEdge(t, service("s", addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	c.head("GET")
	c.Close()
	if err := <-stopped; errors.Is(err, net.ErrClosed) || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the service was not told: %v", err)
	}
}

// A service may answer before it has read the request, and close.
func TestEarlyAnswer(t *testing.T) {
	for name, drain := range map[string]bool{"closes": false, "reads on": true} {
		t.Run(name, func(t *testing.T) {
			addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
				io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
				if c.CloseWrite(); drain {
					io.Copy(io.Discard, in)
				}
			})
			e := startEdge(t, service("s", addr), route("r", "/", "s"))
			c := dial(t, e.addr)
			c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n")
			c.send(strings.Repeat("x", 1000))
			if resp, body := c.answer("POST"); resp.StatusCode != 413 || body != "big" || !resp.Close {
				t.Errorf("got %d %q", resp.StatusCode, body)
			}
			c.send(strings.Repeat("x", 100)) // is read, and goes nowhere
			c.closed()
		})
	}
}

// A service that dies is to blame, also while the client still sends.
func TestServiceDiesDuringAnUpload(t *testing.T) {
	addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {})
	e := startEdge(t, service("s", addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\nabc")
	if got := c.verdicts(); got != "502!" {
		t.Errorf("got %s", got)
	}
}

// An answer that breaks off must not look whole.
func TestTruncatedAnswer(t *testing.T) {
	big := strings.Repeat("x", 10000)
	for _, c := range []struct {
		name, answer string
		whole        bool
	}{
		{"sized", "Content-Length: 20000\r\n\r\n" + big, false},
		{"sized, nothing of it", "Content-Length: 20000\r\n\r\n", false},
		{"chunked", "Transfer-Encoding: chunked\r\n\r\n2710\r\n" + big + "\r\n", false},
		{"in a chunk", "Transfer-Encoding: chunked\r\n\r\n4e20\r\n" + big, false},
		{"before the last chunk's end", "Transfer-Encoding: chunked\r\n\r\n2710\r\n" + big + "\r\n0\r\n", false},
		{"a bad chunk", "Transfer-Encoding: chunked\r\n\r\n2710\r\n" + big + "\r\nx\r\n0\r\n\r\n", false},
		{"to the end of the connection", "\r\n" + big, true},
	} {
		for _, protocol := range []string{"HTTP/1.1", "HTTP/1.0"} {
			t.Run(c.name+", "+protocol, func(t *testing.T) {
				addr := scripted(t, func(s *net.TCPConn, in *bufio.Reader, r *http.Request) {
					io.WriteString(s, "HTTP/1.1 200 OK\r\n"+c.answer)
				})
				e := startEdge(t, service("s", addr), route("r", "/", "s"))
				client := dial(t, e.addr)
				client.send("GET / " + protocol + "\r\nHost: a\r\n\r\n")
				body, err := []byte(nil), error(nil)
				resp, err := http.ReadResponse(client.in, nil) // a reset may even take the head away
				if err == nil {
					body, err = io.ReadAll(resp.Body)
				}
				if (err == nil) != c.whole || c.whole && string(body) != big {
					t.Errorf("the client reads %d bytes, %v", len(body), err)
				}
			})
		}
	}
}

// What has arrived is passed on, whatever is awaited next.
func TestEventsAreNotHeldBack(t *testing.T) {
	next := make(chan struct{})
	addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for i := range 5 {
			fmt.Fprintf(c, "7\r\nevent %d\r\n", i) // and the next line only with the next chunk
			<-next
		}
		io.WriteString(c, "0\r\nX-Count: 5\r\n\r\n")
	})
	e := startEdge(t, service("s", addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	resp := c.head("GET")
	for i := range 5 {
		event := make([]byte, 7)
		if _, err := io.ReadFull(resp.Body, event); err != nil || string(event) != fmt.Sprintf("event %d", i) {
			t.Fatalf("got %q, %v", event, err)
		}
		next <- struct{}{}
	}
	if _, err := io.ReadAll(resp.Body); err != nil || resp.Trailer.Get("X-Count") != "5" {
		t.Errorf("trailers %v, %v", resp.Trailer, err)
	}
}

// Both sides speak in turns, neither has finished.
func TestFullDuplex(t *testing.T) {
	addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		buf := make([]byte, 1000)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				fmt.Fprintf(c, "%x\r\n%s\r\n", n, buf[:n])
			}
			if err != nil {
				io.WriteString(c, "0\r\n\r\n")
				return
			}
		}
	})
	e := startEdge(t, service("s", addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	resp := c.head("POST")
	for i := range 50 {
		c.sendf("3\r\n%03d\r\n", i)
		got := make([]byte, 3)
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != fmt.Sprintf("%03d", i) {
			t.Fatalf("turn %d: %q, %v", i, got, err)
		}
	}
	c.send("0\r\n\r\n")
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
		t.Errorf("left %q, %v", rest, err)
	}
}

// allocated runs f and says how much memory was asked for meanwhile. Under the
// race detector, where pools forget on purpose, it says nothing.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if raceEnabled {
		return 0
	}
	return after.TotalAlloc - before.TotalAlloc
}

const (
	large      = 64 << 20
	affordable = 2 << 20 // for a few buffers, the test's own among them
)

// The memory that a body costs does not grow with it.
func TestLargeBodies(t *testing.T) {
	block := make([]byte, 64<<10)
	addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		if r.Method == "POST" {
			n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r.Body}, make([]byte, 64<<10))
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n%09d", n)
			return
		}
		if r.URL.Path == "/sized" {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", large)
		} else {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		}
		for range large / len(block) {
			if r.URL.Path == "/chunked" {
				io.WriteString(c, "10000\r\n")
			}
			c.Write(block)
			if r.URL.Path == "/chunked" {
				io.WriteString(c, "\r\n")
			}
		}
		if r.URL.Path == "/chunked" {
			io.WriteString(c, "0\r\n\r\n")
		}
	})
	e := startEdge(t, service("s", addr), route("r", "/", "s"))
	for _, path := range []string{"/sized", "/chunked"} {
		t.Run("down, "+path[1:], func(t *testing.T) {
			cost := allocated(func() {
				c := dial(t, e.addr)
				c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c.head("GET").Body}, make([]byte, 64<<10))
				if n != large || err != nil {
					t.Errorf("%d bytes, %v", n, err)
				}
			})
			if cost > affordable {
				t.Errorf("it cost %d bytes", cost)
			}
		})
	}
	t.Run("up", func(t *testing.T) {
		cost := allocated(func() {
			c := dial(t, e.addr)
			c.sendf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", large)
			for range large / len(block) {
				if _, err := c.Write(block); err != nil {
					t.Fatal(err)
				}
			}
			resp, body := c.answer("POST")
			if resp.StatusCode != 200 || body != fmt.Sprintf("%09d", large) || resp.Close {
				t.Errorf("%d %q, close %v", resp.StatusCode, body, resp.Close)
			}
		})
		if cost > affordable {
			t.Errorf("it cost %d bytes", cost)
		}
	})
}

// A client that does not read holds back its service, not the proxy's memory.
func TestSlowReader(t *testing.T) {
	block := make([]byte, 64<<10)
	var written atomic.Int64
	addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		c.SetWriteBuffer(64 << 10)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", large)
		for written.Load() < large {
			n, err := c.Write(block)
			if written.Add(int64(n)); err != nil {
				return
			}
		}
	})
	e := startEdge(t, service("s", addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	c.SetReadBuffer(64 << 10)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	var held int64
	for now := int64(-1); now != held || held == 0; { // until nothing moves
		held = now
		time.Sleep(50 * time.Millisecond)
		now = written.Load()
	}
	if held > large/2 {
		t.Errorf("%d bytes went to a client that reads nothing", held)
	}
	if n, err := io.Copy(io.Discard, c.head("GET").Body); n != large || err != nil {
		t.Errorf("then it reads %d bytes, %v", n, err)
	}
}

// The bound on a client that does not take its answer counts from when it could.
func TestSlowServiceIsNotASlowClient(t *testing.T) {
	addr := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		time.Sleep(150 * time.Millisecond) // longer than the client may stall
		if r.Method == "DELETE" {
			w.WriteHeader(204)
			return
		}
		io.WriteString(w, strings.Repeat("x", 10000))
	})
	e := startEdgeWith(t, impatient, service("s", addr), route("r", "/", "s"))
	for _, request := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"} {
		if resp, body := dial(t, e.addr).exchange(request); resp.StatusCode != 200 || len(body) != 10000 {
			t.Errorf("got %d, %d bytes", resp.StatusCode, len(body))
		}
	}
	if resp, _ := dial(t, e.addr).exchange("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n"); resp.StatusCode != 204 {
		t.Errorf("got %d", resp.StatusCode)
	}
}

// A slow upload is not cut by the time that an attempt may take to answer, once
// it has answered.
func TestAttemptTimeoutEndsWithTheHead(t *testing.T) {
	addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(c, "%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	})
	e := startEdge(t, service("s", addr), route("r", "/", "s", func(r *weirv1.RouteRule) {
		r.Timeouts = &weirv1.RouteTimeouts{BackendRequest: duration(100 * time.Millisecond)}
	}))
	c := dial(t, e.addr)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
	resp := c.head("POST")
	time.Sleep(200 * time.Millisecond)
	c.send("def")
	if body, err := io.ReadAll(resp.Body); string(body) != "abcdef" || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
}
