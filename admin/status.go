package admin

import (
	"context"
	"fmt"

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
