package admin_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/admin"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Pages are of the size that is asked for, and leave out and repeat nothing, whatever is
// counted meanwhile.
func TestUsageInPages(t *testing.T) {
	a := start(t, nil)
	now, sequence := time.Unix(2_000_000_000, 0), uint64(0)
	report := func(app string, hour int64) {
		t.Helper()
		sequence++
		_, err := a.cluster.Propose(t.Context(), &weirv1.Command{Time: timestamppb.New(now), Action: &weirv1.Command_ApplyUsage{ApplyUsage: &weirv1.ApplyUsage{
			Node: "edge/e1", Segments: []*weirv1.UsageSegment{{Epoch: bytes.Repeat([]byte{1}, 16), Sequence: sequence, Oldest: sequence, Counts: []*weirv1.UsageCount{
				{Tenant: "default", App: app, Subscription: app + "-free", Api: "books", Operation: "-", StatusClass: 2, Hour: hour, Count: 1}}}}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	hour := now.Unix() / 3600
	for n := range int64(10) {
		report(fmt.Sprint("app", n%3), hour-n)
	}
	for _, by := range []weirv1.ListUsageRequest_Period{weirv1.ListUsageRequest_PERIOD_UNSPECIFIED, weirv1.ListUsageRequest_HOUR, weirv1.ListUsageRequest_DAY} {
		seen, total := map[string]bool{}, uint64(0)
		req := &weirv1.ListUsageRequest{By: by, PageSize: 2}
		for first := true; first || req.GetPageToken() != ""; first = false {
			page, err := a.usage.ListUsage(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if len(page.GetUsage()) > 2 {
				t.Fatalf("a page of %d", len(page.GetUsage()))
			}
			for _, u := range page.GetUsage() {
				key := fmt.Sprint(u.GetTime().GetSeconds(), u.GetApp())
				if seen[key] || (u.GetTime() == nil) != (by == weirv1.ListUsageRequest_PERIOD_UNSPECIFIED) {
					t.Errorf("by %s: %v", by, u)
				}
				seen[key] = true
				total += u.GetCount()
			}
			req.PageToken = page.GetNextPageToken()
		}
		if total != 10 {
			t.Errorf("by %s: %d of 10", by, total)
		}
	}
}

func TestUsageAskedForWrongly(t *testing.T) {
	a := start(t, nil)
	for words, req := range map[string]*weirv1.ListUsageRequest{
		"by: must be HOUR or DAY":        {By: 7},
		"since: is no time after 1970":   {Since: &timestamppb.Timestamp{Seconds: -1}},
		"until: must be an hour after":   {Since: timestamppb.New(time.Unix(7200, 0)), Until: timestamppb.New(time.Unix(7201, 0))},
		"pageToken: is not one that a L": {PageToken: "?"},
	} {
		_, err := a.usage.ListUsage(t.Context(), req)
		requireCode(t, err, connect.CodeInvalidArgument, words)
	}
	a.cluster.Fail(admin.ErrUnavailable)
	_, err := a.usage.ListUsage(t.Context(), &weirv1.ListUsageRequest{})
	requireCode(t, err, connect.CodeUnavailable, "")
	if _, err := a.usage.ListUsage(t.Context(), &weirv1.ListUsageRequest{Stale: true}); err != nil {
		t.Errorf("a stale answer needs nobody: %v", err)
	}
}
