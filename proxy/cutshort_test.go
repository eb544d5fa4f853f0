package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/telemetry"
)

// An answer that has begun cannot say any more what became of it. The access log
// says whose fault it was that it did not end.
func TestTheLogBlamesWhoCutsAnAnswer(t *testing.T) {
	stays := func(*net.TCPConn) {}
	for name, c := range map[string]struct {
		service string // what it sends of its answer
		goes    bool   // and then closes; else it says no more
		timeout time.Duration
		client  func(*net.TCPConn)
		details string
	}{
		"a service that closes":       {"Content-Length: 9\r\n\r\nhalf", true, 0, stays, "upstream_failed"},
		"amid chunks":                 {"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", true, 0, stays, "upstream_failed"},
		"that frames it badly":        {"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nx\r\n", false, 0, stays, "upstream_failed"},
		"that falls silent":           {"Content-Length: 9\r\n\r\nhalf", false, 300 * time.Millisecond, stays, "upstream_timeout"},
		"a client that resets":        {"Content-Length: 9\r\n\r\nhalf", false, time.Hour, func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, "client_left"},
		"a client that closes":        {"Content-Length: 9\r\n\r\nhalf", false, time.Hour, func(c *net.TCPConn) { c.Close() }, "client_left"},
		"a client that does not read": {"Content-Length: 900000000\r\n\r\nhalf", false, time.Hour, nil, "client_stalled"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := scripted(t, func(conn *net.TCPConn, _ *bufio.Reader, _ *http.Request) {
				io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+c.service)
				if c.client == nil {
					io.Copy(conn, endless{}) // until the edge has had enough
				}
				if !c.goes {
					io.Copy(io.Discard, conn)
				}
			})
			j := new(journal)
			e := startEdgeWith(t, func(cfg *proxy.Config) {
				cfg.Access = telemetry.NewAccessLog(j, cfg.Metrics.LogLost)
				t.Cleanup(cfg.Access.Close)
				cfg.ClientHalfClosed = 10 * time.Millisecond
				if c.client == nil {
					cfg.ClientStall = 200 * time.Millisecond
				}
			}, service("s", addr), route("r", "/", "s", func(r *weirv1.RouteRule) {
				if c.timeout > 0 {
					r.Timeouts = &weirv1.RouteTimeouts{Request: duration(c.timeout)}
				}
			}))
			client := dial(t, e.addr)
			client.send(getX)
			client.head("GET")
			if c.client != nil {
				c.client(client.TCPConn)
			}
			if line := j.await(t); line["status"] != 200.0 || line["details"] != c.details || line["error"] == nil {
				t.Errorf("the log says %v", line)
			}
		})
	}
}

// endless is a body without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// The same where connections are shared, on either side.
func TestTheLogBlamesWhoCutsAStream(t *testing.T) {
	for name, c := range map[string]struct {
		service http.HandlerFunc // once its half is heard
		leaves  bool
		details string
	}{
		"a service that resets": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false, "upstream_failed"},
		"a client that resets":  {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, true, "client_left"},
	} {
		heard := make(chan struct{}, 1)
		half := func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			<-heard
			c.service(w, r)
		}
		for up, s := range map[string]*weirv1.Service{"HTTP/2": h2Server(t, false, half), "HTTP/3": h3Server(t, half)} {
			t.Run(name+" by "+up, func(t *testing.T) {
				e, j := watched(t, s, route("r", "/", "s"))
				resp, err := e.h2Client(false).Do(newRequest(t, "GET", "http://shop.example/", nil))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(resp.Body, make([]byte, 4)); err != nil {
					t.Error(err)
				}
				heard <- struct{}{}
				if !c.leaves {
					io.Copy(io.Discard, resp.Body)
				}
				resp.Body.Close()
				if line := j.await(t); line["status"] != 200.0 || line["details"] != c.details || line["error"] == nil {
					t.Errorf("the log says %v", line)
				}
			})
		}
	}
}

// An endpoint whose heads are good and whose bodies are cut is put out of use; one that
// does well is not, nor is one whose client has left.
func TestEndpointsThatCutTheirAnswersAreEjected(t *testing.T) {
	cuts := scripted(t, func(c *net.TCPConn, _ *bufio.Reader, _ *http.Request) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
	})
	two := uint32(2)
	s := service("s", cuts)
	s.Spec.OutlierDetection = &weirv1.OutlierDetection{Consecutive_5Xx: &two, BaseEjectionTime: duration(time.Hour)}
	none := uint32(0)
	s.Spec.LoadBalancing = &weirv1.LoadBalancing{PanicThreshold: &none}
	e := startEdge(t, s, route("r", "/", "s"))
	for i := range 2 {
		resp, err := http.Get(e.url("/"))
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("request %d: %v, %v", i, resp, err)
		}
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("request %d: it is whole: %q", i, body)
		}
		resp.Body.Close()
	}
	waitFor(t, func() bool {
		resp, err := http.Get(e.url("/"))
		if err != nil {
			return false
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp.StatusCode == 503
	}, func() string { return "the endpoint stays in use" })
}
