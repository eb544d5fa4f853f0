package admin

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"
	health "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

const healthService = "grpc.health.v1.Health"

// registerHealth serves grpc.health.v1.Health over its own messages. A watch
// looks again every few seconds: nobody tells it.
func registerHealth(server *connect.Server, ready func(context.Context) error) {
	const interval = 5 * time.Second
	check := func(ctx context.Context, req *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
		switch req.GetService() {
		case "", weirv1connect.AdminServiceName, weirv1connect.ClusterServiceName, healthService:
		default:
			return nil, connect.Errorf(connect.CodeNotFound, "there is no service %q", req.GetService())
		}
		if ready(ctx) != nil {
			return &health.HealthCheckResponse{Status: health.HealthCheckResponse_NOT_SERVING}, nil
		}
		return &health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVING}, nil
	}
	methods := health.File_grpc_health_v1_health_proto.Services().ByName("Health").Methods()
	server.Register(connect.Method{
		Spec: connect.Spec{StreamType: connect.StreamTypeUnary, Schema: methods.ByName("Check"), Procedure: health.Health_Check_FullMethodName},
		Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
			req := new(health.HealthCheckRequest)
			if err := stream.Receive(req); err != nil {
				return err
			}
			res, err := check(ctx, req)
			if err != nil {
				return err
			}
			return stream.Send(res)
		},
	}, connect.Method{
		Spec: connect.Spec{StreamType: connect.StreamTypeServer, Schema: methods.ByName("Watch"), Procedure: health.Health_Watch_FullMethodName},
		Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
			req := new(health.HealthCheckRequest)
			if err := stream.Receive(req); err != nil {
				return err
			}
			last := health.HealthCheckResponse_UNKNOWN
			tick := time.NewTicker(interval)
			defer tick.Stop()
			for {
				res, err := check(ctx, req)
				if err != nil {
					res = &health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVICE_UNKNOWN}
				}
				if res.GetStatus() != last {
					if err := stream.Send(res); err != nil {
						return err
					}
					last = res.GetStatus()
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		},
	})
}
