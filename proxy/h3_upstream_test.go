package proxy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
)

// h3Server is quic-go's HTTP/3 as a service.
func h3Server(t testing.TB, h http.HandlerFunc, change ...func(*http3.Server)) *weirv1.Service {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	issued := testAuthority().issue(t, ecKey(t), "service.example")
	server := &http3.Server{Handler: h, TLSConfig: &tls.Config{Certificates: []tls.Certificate{issued}}}
	for _, c := range change {
		c(server)
	}
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(socket) }) // until it is closed
	t.Cleanup(func() {
		server.Close()
		socket.Close()
		done.Wait()
	})
	s := service("s", socket.LocalAddr().String())
	s.Spec.Protocol = weirv1.ServiceSpec_HTTP3
	s.Spec.Tls = &weirv1.UpstreamTLS{Hostname: "service.example", CaCertificates: testAuthority().pem()}
	return s
}

// Services of HTTP/3 must prove who they are, as all that speak TLS.
func TestHTTP3ServiceIsVerified(t *testing.T) {
	s := h3Server(t, func(http.ResponseWriter, *http.Request) {})
	s.Spec.Tls.CaCertificates = newAuthority("Stranger").pem()
	e := startEdge(t, s, route("r", "/", "s"))
	if resp, body := get(t, e.url("/")); resp.StatusCode != 503 {
		t.Errorf("got %s %s", resp.Status, body)
	}
}

// Where a service lets in few streams at once, more connections are made.
func TestHTTP3ServiceWithFewStreams(t *testing.T) {
	const n = 40
	var here atomic.Int32
	var conns sync.Map
	all := make(chan struct{})
	s := h3Server(t, func(w http.ResponseWriter, r *http.Request) {
		conns.Store(r.RemoteAddr, true)
		if here.Add(1) == n {
			close(all)
		}
		<-all // every request is here before one is answered
		io.WriteString(w, r.URL.Path)
	}, func(s *http3.Server) { s.QUICConfig = &quic.Config{MaxIncomingStreams: 5} })
	e := startEdge(t, s, route("r", "/", "s"))
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			path := fmt.Sprintf("/%d", i)
			if resp, body := get(t, e.url(path)); body != path {
				t.Errorf("%s got %s %q", path, resp.Status, body)
			}
		})
	}
	wait.Wait()
	made := 0
	for range conns.Range {
		made++
	}
	if made != n/5 {
		t.Errorf("%d requests at once, five a connection, took %d connections", n, made)
	}
}

// A service that is stopped lets what it was asked end; what comes later goes by
// another connection, or is told that there is none.
func TestHTTP3ServiceGoesAway(t *testing.T) {
	var server *http3.Server
	asked, finish := make(chan struct{}, 1), make(chan struct{})
	s := h3Server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			asked <- struct{}{}
			<-finish
		}
		io.WriteString(w, "ok")
	}, func(s *http3.Server) { server = s })
	e := startEdge(t, s, route("r", "/", "s"), route("other", "/other", "s", func(r *weirv1.RouteRule) {
		r.Timeouts = &weirv1.RouteTimeouts{Request: duration(100 * time.Millisecond)}
	}))
	answered := make(chan string, 1)
	go func() {
		_, body := get(t, e.url("/wait"))
		answered <- body
	}()
	<-asked
	stopped := make(chan error, 1)
	go func() { stopped <- server.Shutdown(context.Background()) }()
	waitFor(t, func() bool { resp, _ := get(t, e.url("/other")); return resp.StatusCode == 504 }, func() string { return "it is still asked" })
	close(finish)
	if body := <-answered; body != "ok" {
		t.Errorf("the request under way got %q", body)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// gRPC over HTTP/3: grpc-go's server behind quic-go's, its client before the edge.
func TestGRPCOverHTTP3(t *testing.T) {
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	s := h3Server(t, func(w http.ResponseWriter, r *http.Request) {
		r.ProtoMajor, r.Proto = 2, "HTTP/2.0" // it wants nothing else of that
		server.ServeHTTP(w, r)
	})
	e := startBoth(t, false, func(*proxy.Config) {}, s, route("r", "/", "s"))
	tc := testgrpc.NewTestServiceClient(grpcClient(t, e, false))
	for name, run := range map[string]func(context.Context){
		"empty_unary":                func(ctx context.Context) { interop.DoEmptyUnaryCall(ctx, tc) },
		"large_unary":                func(ctx context.Context) { interop.DoLargeUnaryCall(ctx, tc) },
		"client_streaming":           func(ctx context.Context) { interop.DoClientStreaming(ctx, tc) },
		"server_streaming":           func(ctx context.Context) { interop.DoServerStreaming(ctx, tc) },
		"ping_pong":                  func(ctx context.Context) { interop.DoPingPong(ctx, tc) },
		"empty_stream":               func(ctx context.Context) { interop.DoEmptyStream(ctx, tc) },
		"timeout_on_sleeping_server": func(ctx context.Context) { interop.DoTimeoutOnSleepingServer(ctx, tc) },
		"cancel_after_begin":         func(ctx context.Context) { interop.DoCancelAfterBegin(ctx, tc) },
		"cancel_after_first":         func(ctx context.Context) { interop.DoCancelAfterFirstResponse(ctx, tc) },
		"status_code_and_message":    func(ctx context.Context) { interop.DoStatusCodeAndMessage(ctx, tc) },
		"special_status_message":     func(ctx context.Context) { interop.DoSpecialStatusMessage(ctx, tc) },
		"custom_metadata":            func(ctx context.Context) { interop.DoCustomMetadata(ctx, tc) },
		"unimplemented_method":       func(context.Context) { interop.DoUnimplementedMethod(context.Background(), grpcClient(t, e, false)) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if p := recover(); p != nil {
					t.Error(p)
				}
			}()
			run(t.Context())
		})
	}
}
