package admin

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

// UsageQuery says which usage, and how it is added up.
type UsageQuery struct {
	// Tenant, or "*" for all. App, Subscription, Api: empty for all.
	Tenant, App, Subscription, Api string
	// Since and Until are hours since 1970, UTC; until is not counted itself, and 0
	// stands for the end.
	Since, Until int64
	// Hours is how many hours make a row; 0: all of them.
	Hours int64
	// After is the last row of the page before.
	After UsageRow
	Limit int
}

// UsageRow is what was counted of one kind of answer in one period.
type UsageRow struct {
	Hour                                      int64 // when the period begins; 0 for all of the time
	Tenant, App, Subscription, Api, Operation string
	Class                                     uint8
	Count                                     uint64
}

// accountant is weir.v1.UsageService.
type accountant struct{ *service }

var _ weirv1connect.UsageServiceHandler = accountant{}

// ListUsage returns a page. Its token is the last row of it.
func (a accountant) ListUsage(ctx context.Context, req *weirv1.ListUsageRequest) (*weirv1.ListUsageResponse, error) {
	q, err := usageQuery(req)
	if err != nil {
		return nil, err
	}
	staleness, syncErr := a.current(ctx, req.GetStale())
	if syncErr != nil {
		return nil, syncErr
	}
	rows, more, readErr := a.Store.Usage(q)
	if readErr != nil {
		a.Logger.Error("usage not read", "error", readErr)
		return nil, connect.NewError(connect.CodeUnavailable, "the usage cannot be read now").WithCause(readErr)
	}
	res := &weirv1.ListUsageResponse{Staleness: staleness}
	for _, r := range rows {
		res.Usage = append(res.Usage, usageOf(r, q.Hours > 0))
	}
	if more {
		res.NextPageToken = writeUsageToken(rows[len(rows)-1])
	}
	return res, nil
}

func usageOf(r UsageRow, timed bool) *weirv1.Usage {
	u := &weirv1.Usage{Tenant: r.Tenant, App: r.App, Subscription: r.Subscription, Api: r.Api, Operation: r.Operation,
		StatusClass: fmt.Sprintf("%dxx", r.Class), Count: r.Count}
	if timed {
		u.Time = timestamppb.New(time.Unix(r.Hour*3600, 0))
	}
	return u
}

func usageQuery(req *weirv1.ListUsageRequest) (q UsageQuery, _ *connect.Error) {
	q = UsageQuery{Tenant: cmp.Or(req.GetTenant(), resource.DefaultTenant), App: req.GetApp(), Subscription: req.GetSubscription(),
		Api: req.GetApi(), Limit: int(min(cmp.Or(req.GetPageSize(), maxPage), maxPage))}
	switch req.GetBy() {
	case weirv1.ListUsageRequest_PERIOD_UNSPECIFIED:
	case weirv1.ListUsageRequest_HOUR:
		q.Hours = 1
	case weirv1.ListUsageRequest_DAY:
		q.Hours = 24
	default:
		return q, invalid("by", "must be HOUR or DAY, or unset")
	}
	for _, bound := range []struct {
		field string
		at    *timestamppb.Timestamp
		hour  *int64
	}{{"since", req.GetSince(), &q.Since}, {"until", req.GetUntil(), &q.Until}} {
		if bound.at == nil {
			continue
		}
		if err := bound.at.CheckValid(); err != nil || bound.at.GetSeconds() < 0 {
			return q, invalid(bound.field, "is no time after 1970")
		}
		*bound.hour = bound.at.GetSeconds() / 3600
	}
	if req.GetUntil() != nil && q.Until <= q.Since {
		return q, invalid("until", "must be an hour after since")
	}
	var err *connect.Error
	q.After, err = readUsageToken(req.GetPageToken())
	return q, err
}

func writeUsageToken(last UsageRow) string {
	text, err := json.Marshal(last)
	if err != nil {
		panic(err) // texts and numbers
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func readUsageToken(token string) (last UsageRow, _ *connect.Error) {
	if token == "" {
		return last, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(text, &last)
	}
	if err != nil {
		return last, invalid("pageToken", "is not one that a ListUsage returned")
	}
	return last, nil
}
