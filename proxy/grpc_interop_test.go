package proxy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
)

// failing makes of what the interop client dies of a test that fails.
type failing struct{ grpclog.LoggerV2 }

type fatal string

func (failing) FatalDepth(_ int, args ...any) { panic(fatal(fmt.Sprint(args...))) }
func (failing) Fatal(args ...any)             { panic(fatal(fmt.Sprint(args...))) }
func (failing) Fatalln(args ...any)           { panic(fatal(fmt.Sprint(args...))) }
func (failing) Fatalf(f string, args ...any)  { panic(fatal(fmt.Sprintf(f, args...))) }

func (failing) InfoDepth(int, ...any)    {}
func (failing) WarningDepth(int, ...any) {}
func (failing) ErrorDepth(int, ...any)   {}

func init() {
	grpclog.SetLoggerV2(failing{grpclog.NewLoggerV2(discard{}, discard{}, discard{})})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// grpcService is grpc-go's interop server.
func grpcService(t testing.TB) *weirv1.Service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	recorder := orca.NewServerMetricsRecorder()
	server := grpc.NewServer(orca.CallMetricsServerOption(recorder))
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer(interop.NewTestServerOptions{MetricsRecorder: recorder}))
	if err := orca.Register(server, orca.ServiceOptions{ServerMetricsProvider: recorder, MinReportingInterval: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(server.Stop)
	s := service("s", l.Addr().String())
	s.Spec.Protocol = weirv1.ServiceSpec_HTTP2
	return s
}

func grpcClient(t testing.TB, e *edge, secure bool, more ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(&tls.Config{RootCAs: testAuthority().pool(), ServerName: "shop.example"})
	}
	conn, err := grpc.NewClient("passthrough:///"+e.addr, append(more, grpc.WithTransportCredentials(creds), grpc.WithAuthority("shop.example"))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// The interop cases of grpc-go that need no account of Google's, its client and
// its server with the edge between them.
func TestGRPCInterop(t *testing.T) {
	both(t, func(t *testing.T, secure bool, _ string) {
		e := startBoth(t, secure, func(*proxy.Config) {}, grpcService(t), route("r", "/", "s"))
		conn := grpcClient(t, e, secure)
		loads := grpcClient(t, e, secure, grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`))
		tc := testgrpc.NewTestServiceClient(conn)
		for name, run := range map[string]func(context.Context){
			"empty_unary":                 func(ctx context.Context) { interop.DoEmptyUnaryCall(ctx, tc) },
			"large_unary":                 func(ctx context.Context) { interop.DoLargeUnaryCall(ctx, tc) },
			"client_streaming":            func(ctx context.Context) { interop.DoClientStreaming(ctx, tc) },
			"server_streaming":            func(ctx context.Context) { interop.DoServerStreaming(ctx, tc) },
			"ping_pong":                   func(ctx context.Context) { interop.DoPingPong(ctx, tc) },
			"empty_stream":                func(ctx context.Context) { interop.DoEmptyStream(ctx, tc) },
			"timeout_on_sleeping_server":  func(ctx context.Context) { interop.DoTimeoutOnSleepingServer(ctx, tc) },
			"cancel_after_begin":          func(ctx context.Context) { interop.DoCancelAfterBegin(ctx, tc) },
			"cancel_after_first_response": func(ctx context.Context) { interop.DoCancelAfterFirstResponse(ctx, tc) },
			"custom_metadata":             func(ctx context.Context) { interop.DoCustomMetadata(ctx, tc) },
			"status_code_and_message":     func(ctx context.Context) { interop.DoStatusCodeAndMessage(ctx, tc) },
			"special_status_message":      func(ctx context.Context) { interop.DoSpecialStatusMessage(ctx, tc) },
			"unimplemented_method":        func(ctx context.Context) { interop.DoUnimplementedMethod(ctx, conn) },
			"unimplemented_service": func(ctx context.Context) {
				interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
			},
			"orca_per_rpc": func(ctx context.Context) { interop.DoORCAPerRPCTest(ctx, testgrpc.NewTestServiceClient(loads)) },
			"orca_oob":     func(ctx context.Context) { interop.DoORCAOOBTest(ctx, testgrpc.NewTestServiceClient(loads)) },
			"rpc_soak": func(ctx context.Context) {
				interop.DoSoakTest(ctx, interop.SoakTestConfig{
					RequestSize: 271828, ResponseSize: 314159, PerIterationMaxAcceptableLatency: time.Minute,
					OverallTimeout: 2 * time.Minute, ServerAddr: e.addr, NumWorkers: 4, Iterations: 20,
					ChannelForTest: func() (*grpc.ClientConn, func()) { return conn, func() {} }})
			},
		} {
			t.Run(name, func(t *testing.T) {
				defer func() {
					if p := recover(); p != nil {
						t.Fatal(p)
					}
				}()
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				run(ctx)
			})
		}
	})
}
