package admintest

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/admin"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Limits are as they were told. They implement admin.Limits.
type Limits []*weirv1.LimitStatus

var _ admin.Limits = Limits{}

// NewLimits are those of two subscriptions: one has two limits, of which proxies hold
// some, the other one that nobody has asked for.
func NewLimits() Limits {
	hour := time.Now().Truncate(time.Hour)
	row := func(subscription, app, limit string, length time.Duration, requests uint64, leases ...*weirv1.LimitLease) *weirv1.LimitStatus {
		l := &weirv1.LimitStatus{Tenant: "default", Subscription: subscription, App: app, Plan: "free", Limit: limit, Exact: true,
			WindowStart: timestamppb.New(hour), WindowEnd: timestamppb.New(hour.Add(length)), Requests: requests, Remaining: requests, Leases: leases}
		for _, lease := range leases {
			l.Granted += lease.GetTokens()
			l.Remaining -= lease.GetTokens()
		}
		return l
	}
	l := Limits{
		row("shop-free", "shop", "hour", time.Hour, 50),
		row("demo-free", "demo", "hour", time.Hour, 100, &weirv1.LimitLease{Node: "edge/e1", Tokens: 40, Used: 35}, &weirv1.LimitLease{Node: "edge/e2", Tokens: 20, Used: 20}),
		row("demo-free", "demo", "day", 24*time.Hour, 1000, &weirv1.LimitLease{Node: "edge/e1", Tokens: 200}),
	}
	l[1].Lost, l[1].Granted, l[1].Remaining = 5, 65, 35
	return l
}

// Limits implements admin.Limits.
func (l Limits) Limits(_ context.Context, tenant string) (all []*weirv1.LimitStatus, err error) {
	for _, status := range l {
		if tenant == "*" || tenant == status.GetTenant() {
			all = append(all, proto.CloneOf(status))
		}
	}
	return all, nil
}
