package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

// dialAdmin is a client of an open admin API. What the process declares by
// itself goes the way of all declarations.
func dialAdmin(address string) (api weirv1connect.AdminServiceClient, hangUp func()) {
	transport := new(http.Transport)
	client := connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, "http://"+address))
	return weirv1connect.NewAdminServiceClient(client), transport.CloseIdleConnections
}

// declareStarter declares a gateway to begin with, once: where one has declared
// anything ever, that stands.
func (p *process) declareStarter(s *server, address string, api weirv1connect.AdminServiceClient) error {
	if s.store.View().Revision() != 0 {
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("declare gateway: %w", err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("declare gateway: port %q: %w", port, err)
	}
	probe, err := net.Listen("tcp", address)
	if err != nil {
		p.log.Warn("no gateway was declared, since its port is taken; declare one of your own", "address", address, "error", err)
		return nil
	}
	if err := probe.Close(); err != nil {
		return fmt.Errorf("declare gateway: %w", err)
	}
	return declare(p.ctx, api, resource.Wrap(&weirv1.Gateway{
		Metadata: &weirv1.Metadata{Name: "public"},
		Spec: &weirv1.GatewaySpec{Listeners: []*weirv1.Listener{
			{Name: "http", Port: uint32(number), Address: host, Protocol: weirv1.Listener_HTTP},
		}},
	}))
}

func declare(ctx context.Context, api weirv1connect.AdminServiceClient, resources ...*weirv1.Resource) error {
	if _, err := api.Apply(ctx, &weirv1.ApplyRequest{Resources: resources}); err != nil {
		return fmt.Errorf("declare: %w", err)
	}
	return nil
}
