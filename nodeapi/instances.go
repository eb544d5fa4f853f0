package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// Instances is the registry of what sidecars speak for. It is the node's to see that
// an instance is declared as its sidecar says, and to take away those whose sidecars
// are gone.
type Instances interface {
	// Register declares the instance of a sidecar, or changes it.
	Register(ctx context.Context, sidecar identity.ID, spec *weirv1.InstanceSpec) error
	// Withdraw takes it away; it need not be there.
	Withdraw(ctx context.Context, sidecar identity.ID) error
}

// ErrInstance is the cause when what a sidecar says of its instance is refused.
var ErrInstance = errors.New("instance refused")

// RegisterInstance implements the service. Whose instance it is stands in the
// certificate alone.
func (s *Server) RegisterInstance(ctx context.Context, m *weirv1.RegisterInstanceRequest) (*weirv1.RegisterInstanceResponse, error) {
	c, err := s.sidecar(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkInstance(m); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err.Error())
	}
	spec := &weirv1.InstanceSpec{Service: c.id.Service, Node: c.id.Name, Address: m.GetAddress(), Labels: m.GetLabels(), Unhealthy: m.GetUnhealthy()}
	if err := s.cfg.Instances.Register(ctx, c.id, spec); err != nil {
		return nil, s.instanceError(c, err)
	}
	return &weirv1.RegisterInstanceResponse{}, nil
}

// WithdrawInstance implements the service.
func (s *Server) WithdrawInstance(ctx context.Context, _ *weirv1.WithdrawInstanceRequest) (*weirv1.WithdrawInstanceResponse, error) {
	c, err := s.sidecar(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Instances.Withdraw(ctx, c.id); err != nil {
		return nil, s.instanceError(c, err)
	}
	return &weirv1.WithdrawInstanceResponse{}, nil
}

// sidecar is the caller if it is one, and has not been removed.
func (s *Server) sidecar(ctx context.Context) (*caller, error) {
	c, err := s.liveProxy(ctx)
	if err != nil {
		return nil, err
	}
	if c.id.Role != identity.RoleSidecar {
		return nil, connect.Errorf(connect.CodePermissionDenied, "%s is no sidecar", c.id)
	}
	if s.cfg.Instances == nil {
		return nil, connect.NewError(connect.CodeUnimplemented, "this server keeps no registry")
	}
	return c, nil
}

func checkInstance(m *weirv1.RegisterInstanceRequest) error {
	host, port, err := net.SplitHostPort(m.GetAddress())
	number, bad := strconv.ParseUint(port, 10, 16)
	ip := net.ParseIP(host)
	if err != nil || bad != nil || number == 0 || host == "" || len(m.GetAddress()) > maxAddress || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("%q is no HOST:PORT at which others reach the instance", truncate(m.GetAddress(), maxAddress))
	}
	return checkSubscribe(&weirv1.Subscribe{Labels: m.GetLabels()})
}

func (s *Server) instanceError(c *caller, err error) error {
	if errors.Is(err, ErrInstance) {
		return connect.NewError(connect.CodeFailedPrecondition, err.Error())
	}
	s.cfg.Logger.Warn("instance not recorded", "sidecar", c.id.Name, "id", c.id.String(), "error", err)
	return connect.NewError(connect.CodeUnavailable, "the instance cannot be recorded now").WithCause(err)
}

// Register says where this sidecar's instance is, and how it is.
func (c *Client) Register(ctx context.Context, m *weirv1.RegisterInstanceRequest) error {
	return c.ask(ctx, func(ctx context.Context, api weirv1connect.NodeServiceClient) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		_, err := api.RegisterInstance(ctx, m)
		return err
	})
}

// Withdraw takes the instance away.
func (c *Client) Withdraw(ctx context.Context) error {
	return c.ask(ctx, func(ctx context.Context, api weirv1connect.NodeServiceClient) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		_, err := api.WithdrawInstance(ctx, &weirv1.WithdrawInstanceRequest{})
		return err
	})
}
