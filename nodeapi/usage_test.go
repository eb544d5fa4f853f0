package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// A proxy reports under the name that its certificate bears, whether it follows the
// configuration or not, and learns whether to try again.
func TestUsageIsReported(t *testing.T) {
	c := newCluster(t)
	type told struct {
		by   string
		what *weirv1.ReportUsageRequest
	}
	reports, answers := make(chan told, 3), make(chan error, 3)
	c.usage = func(_ context.Context, node string, m *weirv1.ReportUsageRequest) error {
		reports <- told{node, m}
		return <-answers
	}
	c.start()
	report := &weirv1.ReportUsageRequest{Segments: []*weirv1.UsageSegment{{Epoch: make([]byte, 16), Sequence: 7, Counts: []*weirv1.UsageCount{{App: "demo", Count: 3}}}}}

	e := newEdge(t, c.enrol(identity.RoleEdge, "e1"), t.TempDir(), nil, c.address)
	answers <- nil
	if err := e.client.ReportUsage(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	if got := <-reports; got.by != "edge/e1" || !proto.Equal(got.what, report) {
		t.Errorf("%s has reported %v", got.by, got.what)
	}
	answers <- errors.New("no leader")
	if err := e.client.ReportUsage(t.Context(), report); err == nil || errors.Is(err, ErrUsageRefused) {
		t.Errorf("while there is no leader: %v", err)
	}
	answers <- fmt.Errorf("%w: it makes no sense", ErrUsageRefused)
	if err := e.client.ReportUsage(t.Context(), report); !errors.Is(err, ErrUsageRefused) {
		t.Errorf("what makes no sense: %v", err)
	}
	c.stop()
	if err := e.client.ReportUsage(t.Context(), report); err == nil || errors.Is(err, ErrUsageRefused) {
		t.Errorf("while there is no server: %v", err)
	}
}

func TestWhoMayNotReportUsage(t *testing.T) {
	c := newCluster(t)
	c.usage = func(context.Context, string, *weirv1.ReportUsageRequest) error {
		t.Error("it is taken")
		return nil
	}
	c.start()
	_, err := c.dial(c.enrol(identity.RoleServer, "s2").ClientTLS).api.ReportUsage(t.Context(), &weirv1.ReportUsageRequest{})
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a server: %v", err)
	}
	removed := c.enrol(identity.RoleEdge, "e1")
	if err := c.registrar.Remove(t.Context(), identity.RoleEdge, "e1", "test"); err != nil {
		t.Fatal(err)
	}
	_, err = c.dial(removed.ClientTLS).api.ReportUsage(t.Context(), &weirv1.ReportUsageRequest{})
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("an edge that was removed: %v", err)
	}
}
