package proxy_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/telemetry"
)

// slowly is a service that answers once it is let, and says when it was asked and
// when nobody wanted its answer any more.
type slowly struct {
	addr                    string
	asked, givenUp, proceed chan struct{}
	requests                atomic.Int64
}

func startSlow(t *testing.T) *slowly {
	s := &slowly{asked: make(chan struct{}, 8), givenUp: make(chan struct{}, 8), proceed: make(chan struct{}, 8)}
	s.addr = upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		s.asked <- struct{}{}
		select {
		case <-s.proceed:
			io.WriteString(w, "ok")
		case <-r.Context().Done():
			s.givenUp <- struct{}{}
		}
	})
	return s
}

func awaited(t *testing.T, c chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(2 * time.Minute):
		t.Fatal(what)
	}
}

// waiting starts an edge before a slow service that would be tried again, and out of
// use after one failure.
func waiting(t *testing.T, secure bool, halfClosed time.Duration) (*edge, *slowly, *journal) {
	listeners := gateway(plainListener())
	if secure {
		listeners = gateway(secureListener("tls", "", nil, "own"))
	}
	s, j := startSlow(t), &journal{}
	one := uint32(1)
	books := service("s", s.addr)
	books.Spec.OutlierDetection = &weirv1.OutlierDetection{Consecutive_5Xx: &one, BaseEjectionTime: duration(time.Hour)}
	e := startEdgeWith(t, func(c *proxy.Config) {
		c.ClientHalfClosed = halfClosed
		c.Access = telemetry.NewAccessLog(j, c.Metrics.LogLost)
		t.Cleanup(c.Access.Close)
	}, listeners, certificate(t, "own", "shop.example"), books,
		route("r", "/", "s", func(r *weirv1.RouteRule) {
			r.Retry = &weirv1.RouteRetry{Attempts: 3, Codes: []uint32{499, 500, 502, 503, 504}}
		}))
	return e, s, j
}

// A client that leaves is noticed while its service is waited for. That is neither
// the service's failure nor tried again.
func TestClientsThatLeaveAreNoticed(t *testing.T) {
	for name, c := range map[string]struct {
		secure     bool
		halfClosed time.Duration
		leave      func(*net.TCPConn)
	}{
		"a reset is seen at once":    {false, time.Hour, func(c *net.TCPConn) { c.SetLinger(0); c.Close() }},
		"a reset below TLS":          {true, time.Hour, func(c *net.TCPConn) { c.SetLinger(0); c.Close() }},
		"who closes, after a while":  {false, 10 * time.Millisecond, func(c *net.TCPConn) { c.Close() }},
		"who closes TLS":             {true, 10 * time.Millisecond, func(c *net.TCPConn) { c.Close() }},
		"who closes one side":        {false, 10 * time.Millisecond, func(c *net.TCPConn) { c.CloseWrite() }},
		"who was about to ask again": {false, 10 * time.Millisecond, func(c *net.TCPConn) { io.WriteString(c, getX); c.Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			e, s, j := waiting(t, c.secure, c.halfClosed)
			ask := func() *client {
				client := dial(t, e.addr)
				if c.secure {
					secured := tls.Client(client.TCPConn, &tls.Config{InsecureSkipVerify: true})
					io.WriteString(secured, getX)
					client.in = bufio.NewReader(secured)
				} else {
					client.send(getX)
				}
				return client
			}
			client := ask()
			awaited(t, s.asked, "the service is not asked")
			c.leave(client.TCPConn)
			awaited(t, s.givenUp, "nobody tells the service")
			if line := j.await(t); line["status"] != 499.0 || line["details"] != "client_left" {
				t.Errorf("the log says %v", line)
			}
			if n := s.requests.Load(); n != 1 {
				t.Errorf("the service was asked %d times", n)
			}
			s.proceed <- struct{}{}
			if resp, body := ask().answer("GET"); resp.StatusCode != 200 || body != "ok" {
				t.Errorf("the service is blamed: the next gets %d %q", resp.StatusCode, body)
			}
		})
	}
}

// A client that has closed its side may still be reading: it is served as long as
// something comes, with all that it has asked for.
func TestHalfClosedClientsAreServed(t *testing.T) {
	t.Run("in time", func(t *testing.T) {
		e, s, _ := waiting(t, false, time.Minute)
		client := dial(t, e.addr)
		client.send(getX + getX)
		client.CloseWrite()
		for range 2 {
			awaited(t, s.asked, "the service is not asked")
			s.proceed <- struct{}{}
		}
		if got := client.verdicts(); got != "200 200" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("too late", func(t *testing.T) {
		e, s, _ := waiting(t, false, 10*time.Millisecond)
		client := dial(t, e.addr)
		client.send(getX)
		client.CloseWrite()
		awaited(t, s.givenUp, "the service is waited for")
		if got := client.verdicts(); got != "499!" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("longer than the bound, while something comes", func(t *testing.T) {
		const parts = 200
		addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
			for range parts {
				io.WriteString(c, "1\r\nx\r\n")
				time.Sleep(20 * time.Millisecond) // it is slow
			}
			io.WriteString(c, "0\r\n\r\n")
		})
		e := startEdgeWith(t, func(c *proxy.Config) { c.ClientHalfClosed = time.Second }, service("s", addr), route("r", "/", "s"))
		client := dial(t, e.addr)
		client.send(getX)
		client.CloseWrite()
		if resp, body := client.answer("GET"); resp.StatusCode != 200 || len(body) != parts {
			t.Errorf("got %d, %d bytes", resp.StatusCode, len(body))
		}
	})
}

// A stream of events that is silent ends with its client.
func TestSilentStreamsEndWithTheirClient(t *testing.T) {
	stopped := make(chan struct{})
	addr := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(stopped)
	})
	e := startEdgeWith(t, func(c *proxy.Config) { c.ClientHalfClosed = 10 * time.Millisecond }, service("s", addr), route("r", "/", "s"))
	client := dial(t, e.addr)
	client.send(getX)
	client.head("GET")
	client.Close()
	awaited(t, stopped, "the stream goes on")
}

// What comes while a service is waited for is the next request.
func TestPipelinedBytesAreKept(t *testing.T) {
	e, s, _ := waiting(t, false, time.Minute)
	client := dial(t, e.addr)
	client.send(getX)
	awaited(t, s.asked, "the service is not asked")
	time.Sleep(100 * time.Millisecond) // it is watched by now
	client.send(getX[:10])
	client.send(getX[10:] + getX)
	for i := range 3 {
		if i > 0 {
			awaited(t, s.asked, "the service is not asked again")
		}
		s.proceed <- struct{}{}
		if resp, body := client.answer("GET"); resp.StatusCode != 200 || body != "ok" {
			t.Errorf("got %d %q", resp.StatusCode, body)
		}
	}
}
