package proxy_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// What Weir itself answers to a call, its client understands.
func TestOwnAnswersToGRPC(t *testing.T) {
	silent := mute(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	gone := service("gone", "127.0.0.1:1")
	gone.Spec.Protocol = weirv1.ServiceSpec_HTTP2
	slow := h2Server(t, false, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	slow.Metadata.Name = "slow"
	dumb := service("dumb", silent)
	dumb.Spec.Protocol, dumb.Spec.ConnectTimeout = weirv1.ServiceSpec_HTTP2, duration(50*time.Millisecond)
	e := startEdge(t, gone, slow, dumb, service("none"),
		route("gone", "/gone", "gone"), route("none", "/none", "none"), route("dumb", "/dumb", "dumb"),
		route("slow", "/slow", "slow", func(r *weirv1.RouteRule) {
			r.Timeouts = &weirv1.RouteTimeouts{Request: duration(50 * time.Millisecond)}
		}),
		route("patient", "/patient", "slow"))
	conn := grpcClient(t, e, false)
	for method, want := range map[string]struct {
		code    codes.Code
		message string
	}{
		"/nowhere/Call": {codes.Unimplemented, "No route matches this request."},
		"/gone/Call":    {codes.Unavailable, "The service could not be reached."},
		"/dumb/Call":    {codes.Unavailable, "The service could not be reached in time."},
		"/none/Call":    {codes.Unavailable, "The service has no endpoint."},
		"/slow/Call":    {codes.Unavailable, "The service did not answer in time."},
	} {
		t.Run(method, func(t *testing.T) {
			err := conn.Invoke(t.Context(), method, &testgrpc.Empty{}, &testgrpc.Empty{})
			if s := status.Convert(err); s.Code() != want.code || s.Message() != want.message {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("the client's own deadline", func(t *testing.T) {
		resp := callFor(t, e, "/patient/Call", "50m")
		if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "4" || resp.Header.Get("Content-Type") != "application/grpc" {
			t.Errorf("got %s, %v", resp.Status, resp.Header)
		}
	})
	t.Run("gRPC-Web is answered by a problem", func(t *testing.T) {
		req := newRequest(t, "POST", e.url("/nowhere"), nil)
		req.Header.Set("Content-Type", "application/grpc-web+proto")
		if resp, body := do(t, http.DefaultClient, req); resp.StatusCode != 404 || !strings.Contains(body, "no_route") {
			t.Errorf("got %s, %q", resp.Status, body)
		}
	})
}

// callFor begins a call whose client gives it so much time, and does not itself
// look at the clock.
func callFor(t *testing.T, e *edge, path, timeout string) *http.Response {
	t.Helper()
	req := newRequest(t, "POST", "http://shop.example"+path, nil)
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	req.Header.Set("Grpc-Timeout", timeout)
	resp, _ := do(t, e.h2Client(false), req)
	return resp
}

// A service sees that its client takes trailers, and what time there is.
func TestWhatACallBringsAlong(t *testing.T) {
	e := startEdge(t, h2Server(t, false, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Seen", r.Header.Get("Te")+" "+r.Header.Get("Grpc-Timeout")+" "+r.Header.Get("Content-Type"))
	}), route("r", "/", "s"))
	if got := callFor(t, e, "/", "5S").Header.Get("X-Seen"); got != "trailers 5S application/grpc" {
		t.Errorf("saw %q", got)
	}
}

// A call that its client gives up ends at the service, and one that the service
// gives up ends at the client.
func TestCallsAreCancelledBothWays(t *testing.T) {
	over := make(chan error, 1)
	begun := make(chan struct{}, 1)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		stream.SendHeader(metadata.Pairs("x", "y"))
		begun <- struct{}{}
		if method, _ := grpc.Method(stream.Context()); method == "/s/Abort" {
			return status.Error(codes.Aborted, "enough")
		}
		<-stream.Context().Done()
		over <- stream.Context().Err()
		return nil
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(server.Stop)
	s := service("s", l.Addr().String())
	s.Spec.Protocol = weirv1.ServiceSpec_HTTP2
	e := startEdge(t, s, route("r", "/", "s"))
	conn := grpcClient(t, e, false)
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}

	ctx, cancel := context.WithCancel(t.Context())
	stream, err := conn.NewStream(ctx, desc, "/s/Wait")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	<-begun
	cancel()
	if err := <-over; err != context.Canceled {
		t.Errorf("the service saw %v", err)
	}

	if stream, err = conn.NewStream(t.Context(), desc, "/s/Abort"); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&testgrpc.Empty{}); status.Code(err) != codes.Aborted || status.Convert(err).Message() != "enough" {
		t.Errorf("the client saw %v", err)
	}
}

// mute is a server that says nothing by itself: f has each connection.
func mute(t testing.TB, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return l.Addr().String()
}

// h2Origin is a service that speaks frames; each connection runs the script.
func h2Origin(t *testing.T, script func(f *http2.Framer, c net.Conn, number int)) *weirv1.Service {
	t.Helper()
	var n atomic.Int64
	s := service("s", mute(t, func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(c, c)
		f.WriteSettings()
		script(f, c, int(n.Add(1)))
	}))
	s.Spec.Protocol = weirv1.ServiceSpec_HTTP2
	return s
}

// nextRequest waits for the end of a request.
func nextRequest(f *http2.Framer) (stream uint32, ok bool) {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return 0, false
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				f.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			if frame.StreamEnded() {
				return frame.StreamID, true
			}
		case *http2.DataFrame:
			if frame.StreamEnded() {
				return frame.StreamID, true
			}
		}
	}
}

