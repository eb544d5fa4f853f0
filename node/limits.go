package node

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/quota/ledger"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/store"
)

// limits is what is granted, as the admin API sees it.
type limits struct{ store *store.Store }

func (l limits) Limits(_ context.Context, tenant string) (all []*weirv1.LimitStatus, err error) {
	view := l.store.View()
	// The ledger's time stands still while nobody asks.
	now := max(view.LeaseTime(), time.Now().UnixNano())
	for after, more := (resource.Ref{}), true; more; {
		var page []*weirv1.Resource
		page, more = view.List(resource.KindSubscription, tenant, after, 1000)
		for _, r := range page {
			after = resource.Of(r)
			all = append(all, limitsOf(view, after, r.GetSubscription().GetSpec(), now)...)
		}
	}
	return all, nil
}

func limitsOf(view *store.View, ref resource.Ref, s *weirv1.SubscriptionSpec, now int64) (all []*weirv1.LimitStatus) {
	if s.GetState() > weirv1.SubscriptionSpec_ACTIVE {
		return nil
	}
	r, _ := view.Get(resource.Ref{Kind: resource.KindPlan, Tenant: ref.Tenant, Name: s.GetPlan()})
	for _, declared := range r.GetPlan().GetSpec().GetLimits() {
		limit := ledger.Limit{Requests: declared.GetRequests(), Window: declared.GetWindow().AsDuration()}
		record := ledger.InWindow(view.Leases(store.LimitRef{Tenant: ref.Tenant, Subscription: ref.Name, Limit: declared.GetName()}), limit, now)
		status := &weirv1.LimitStatus{
			Tenant: ref.Tenant, Subscription: ref.Name, App: s.GetApp(), Plan: s.GetPlan(), Limit: declared.GetName(), Requests: declared.GetRequests(), Exact: declared.GetExact(),
			WindowStart: &timestamppb.Timestamp{Seconds: int64(record.GetWindowStart())},
			WindowEnd:   &timestamppb.Timestamp{Seconds: int64(record.GetWindowStart() + record.GetWindowSeconds())},
			Granted:     ledger.Granted(record), Remaining: ledger.Remaining(record, limit), Lost: record.GetLost(), WorstOvershoot: record.GetOvershoot(),
		}
		for _, h := range record.GetHolders() {
			if h.GetHeld() > 0 {
				status.Leases = append(status.Leases, &weirv1.LimitLease{Node: h.GetNode(), Tokens: h.GetHeld(), Used: h.GetUsed()})
			}
		}
		slices.SortStableFunc(status.Leases, func(a, b *weirv1.LimitLease) int { return cmp.Compare(a.GetNode(), b.GetNode()) })
		all = append(all, status)
	}
	return all
}
