package admin

import (
	"cmp"
	"context"
	"slices"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

// Watch sends what changes until the caller leaves. After each change comes a
// bookmark, also when none of it concerned the caller: from the last bookmark a
// broken watch goes on without a gap.
func (s *service) Watch(ctx context.Context, req *weirv1.WatchRequest, stream weirv1connect.AdminServiceWatchServerStream) error {
	w := watch{tenant: cmp.Or(req.GetTenant(), resource.DefaultTenant), send: stream.Send}
	for i, kind := range req.GetKinds() {
		if err := knownKind(string(resource.Path("kinds").Index(i)), kind); err != nil {
			return err
		}
		known, _ := resource.ParseKind(kind)
		w.kinds = append(w.kinds, known)
	}
	// The caller learns at once that it is heard, also when nothing changes.
	if err := stream.SendHeaders(); err != nil {
		return err
	}
	for change, err := range s.Store.Watch(ctx, req.GetAfterRevision()) {
		if err != nil {
			return err
		}
		if err := w.change(change); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// watch is what one caller wants to see.
type watch struct {
	kinds  []string
	tenant string
	send   func(*weirv1.WatchResponse) error
}

func (w watch) wants(ref resource.Ref) bool {
	return (len(w.kinds) == 0 || slices.Contains(w.kinds, ref.Kind)) && (w.tenant == allTenants || w.tenant == ref.Tenant)
}

func (w watch) change(c Change) error {
	if c.Reset {
		if err := w.send(&weirv1.WatchResponse{Type: weirv1.WatchResponse_RESET, Revision: c.Revision}); err != nil {
			return err
		}
	}
	for _, ref := range c.Deletes {
		if !w.wants(ref) {
			continue
		}
		if err := w.send(&weirv1.WatchResponse{Type: weirv1.WatchResponse_DELETE, Revision: c.Revision, Ref: ref.Proto()}); err != nil {
			return err
		}
	}
	for _, r := range c.Puts {
		ref := resource.Of(r)
		if !w.wants(ref) {
			continue
		}
		put := &weirv1.WatchResponse{Type: weirv1.WatchResponse_PUT, Revision: resource.Meta(r).GetRevision(), Ref: ref.Proto(), Resource: shown(r)}
		if err := w.send(put); err != nil {
			return err
		}
	}
	return w.send(&weirv1.WatchResponse{Type: weirv1.WatchResponse_BOOKMARK, Revision: c.Revision})
}
