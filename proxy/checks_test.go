package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Servers of gRPC are asked by their own protocol, and calls go to those that
// say they are serving.
func TestChecksOfGRPC(t *testing.T) {
	var addresses []string
	var servers []*grpchealth.Server
	for i := range 2 {
		h := grpchealth.NewServer()
		h.SetServingStatus("shop.v1.Books", healthpb.HealthCheckResponse_SERVING)
		addresses, servers = append(addresses, grpcFarm(t, h, fmt.Sprint(i))), append(servers, h)
	}
	s := service("s", addresses...)
	s.Spec.Protocol = weirv1.ServiceSpec_HTTP2
	s.Spec.LoadBalancing = &weirv1.LoadBalancing{Policy: weirv1.LoadBalancing_ROUND_ROBIN}
	s.Spec.HealthCheck = &weirv1.HealthCheck{Interval: duration(100 * time.Millisecond), HealthyThreshold: 1, UnhealthyThreshold: 1,
		Grpc: &weirv1.GrpcHealthCheck{ServiceName: "shop.v1.Books"}}
	conn := grpcClient(t, startEdge(t, s, route("r", "/", "s")), false)
	answering := func() map[string]bool {
		by := map[string]bool{}
		for range 10 {
			answer := new(testgrpc.SimpleResponse)
			if err := conn.Invoke(t.Context(), "/x/Who", &testgrpc.Empty{}, answer); err != nil {
				return nil // none has been asked yet
			}
			by[answer.GetUsername()] = true
		}
		return by
	}
	used := func(want ...string) {
		t.Helper()
		waitFor(t, func() bool {
			by := answering()
			for _, w := range want {
				if !by[w] {
					return false
				}
			}
			return len(by) == len(want)
		}, func() string { return fmt.Sprintf("used are %v, want %v", answering(), want) })
	}
	used("0", "1")
	servers[0].SetServingStatus("shop.v1.Books", healthpb.HealthCheckResponse_NOT_SERVING)
	used("1")
	servers[0].SetServingStatus("shop.v1.Books", healthpb.HealthCheckResponse_SERVING)
	used("0", "1")
}

// grpcFarm starts a server that answers any call with its name.
func grpcFarm(t *testing.T, h *grpchealth.Server, name string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(new(testgrpc.Empty)); err != nil && err != io.EOF {
			return status.Error(codes.Internal, err.Error())
		}
		return stream.SendMsg(&testgrpc.SimpleResponse{Username: name})
	}))
	healthpb.RegisterHealthServer(s, h)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }() // until it is stopped
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String()
}

// A check takes no place among the connections that an endpoint may have.
func TestChecksCountForNoLimit(t *testing.T) {
	var checks atomic.Int64
	busy := make(chan struct{})
	addr := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			checks.Add(1)
			return
		}
		<-busy
	})
	none := uint32(0)
	s := service("s", addr)
	s.Spec.Limits = &weirv1.Limits{MaxConnections: 1, MaxPendingRequests: &none, MaxRequests: 1}
	s.Spec.HealthCheck = &weirv1.HealthCheck{Interval: duration(100 * time.Millisecond), Http: &weirv1.HttpHealthCheck{Path: "/healthz"}}
	e := startEdge(t, s, route("r", "/", "s"))
	waitFor(t, func() bool { return checks.Load() > 0 }, func() string { return "nobody is asked" })
	answered := make(chan int)
	go func() {
		resp, err := http.Get(e.url("/")) // it waits while checks go on
		if err != nil {
			answered <- 0
			return
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	before := checks.Load()
	waitFor(t, func() bool { return checks.Load() > before+3 }, func() string { return "the checks wait for the request" })
	close(busy)
	if status := <-answered; status != 200 {
		t.Errorf("got %d", status)
	}
}
