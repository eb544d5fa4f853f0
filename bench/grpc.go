package main

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// method is what the upstream answers with as many bytes as by HTTP.
const method = "/bench.Books/Get"

// viaGRPC asks by gRPC, as grpc-go does.
type viaGRPC struct{ *grpc.ClientConn }

func newGRPC(address string) (client, error) {
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return viaGRPC{c}, nil
}

func (v viaGRPC) ask(ctx context.Context) error {
	// A call with a deadline would be ended by the upstream, too.
	ctx = context.WithoutCancel(ctx)
	var answer wrapperspb.BytesValue
	if err := v.Invoke(ctx, method, wrapperspb.String("17"), &answer); err != nil {
		return err
	}
	if len(answer.GetValue()) != bodySize {
		return fmt.Errorf("an answer of %d bytes", len(answer.GetValue()))
	}
	return nil
}

// serveGRPC answers every call alike.
func serveGRPC(ctx context.Context, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	answer := wrapperspb.Bytes(make([]byte, bodySize))
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var asked wrapperspb.StringValue
		if err := stream.RecvMsg(&asked); err != nil {
			return err
		}
		return stream.SendMsg(answer)
	}))
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(l)
}
