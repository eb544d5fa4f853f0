package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

const (
	defaultTTL = time.Hour
	maxTTL     = 30 * 24 * time.Hour
)

func (s *service) CreateJoinToken(ctx context.Context, req *weirv1.CreateJoinTokenRequest) (*weirv1.CreateJoinTokenResponse, error) {
	switch req.GetRole() {
	case weirv1.CreateJoinTokenRequest_SERVER, weirv1.CreateJoinTokenRequest_EDGE, weirv1.CreateJoinTokenRequest_SIDECAR:
	default:
		return nil, invalid("role", "is required: SERVER, EDGE or SIDECAR")
	}
	ttl := defaultTTL
	if req.GetTtl() != nil {
		ttl = req.GetTtl().AsDuration()
	}
	if ttl <= 0 || ttl > maxTTL {
		return nil, invalid("ttl", "must be more than 0s and at most %s, not %s", maxTTL, ttl)
	}
	made := NewJoinToken{Role: req.GetRole(), TTL: ttl, Uses: req.GetUses(), Tenant: req.GetTenant(), Service: req.GetService(), Actor: Actor(ctx)}
	if err := checkSpokenFor(&made); err != nil {
		return nil, err
	}
	return s.createJoinToken(ctx, made)
}

// checkSpokenFor: sidecars, and they alone, speak for a service. It need not be there
// yet.
func checkSpokenFor(n *NewJoinToken) error {
	if n.Role != weirv1.CreateJoinTokenRequest_SIDECAR {
		switch {
		case n.Service != "":
			return invalid("service", "is for sidecars alone")
		case n.Tenant != "":
			return invalid("tenant", "is for sidecars alone")
		}
		return nil
	}
	if n.Service == "" {
		return invalid("service", "is required: the service that the sidecars speak for")
	}
	n.Tenant = cmp.Or(n.Tenant, resource.DefaultTenant)
	for field, name := range map[string]string{"service": n.Service, "tenant": n.Tenant} {
		if err := identity.ValidName(name); err != nil {
			return invalid(field, "%s", err)
		}
	}
	return nil
}

func (s *service) createJoinToken(ctx context.Context, n NewJoinToken) (*weirv1.CreateJoinTokenResponse, error) {
	within, cancel := s.deciding(ctx)
	defer cancel()
	made, err := s.JoinTokens.Create(within, n)
	if err != nil {
		return nil, fmt.Errorf("create join token: %w", undecided(ctx, err))
	}
	s.Logger.Info("join token created", "actor", Actor(ctx), "id", made.ID, "role", n.Role.String(), "service", n.Service, "uses", n.Uses, "expires", made.Expires)
	return &weirv1.CreateJoinTokenResponse{Token: made.Token, Id: made.ID, ExpireTime: timestamppb.New(made.Expires)}, nil
}

func (o operator) ListJoinTokens(ctx context.Context, _ *weirv1.ListJoinTokensRequest) (*weirv1.ListJoinTokensResponse, error) {
	tokens, err := o.JoinTokens.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list join tokens: %w", err)
	}
	tokens = slices.SortedStableFunc(slices.Values(tokens), func(a, b *weirv1.JoinToken) int {
		return a.GetCreateTime().AsTime().Compare(b.GetCreateTime().AsTime())
	})
	return &weirv1.ListJoinTokensResponse{Tokens: tokens}, nil
}

func (o operator) RevokeJoinToken(ctx context.Context, req *weirv1.RevokeJoinTokenRequest) (*weirv1.RevokeJoinTokenResponse, error) {
	if req.GetId() == "" {
		return nil, invalid("id", "is required: which token is to be revoked?")
	}
	within, cancel := o.deciding(ctx)
	defer cancel()
	if err := o.JoinTokens.Revoke(within, req.GetId()); err != nil {
		return nil, fmt.Errorf("revoke join token %s: %w", req.GetId(), undecided(ctx, err))
	}
	o.Logger.Info("join token revoked", "actor", Actor(ctx), "id", req.GetId())
	return &weirv1.RevokeJoinTokenResponse{}, nil
}
