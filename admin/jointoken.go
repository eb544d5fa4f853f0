package admin

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
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
	within, cancel := s.deciding(ctx)
	defer cancel()
	made, err := s.JoinTokens.Create(within, NewJoinToken{Role: req.GetRole(), TTL: ttl, Uses: req.GetUses(), Actor: Actor(ctx)})
	if err != nil {
		return nil, fmt.Errorf("create join token: %w", undecided(ctx, err))
	}
	s.Logger.Info("join token created", "actor", Actor(ctx), "id", made.ID, "role", req.GetRole().String(), "uses", req.GetUses(), "expires", made.Expires)
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