func answerHead(f *http2.Framer, stream uint32) {
	var block strings.Builder
	hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(block.String()), EndHeaders: true, EndStream: true})
}

// What a service has refused to look at is sent again, whatever it is.
func TestRefusedRequestsAreSentAgain(t *testing.T) {
	for name, refuse := range map[string]func(f *http2.Framer, stream uint32){
		"REFUSED_STREAM": func(f *http2.Framer, stream uint32) { f.WriteRSTStream(stream, http2.ErrCodeRefusedStream) },
		"GOAWAY":         func(f *http2.Framer, _ uint32) { f.WriteGoAway(0, http2.ErrCodeNo, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			e := startEdge(t, h2Origin(t, func(f *http2.Framer, _ net.Conn, number int) {
				for {
					stream, ok := nextRequest(f)
					if !ok {
						return
					}
					if asked.Add(1) == 1 {
						refuse(f, stream)
					} else {
						answerHead(f, stream)
					}
				}
			}), route("r", "/", "s"))
			resp, _ := do(t, e.h2Client(false), newRequest(t, "POST", "http://shop.example/", strings.NewReader("hello")))
			if resp.StatusCode != 200 || asked.Load() != 2 {
				t.Errorf("got %s after %d tries", resp.Status, asked.Load())
			}
		})
	}
	t.Run("for ever", func(t *testing.T) {
		var asked atomic.Int64
		e := startEdge(t, h2Origin(t, func(f *http2.Framer, _ net.Conn, _ int) {
			for stream, ok := nextRequest(f); ok; stream, ok = nextRequest(f) {
				asked.Add(1)
				f.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
			}
		}), route("r", "/", "s"))
		resp, body := do(t, e.h2Client(false), newRequest(t, "POST", "http://shop.example/", strings.NewReader("hello")))
		if resp.StatusCode != 503 || !strings.Contains(body, "upstream_refused") || asked.Load() != 3 {
			t.Errorf("got %s, %q after %d tries", resp.Status, body, asked.Load())
		}
	})
	t.Run("a reset is no refusal", func(t *testing.T) {
		var asked atomic.Int64
		e := startEdge(t, h2Origin(t, func(f *http2.Framer, _ net.Conn, _ int) {
			for stream, ok := nextRequest(f); ok; stream, ok = nextRequest(f) {
				asked.Add(1)
				f.WriteRSTStream(stream, http2.ErrCodeInternal)
			}
		}), route("r", "/", "s"))
		resp, body := do(t, e.h2Client(false), newRequest(t, "POST", "http://shop.example/", strings.NewReader("hello")))
		if resp.StatusCode != 502 || !strings.Contains(body, "upstream_failed") || asked.Load() != 1 {
			t.Errorf("got %s, %q after %d tries", resp.Status, body, asked.Load())
		}
	})
}

// A connection that the service closes between two requests costs none of them.
func TestServicesSayGoodbye(t *testing.T) {
	e := startEdge(t, h2Origin(t, func(f *http2.Framer, c net.Conn, _ int) {
		if stream, ok := nextRequest(f); ok {
			answerHead(f, stream)
			f.WriteGoAway(stream, http2.ErrCodeNo, nil)
			io.Copy(io.Discard, c)
		}
	}), route("r", "/", "s"))
	client := e.h2Client(false)
	for range 20 {
		if resp, body := do(t, client, newRequest(t, "POST", "http://shop.example/", strings.NewReader("hello"))); resp.StatusCode != 200 {
			t.Fatalf("got %s, %q", resp.Status, body)
		}
	}
}

// A call is tried again by its status, where the route says so.
func TestCallsAreTriedAgain(t *testing.T) {
	var asked atomic.Int64
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(&testgrpc.Empty{}); err != nil {
			return err
		}
		n := asked.Add(1)
		method, _ := grpc.Method(stream.Context())
		switch {
		case n > 2:
			return stream.SendMsg(&testgrpc.Empty{})
		case method == "/s/Begun":
			stream.SendMsg(&testgrpc.Empty{})
			return status.Error(codes.Unavailable, "later")
		case method == "/s/Other":
			return status.Error(codes.FailedPrecondition, "never")
		}
		return status.Error(codes.Unavailable, "later")
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(server.Stop)
	s := service("s", l.Addr().String())
	s.Spec.Protocol = weirv1.ServiceSpec_HTTP2
	e := startEdge(t, s, route("r", "/", "s", func(r *weirv1.RouteRule) {
		r.Retry = &weirv1.RouteRetry{Attempts: 3, GrpcStatuses: []weirv1.RouteRetry_GrpcStatus{weirv1.RouteRetry_UNAVAILABLE}}
	}))
	conn := grpcClient(t, e, false)
	for method, want := range map[string]struct {
		code  codes.Code
		tries int64
	}{
		"/s/Call":  {codes.OK, 3},
		"/s/Begun": {codes.Unavailable, 1},
		"/s/Other": {codes.FailedPrecondition, 1},
	} {
		asked.Store(0)
		err := conn.Invoke(t.Context(), method, &testgrpc.Empty{}, &testgrpc.Empty{})
		if status.Code(err) != want.code || asked.Load() != want.tries {
			t.Errorf("%s: %v after %d tries", method, err, asked.Load())
		}
	}
}
