package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// usageFlags are those of weir usage.
type usageFlags struct{ app, subscription, api, by, since, until string }

func newUsageCommand(c *client) *cobra.Command {
	var f usageFlags
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Tell what consumers were answered",
		Long: `Tell what consumers were answered: how many answers of each class of status (2xx,
4xx, …), per subscription, Api and operation. Proxies report every few seconds.

An operation of "-" is a request that is none of the contract's, or the Api has no
contract; "*" stands for operations that were not told apart.`,
		Example: "  weir usage --app demo\n  weir usage --app demo --by day --since 720h\n  weir usage --api books --since 2026-11-01 --until 2026-12-01 -o json",
		Args:    cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.app, "app", "", "of this App alone")
	flags.StringVar(&f.subscription, "subscription", "", "of this Subscription alone")
	flags.StringVar(&f.api, "api", "", "of this Api alone")
	flags.StringVar(&f.by, "by", "", "a row for each hour, or day, of UTC: hour or day")
	flags.StringVar(&f.since, "since", "", "what was answered since then, from the beginning of the hour: 24h ago, 2026-11-28, or 2026-11-28T14:00:00Z")
	flags.StringVar(&f.until, "until", "", "what was answered before the hour that this is in")
	_ = cmd.RegisterFlagCompletionFunc("by", cobra.FixedCompletions([]string{"hour", "day"}, cobra.ShellCompDirectiveNoFileComp))
	v := view[[]*weirv1.Usage]{program: list[*weirv1.Usage], names: usageNames,
		table: func(cmd *cobra.Command, all []*weirv1.Usage, wide bool) error { return writeUsage(cmd, all, wide) }}
	return answered(c, cmd, v, func(cmd *cobra.Command, _ []string, api *session) ([]*weirv1.Usage, error) {
		req, err := f.request(c.tenant, time.Now())
		if err != nil {
			return nil, err
		}
		return listUsage(cmd.Context(), api, req)
	})
}

func (f usageFlags) request(tenant string, now time.Time) (*weirv1.ListUsageRequest, error) {
	req := &weirv1.ListUsageRequest{Tenant: tenant, App: f.app, Subscription: f.subscription, Api: f.api}
	switch f.by {
	case "":
	case "hour":
		req.By = weirv1.ListUsageRequest_HOUR
	case "day":
		req.By = weirv1.ListUsageRequest_DAY
	default:
		return nil, usagef("--by must be hour or day, not %q", f.by)
	}
	var err error
	if req.Since, err = momentFlag("since", f.since, now); err != nil {
		return nil, err
	}
	req.Until, err = momentFlag("until", f.until, now)
	return req, err
}

// momentFlag reads a time: how long ago, a date of UTC, or all of it.
func momentFlag(name, text string, now time.Time) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return timestamppb.New(t), nil
		}
	}
	d, err := parseDuration(strings.TrimSuffix(text, " ago"))
	if err != nil || d < 0 {
		return nil, usagef("--%s %q is neither a duration (24h), nor a date (2026-11-28), nor a time (2026-11-28T14:00:00Z)", name, text)
	}
	return timestamppb.New(now.Add(-d)), nil
}

// listUsage reads all pages.
func listUsage(ctx context.Context, api *session, req *weirv1.ListUsageRequest) (all []*weirv1.Usage, err error) {
	for {
		page, err := api.usage.ListUsage(ctx, req)
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetUsage()...)
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return all, nil
		}
	}
}

// usageNames are whose usage there is.
func usageNames(all []*weirv1.Usage) (names []string) {
	seen := map[string]bool{}
	for _, u := range all {
		if name := shortName(resource.Ref{Kind: resource.KindSubscription, Name: u.GetSubscription()}); !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

// writeUsage shows of whose usage it is what differs between the rows.
func writeUsage(cmd *cobra.Command, all []*weirv1.Usage, wide bool) error {
	if len(all) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "there is no usage")
		return nil
	}
	columns := usageColumns(all, wide)
	var header []string
	rows, total := make([][]string, len(all)), uint64(0)
	for _, c := range columns {
		header = append(header, c.name)
		for i, u := range all {
			rows[i] = append(rows[i], cmp.Or(c.of(u), "-"))
		}
	}
	for i, u := range all {
		rows[i] = append(rows[i], fmt.Sprint(u.GetCount()))
		total += u.GetCount()
	}
	last := make([]string, len(columns), len(columns)+1)
	last[0] = "TOTAL"
	return writeCounts(cmd, append(header, "COUNT"), append(rows, append(last, fmt.Sprint(total))))
}

type usageColumn struct {
	name string
	of   func(*weirv1.Usage) string
}

func usageColumns(all []*weirv1.Usage, wide bool) (columns []usageColumn) {
	differs := func(of func(*weirv1.Usage) string) bool {
		for _, u := range all {
			if of(u) != of(all[0]) {
				return true
			}
		}
		return wide
	}
	if all[0].GetTime() != nil {
		columns = append(columns, usageColumn{"TIME", func(u *weirv1.Usage) string { return u.GetTime().AsTime().Format("2006-01-02 15:04") }})
	}
	for _, c := range []usageColumn{{"TENANT", (*weirv1.Usage).GetTenant}, {"APP", (*weirv1.Usage).GetApp}, {"SUBSCRIPTION", (*weirv1.Usage).GetSubscription}} {
		if differs(c.of) {
			columns = append(columns, c)
		}
	}
	return append(columns, usageColumn{"API", (*weirv1.Usage).GetApi}, usageColumn{"OPERATION", (*weirv1.Usage).GetOperation},
		usageColumn{"STATUS", (*weirv1.Usage).GetStatusClass})
}

// writeCounts is writeTable with the last column flush right.
func writeCounts(cmd *cobra.Command, header []string, rows [][]string) error {
	width := 0
	all := append([][]string{header}, rows...)
	for _, row := range all {
		width = max(width, len(row[len(row)-1]))
	}
	tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
	for _, row := range all {
		last := len(row) - 1
		fmt.Fprintf(tw, "%s\t%*s\n", strings.Join(row[:last], "\t"), width, row[last])
	}
	return tw.Flush()
}
