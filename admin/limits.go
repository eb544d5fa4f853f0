package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect/v2"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Limits is how much of the limits of subscriptions is granted, as this member knows it.
type Limits interface {
	// Limits returns those of a tenant's active subscriptions, in any order.
	Limits(ctx context.Context, tenant string) ([]*weirv1.LimitStatus, error)
}

// ListLimits tells what all members have agreed on. A name of an App or of a
// Subscription that there is not is an error: it is a slip more often than not.
func (s *service) ListLimits(ctx context.Context, req *weirv1.ListLimitsRequest) (*weirv1.ListLimitsResponse, error) {
	if s.Limits == nil {
		return nil, connect.NewError(connect.CodeUnimplemented, "this server keeps no limits")
	}
	if _, err := s.current(ctx, false); err != nil {
		return nil, err
	}
	tenant := cmp.Or(req.GetTenant(), resource.DefaultTenant)
	for _, ref := range []resource.Ref{
		{Kind: resource.KindApp, Tenant: tenant, Name: req.GetApp()}, {Kind: resource.KindSubscription, Tenant: tenant, Name: req.GetSubscription()},
	} {
		if _, found := s.Store.View().Get(ref); ref.Name != "" && tenant != allTenants && !found {
			return nil, connect.Errorf(connect.CodeNotFound, "there is no %s", ref)
		}
	}
	all, err := s.Config.Limits.Limits(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("list limits: %w", err)
	}
	all = slices.DeleteFunc(all, func(l *weirv1.LimitStatus) bool {
		return req.GetApp() != "" && l.GetApp() != req.GetApp() || req.GetSubscription() != "" && l.GetSubscription() != req.GetSubscription()
	})
	slices.SortFunc(all, func(a, b *weirv1.LimitStatus) int {
		return cmp.Or(cmp.Compare(a.GetTenant(), b.GetTenant()), cmp.Compare(a.GetSubscription(), b.GetSubscription()), cmp.Compare(a.GetLimit(), b.GetLimit()))
	})
	return &weirv1.ListLimitsResponse{Limits: all}, nil
}
