package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	getX  = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
	postX = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
)

// A service may close a kept connection whenever it likes: no request fails by
// that, and none is sent twice.
func TestServiceClosesKeptConnections(t *testing.T) {
	closed := make(chan struct{})
	o := startOrigin(t, func(c net.Conn, r *http.Request, _ string) bool {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") // and says nothing of it
		c.Close()
		closed <- struct{}{}
		return false
	})
	o.expect(t, "GET /x", "POST /x abc", "GET /x", "POST /x abc", "POST /x abc", "GET /x")
	e := startEdge(t, service("s", o.addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	chunked := "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	for _, request := range []string{getX, postX, getX, chunked, postX, getX} {
		if resp, body := c.exchange(request); resp.StatusCode != 200 || body != "ok" {
			t.Fatalf("%.5s: %d %s", request, resp.StatusCode, body)
		}
		<-closed
	}
}

// A service that starts again leaves as many dead connections behind as there
// were; the next request passes by all of them.
func TestServiceClosesManyKeptConnections(t *testing.T) {
	const n = 20
	var together sync.WaitGroup
	together.Add(n)
	stop := make(chan struct{})
	var closed sync.WaitGroup
	closed.Add(n)
	var mu sync.Mutex
	first := 0
	addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		mu.Lock()
		first++
		isFirst := first <= n
		mu.Unlock()
		if !isFirst {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nagain")
			return
		}
		together.Done()
		together.Wait() // so that each needs a connection of its own
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		<-stop
		c.Close()
		closed.Done()
	})
	e := startEdge(t, service("s", addr), route("r", "/", "s"))
	var clients sync.WaitGroup
	for range n {
		clients.Go(func() { dial(t, e.addr).exchange(getX) })
	}
	clients.Wait()
	close(stop)
	closed.Wait()
	if resp, body := dial(t, e.addr).exchange(postX); resp.StatusCode != 200 || body != "again" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}

// A service that dies over a request on a kept connection may have done what
// was asked: only what may be repeated is.
func TestServiceDiesOverARequest(t *testing.T) {
	for _, c := range []struct {
		name, request string
		status        int
		seen          int32
	}{
		{"GET is sent again", "GET /die HTTP/1.1\r\nHost: a\r\n\r\n", 200, 2},
		{"PUT is sent again", "PUT /die HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 200, 2},
		{"POST is not", "POST /die HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 502, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var seen atomic.Int32
			o := startOrigin(t, func(conn net.Conn, r *http.Request, _ string) bool {
				if r.URL.Path == "/die" && seen.Add(1) == 1 {
					return false
				}
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				return true
			})
			e := startEdge(t, service("s", o.addr), route("r", "/", "s"))
			client := dial(t, e.addr)
			client.exchange(getX) // leaves a connection behind
			if resp, _ := client.exchange(c.request); resp.StatusCode != c.status || seen.Load() != c.seen {
				t.Errorf("got %d, the service saw it %d times", resp.StatusCode, seen.Load())
			}
		})
	}
}

// What a service sends beside its answer is nobody's answer.
func TestNothingLeaksIntoTheNextAnswer(t *testing.T) {
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	for _, c := range []struct {
		name, method, answer, later string
		status                      int
	}{
		{"an answer that nobody asked for", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + evil, "", 200},
		{"one that comes later", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", evil, 200},
		{"a farewell", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 200},
		{"more than the length says", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokokok", "", 200},
		{"something behind the last chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + evil, "", 200},
		{"a 204 with a body", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 43\r\n\r\n", evil, 204},
		{"a 204 with chunks", "GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", evil, 204},
		{"a 304 with a body", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 43\r\n\r\n", evil, 304},
		{"a HEAD with a body", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n", evil, 200},
		{"two lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 43\r\n\r\n" + evil, "", 502},
		{"chunks and a length", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 43\r\n\r\n0\r\n\r\n" + evil, "", 502},
		{"chunks in HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n" + evil, "", 502},
		{"no HTTP", "GET", "SSH-2.0-OpenSSH_9\r\n", "", 502},
		{"a bare line feed", "GET", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "", 502},
		{"a head without end", "GET", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 80), "", 502},
	} {
		t.Run(c.name, func(t *testing.T) {
			spoken := make(chan struct{})
			o := startOrigin(t, func(conn net.Conn, r *http.Request, _ string) bool {
				if r.URL.Path == "/next" {
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
					return true
				}
				io.WriteString(conn, c.answer)
				<-spoken // the answer was read
				io.WriteString(conn, c.later)
				spoken <- struct{}{}
				return true
			})
			e := startEdge(t, service("s", o.addr), route("r", "/", "s"))
			client := dial(t, e.addr)
			if resp, body := client.exchange(c.method + " /x HTTP/1.1\r\nHost: a\r\n\r\n"); resp.StatusCode != c.status || strings.Contains(body, "evil") {
				t.Errorf("got %d %s", resp.StatusCode, body)
			}
			spoken <- struct{}{}
			<-spoken
			for _, request := range []string{"GET /next HTTP/1.1\r\nHost: a\r\n\r\n", "POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"} {
				if resp, body := dial(t, e.addr).exchange(request); resp.StatusCode != 200 || body != "next" {
					t.Errorf("the next one got %d %s", resp.StatusCode, body)
				}
			}
		})
	}
}

// An answer that its client did not wait for is not the next client's.
func TestUnreadAnswersDoNotLeak(t *testing.T) {
	o := startOrigin(t, func(c net.Conn, r *http.Request, _ string) bool {
		body := r.URL.Path + strings.Repeat(".", 300<<10)
		if r.URL.Query().Has("small") {
			body = r.URL.Path
		}
		_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return err == nil
	})
	e := startEdge(t, service("s", o.addr), route("r", "/", "s"))
	var clients sync.WaitGroup
	for k := range 4 {
		clients.Go(func() {
			for i := range 25 {
				leaver := dial(t, e.addr)
				leaver.sendf("GET /left-%d-%d HTTP/1.1\r\nHost: a\r\n\r\n", k, i)
				leaver.head("GET")
				leaver.SetLinger(0)
				leaver.Close()
				want := fmt.Sprintf("/own-%d-%d", k, i)
				if _, body := dial(t, e.addr).exchange("GET " + want + "?small HTTP/1.1\r\nHost: a\r\n\r\n"); body != want {
					t.Errorf("got %.20q, want %s", body, want)
				}
			}
		})
	}
	clients.Wait()
}

// Uploads keep both connections, if they end well.
func TestConnectionsAreKeptAfterUploads(t *testing.T) {
	o := startOrigin(t, nil)
	e := startEdge(t, service("s", o.addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	for i := range 20 {
		c.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
		time.Sleep(time.Millisecond)
		if resp, body := c.exchange("def"); resp.StatusCode != 200 || body != "POST /x abcdef" || resp.Close {
			t.Fatalf("%d: got %d %q, close %v", i, resp.StatusCode, body, resp.Close)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.accepted > 5 { // the proxy may be quicker to close than its pump to end, but rarely
		t.Errorf("%d connections to the service", o.accepted)
	}
}
