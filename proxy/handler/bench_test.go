package handler_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/proxy/handler"
)

type echo struct {
	weirv1connect.UnimplementedAdminServiceHandler
}

func (echo) Get(_ context.Context, r *weirv1.GetRequest) (*weirv1.GetResponse, error) {
	return &weirv1.GetResponse{Resource: &weirv1.Resource{Kind: &weirv1.Resource_Service{Service: &weirv1.Service{
		Metadata: &weirv1.Metadata{Name: r.GetRef().GetName()}}}}}, nil
}

// What a call by gRPC costs, with its client: with net/http's HTTP/2 server and
// with this one.
func BenchmarkCall(b *testing.B) {
	for name, configure := range map[string]func(*http.Server){
		"net-http": func(*http.Server) {},
		"handler":  func(s *http.Server) { handler.Configure(s, slog.New(slog.DiscardHandler)) },
	} {
		b.Run(name, func(b *testing.B) { benchmarkCall(b, configure) })
	}
}

func benchmarkCall(b *testing.B, configure func(*http.Server)) {
	rpc := connect.NewServer()
	weirv1connect.RegisterAdminServiceHandler(rpc, echo{})
	mux := http.NewServeMux()
	connecthttp.Mount(mux, rpc)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: mux, TLSConfig: certified(b), ReadHeaderTimeout: 1e10, IdleTimeout: 1e11}
	configure(server)
	go func() { _ = server.ServeTLS(l, "", "") }()
	b.Cleanup(func() { _ = server.Close() })
	var conns []*grpc.ClientConn
	for range 4 {
		c, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		conns = append(conns, c)
	}
	name := strings.Repeat("n", 500)
	before := processorTime()
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			request := &weirv1.GetRequest{Ref: &weirv1.ResourceRef{Kind: "Service", Name: name}}
			if err := conns[i%4].Invoke(b.Context(), weirv1connect.AdminServiceGetProcedure, request, new(weirv1.GetResponse)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(processorTime()-before)/1e3/float64(b.N), "cpu-µs/op")
}

func processorTime() int64 {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return usage.Utime.Nano() + usage.Stime.Nano()
}
