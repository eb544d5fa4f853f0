package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/telemetry"
)

// calls starts an edge that hedges calls of gRPC, and what it is asked by.
func calls(t *testing.T, p *pack, attempts uint32) (*edge, *journal) {
	j := new(journal)
	return startEdgeWith(t, func(c *proxy.Config) {
		c.AdminAddress = "127.0.0.1:0"
		c.Access = telemetry.NewAccessLog(j, c.Metrics.LogLost)
		t.Cleanup(c.Access.Close)
	}, p.Service, route("r", "/", "s", func(r *weirv1.RouteRule) {
		r.Hedging = &weirv1.RouteHedging{Delay: duration(5 * time.Millisecond), Attempts: attempts, AnyMethod: true}
		r.Retry = &weirv1.RouteRetry{GrpcStatuses: []weirv1.RouteRetry_GrpcStatus{weirv1.RouteRetry_UNAVAILABLE}}
	})), j
}

func byHTTP2(t *testing.T) func(http.HandlerFunc) *weirv1.Service {
	return func(h http.HandlerFunc) *weirv1.Service { return h2Server(t, false, h) }
}

// callStatus answers a call with a status alone.
func callStatus(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", fmt.Sprint(code))
	}
}

func call(t *testing.T, e *edge, body io.Reader) *http.Response {
	req := newRequest(t, "POST", "http://shop.example/shop.Orders/Find", opaque{body})
	req.Header.Set("Content-Type", "application/grpc")
	resp, _ := do(t, e.h2Client(false), req)
	return resp
}

// A call whose rule says that it may be made twice is, once all of it is known;
// one that goes on is left alone.
func TestCallsAreHedged(t *testing.T) {
	for name, serve := range map[string]func(http.HandlerFunc) *weirv1.Service{
		"HTTP/1.1": plain(t), "HTTP/2": byHTTP2(t), "HTTP/3": func(h http.HandlerFunc) *weirv1.Service { return h3Server(t, h) },
	} {
		t.Run(name, func(t *testing.T) {
			p := startPack(t, 2, serve)
			p.after = callStatus(5)
			e, j := calls(t, p, 1)
			message := strings.Repeat("message ", 500)
			more, body := io.Pipe()
			go func() {
				io.WriteString(body, message[:4])
				time.Sleep(100 * time.Millisecond) // the delay has long passed
				io.WriteString(body, message[4:])
				body.Close()
			}()
			if got := call(t, e, more).Header.Get("Grpc-Status"); got != "5" {
				t.Errorf("got status %q", got)
			}
			if line := j.await(t); line["hedges"] != 1.0 {
				t.Errorf("the log says %v", line)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if len(p.bodies) == 0 || p.bodies[len(p.bodies)-1] != "POST "+message {
				t.Errorf("asked were %q", p.bodies)
			}
		})
	}
	t.Run("a stream", func(t *testing.T) {
		p := startPack(t, 2, func(h http.HandlerFunc) *weirv1.Service {
			return h2Server(t, false, func(w http.ResponseWriter, r *http.Request) { // does not wait for the body
				p := &http.Request{Method: r.Method, Header: r.Header, Body: http.NoBody}
				h(w, p.WithContext(r.Context()))
			})
		})
		e, j := calls(t, p, 1)
		more, body := io.Pipe()
		go func() {
			io.WriteString(body, "one message, and then")
			time.Sleep(200 * time.Millisecond)
			p.release <- struct{}{}
		}()
		req := newRequest(t, "POST", "http://shop.example/shop.Orders/Find", more)
		req.Header.Set("Content-Type", "application/grpc")
		resp, err := e.h2Client(false).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		body.Close() // behind the answer
		resp.Body.Close()
		if line := j.await(t); line["hedges"] != nil || p.asked.Load() != 1 {
			t.Errorf("%d were asked; the log says %v", p.asked.Load(), line)
		}
	})
	t.Run("with too long a message", func(t *testing.T) {
		p := startPack(t, 2, byHTTP2(t))
		e, j := calls(t, p, 1)
		go func() { time.Sleep(200 * time.Millisecond); p.release <- struct{}{} }()
		call(t, e, strings.NewReader(strings.Repeat("message ", 10_000)))
		if line := j.await(t); line["hedges"] != nil || p.asked.Load() != 1 {
			t.Errorf("%d were asked; the log says %v", p.asked.Load(), line)
		}
	})
}

// A status that would be tried again is no answer to prefer.
func TestHedgedCallsThatFail(t *testing.T) {
	p := startPack(t, 3, byHTTP2(t))
	p.after = func(w http.ResponseWriter, r *http.Request) {
		callStatus(map[bool]int{true: 14, false: 5}[p.asked.Load() == 2])(w, r)
	}
	e, j := calls(t, p, 2)
	if got := call(t, e, strings.NewReader("message")).Header.Get("Grpc-Status"); got != "5" {
		t.Errorf("got status %q", got)
	}
	if line := j.await(t); line["hedges"] != 2.0 {
		t.Errorf("the log says %v", line)
	}
}
