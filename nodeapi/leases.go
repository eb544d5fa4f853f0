package nodeapi

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// Leases decides what proxies ask for of limits. An error says that nothing may have
// been decided, and the proxy asks anew.
type Leases interface {
	Grant(ctx context.Context, node string, m *weirv1.LeaseTokensRequest) (*weirv1.LeaseTokensResponse, error)
}

const (
	// maxLeaseAsks bounds one request of a proxy.
	maxLeaseAsks = 512
	// maxLeaseCalls bounds those that wait for a decision here.
	maxLeaseCalls = 4096
)

// LeaseTokens lets a proxy admit requests of limits by itself.
func (s *Server) LeaseTokens(ctx context.Context, m *weirv1.LeaseTokensRequest) (*weirv1.LeaseTokensResponse, error) {
	c, err := s.liveProxy(ctx)
	switch {
	case err != nil:
		return nil, err
	case s.cfg.Leases == nil:
		return nil, connect.NewError(connect.CodeUnimplemented, "this server leases no tokens")
	case len(m.GetAsks()) > maxLeaseAsks:
		return nil, connect.Errorf(connect.CodeInvalidArgument, "%d limits are asked for at once; the most is %d", len(m.GetAsks()), maxLeaseAsks)
	case m.GetEpoch() == 0 || m.GetSequence() == 0:
		return nil, connect.NewError(connect.CodeInvalidArgument, "a request for tokens has an epoch and a sequence")
	}
	for _, ask := range m.GetAsks() {
		if !c.mayCount(ask.GetTenant()) {
			return nil, connect.Errorf(connect.CodePermissionDenied, "%s has no limits of tenant %q", c.id, ask.GetTenant())
		}
	}
	select {
	case s.leasing <- struct{}{}:
		defer func() { <-s.leasing }()
	default:
		return nil, connect.NewError(connect.CodeUnavailable, "as many proxies wait for tokens here as may; try another server")
	}
	answer, err := s.cfg.Leases.Grant(ctx, c.node(), m)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, "no tokens can be leased now: "+err.Error()).WithCause(err)
	}
	return answer, nil
}

// mayCount tells whether a proxy may have to do with a tenant's consumers: an edge with
// all, a sidecar with its own.
func (c caller) mayCount(tenant string) bool {
	return c.id.Role != identity.RoleSidecar || tenant == c.id.Tenant
}

// leasePatience is how long one server is waited for: requests wait for the answer, and
// another server may be better off.
const leasePatience = 600 * time.Millisecond

// LeaseTokens asks the servers for tokens. To be asked twice changes nothing.
func (c *Client) LeaseTokens(ctx context.Context, m *weirv1.LeaseTokensRequest) (answer *weirv1.LeaseTokensResponse, err error) {
	err = c.ask(ctx, func(ctx context.Context, api weirv1connect.NodeServiceClient) error {
		ctx, cancel := context.WithTimeout(ctx, leasePatience)
		defer cancel()
		answer, err = api.LeaseTokens(ctx, m)
		return err
	})
	return answer, err
}
