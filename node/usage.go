package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/meter"
	"github.com/weirmesh/weir/nodeapi"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/store"
	"github.com/weirmesh/weir/telemetry"
)

// startMeter starts to count what consumers are answered. It stops after the proxy, and
// reports what was counted to the last.
func (e *edge) startMeter(p *process, dir string, metrics *telemetry.Metrics) (*meter.Journal, error) {
	journal, err := meter.Open(meter.Config{Dir: filepath.Join(dir, "usage"), Logger: p.log.With("part", "usage")})
	if err != nil {
		return nil, err
	}
	p.onStop("usage journal", journal.Close)
	p.run("usage", func(ctx context.Context) error { return journal.Run(ctx, e.reportUsage) })
	if err := metrics.Register(journal); err != nil {
		return nil, err
	}
	return journal, nil
}

// newDialer makes one for all that the edge asks the servers. It outlives the client that
// follows the configuration: what passes while the proxy drains needs tokens, and is
// counted.
func (p *process) newDialer() *nodeport.Dialer {
	dialer := nodeport.NewDialer(nodeport.DialerConfig{Logger: p.log.With("part", "edge")})
	p.onStop("edge's dialer", func() error { dialer.Close(); return nil })
	return dialer
}

func (e *edge) reportUsage(ctx context.Context, m *weirv1.ReportUsageRequest) error {
	err := e.asking.Load().ReportUsage(ctx, m)
	if errors.Is(err, nodeapi.ErrUsageRefused) {
		return fmt.Errorf("%w: %w", meter.ErrRefused, err)
	}
	return err
}

// addUsage has the cluster add what a proxy has counted. Where it is not known whether
// that was done the proxy sends it again, and nothing is added twice.
func (s *server) addUsage(ctx context.Context, node string, m *weirv1.ReportUsageRequest) error {
	result, err := s.cluster.Propose(ctx, &weirv1.Command{Actor: node, Action: &weirv1.Command_ApplyUsage{
		ApplyUsage: &weirv1.ApplyUsage{Node: node, Segments: m.GetSegments(), Ended: m.GetEnded()}}})
	if err != nil {
		return err
	}
	var refused *store.RefusedError
	if err, ok := result.(error); ok {
		if errors.As(err, &refused) {
			return fmt.Errorf("%w: %w", nodeapi.ErrUsageRefused, refused)
		}
		return err
	}
	return nil
}

// Usage is for the admin API.
func (d declared) Usage(q admin.UsageQuery) ([]admin.UsageRow, bool, error) {
	rows, more, err := d.Store.Usage(store.UsageQuery{Tenant: q.Tenant, App: q.App, Subscription: q.Subscription, Api: q.Api,
		Since: q.Since, Until: q.Until, Hours: q.Hours, After: store.UsageRow(q.After), Limit: q.Limit})
	page := make([]admin.UsageRow, len(rows))
	for i, r := range rows {
		page[i] = admin.UsageRow(r)
	}
	return page, more, err
}
