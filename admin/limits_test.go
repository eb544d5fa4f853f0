package admin_test

import (
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/admin"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Limits are told once this member knows all that was agreed on; where nobody keeps any
// that is said.
func TestListLimits(t *testing.T) {
	a := start(t, nil)
	m, err := a.ListLimits(t.Context(), &weirv1.ListLimitsRequest{})
	if err != nil || len(m.GetLimits()) != 3 || m.GetLimits()[0].GetLimit() != "day" || m.GetLimits()[2].GetSubscription() != "shop-free" {
		t.Errorf("got %v, %v", m, err)
	}
	a.cluster.Fail(admin.ErrUnavailable)
	if _, err := a.ListLimits(t.Context(), &weirv1.ListLimitsRequest{}); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("without a cluster: %v", err)
	}
	none := start(t, func(c *admin.Config) { c.Limits = nil })
	if _, err := none.ListLimits(t.Context(), &weirv1.ListLimitsRequest{}); connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Errorf("without limits: %v", err)
	}
}
