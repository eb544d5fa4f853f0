package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func newLimitsCommand(c *client) *cobra.Command {
	return group("limits", "See how much of limits is used", newLimitsStatusCommand(c))
}

func newLimitsStatusCommand(c *client) *cobra.Command {
	var req weirv1.ListLimitsRequest
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how much of each subscription's limits is granted, and to whom",
		Long: `Tell how much of each subscription's limits is granted, and to whom.

Proxies admit requests by tokens, which they lease in blocks. What is granted is
held by one of them, used or not; what was lost was held by one that has died,
and comes back with the next window. With -o wide a table shows who holds how
much, and how much of it the proxy had used when it last asked.`,
		Example: "  weir limits status --app demo\n  weir limits status --subscription demo-free -o json",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&req.App, "app", "", "only the subscriptions of this App")
	cmd.Flags().StringVar(&req.Subscription, "subscription", "", "only this Subscription")
	return answered(c, cmd, view[[]*weirv1.LimitStatus]{
		program: list[*weirv1.LimitStatus],
		names: func(all []*weirv1.LimitStatus) []string {
			names := make([]string, len(all))
			for i, l := range all {
				names[i] = l.GetSubscription() + "/" + l.GetLimit()
			}
			return names
		},
		table: writeLimits,
	}, func(cmd *cobra.Command, _ []string, api *session) ([]*weirv1.LimitStatus, error) {
		req.Tenant = c.tenant
		m, err := api.ListLimits(cmd.Context(), &req)
		return m.GetLimits(), err
	})
}

func writeLimits(cmd *cobra.Command, all []*weirv1.LimitStatus, wide bool) error {
	if len(all) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "there are no limits: no active Subscription is of a Plan that has any")
		return nil
	}
	head := []string{"SUBSCRIPTION", "PLAN", "LIMIT", "WINDOW", "ENDS IN", "REQUESTS", "GRANTED", "REMAINING", "LEASED TO"}
	rows := make([][]string, len(all))
	for i, l := range all {
		window := l.GetWindowEnd().AsTime().Sub(l.GetWindowStart().AsTime())
		rows[i] = []string{l.GetSubscription(), l.GetPlan(), l.GetLimit(), brief(window), brief(max(time.Until(l.GetWindowEnd().AsTime()), 0)),
			fmt.Sprint(l.GetRequests()), fmt.Sprint(l.GetGranted()), fmt.Sprint(l.GetRemaining()), leasesText(l, wide)}
	}
	return writeTable(cmd.OutOrStdout(), head, rows)
}

func leasesText(l *weirv1.LimitStatus, wide bool) string {
	var parts []string
	for _, lease := range l.GetLeases() {
		if wide {
			parts = append(parts, fmt.Sprintf("%s %d (%d used)", lease.GetNode(), lease.GetTokens(), lease.GetUsed()))
		} else {
			parts = append(parts, lease.GetNode())
		}
	}
	if l.GetLost() > 0 && wide {
		parts = append(parts, fmt.Sprintf("%d lost", l.GetLost()))
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}
