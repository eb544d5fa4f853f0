package admin

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// GetStatus tells what this member knows. It waits for nobody, so that it
// answers when the cluster cannot decide.
func (s *service) GetStatus(ctx context.Context, _ *weirv1.GetStatusRequest) (*weirv1.GetStatusResponse, error) {
	view := s.Store.View()
	status := &weirv1.GetStatusResponse{Version: s.Version, Revision: view.Revision(), Resources: view.Counts()}
	if err := s.Cluster.Status(ctx, status); err != nil {
		return nil, fmt.Errorf("read status of the cluster: %w", err)
	}
	status.Proxies, _ = s.Proxies.Statuses()
	return status, nil
}

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
	token, expires, err := s.JoinTokens.Create(ctx, req.GetRole(), ttl, actorOf(ctx))
	if err != nil {
		return nil, fmt.Errorf("create join token: %w", err)
	}
	s.Logger.Info("join token created", "actor", actorOf(ctx), "role", req.GetRole().String(), "expires", expires)
	return &weirv1.CreateJoinTokenResponse{Token: token, ExpireTime: timestamppb.New(expires)}, nil
}
