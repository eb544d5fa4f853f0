package proxy

import (
	"context"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// quota adds the limits of whoever calls, once: they are those of the Subscription that
// counts, whichever Api has asked for the key.
func (m *chainMaker) quota(ctx context.Context, apis []*weirv1.Api) {
	for _, a := range apis {
		if m.err == nil && a.GetSpec().GetAuthentication() != nil {
			m.api(ctx, a, policy.Quota, "")
			return
		}
	}
}
