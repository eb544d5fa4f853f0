package node

import (
	"cmp"
	"context"
	"crypto"
	"fmt"
	"slices"
	"time"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/store"
)

// lookForRemoved is how soon a server ends the streams of a proxy that was removed by way
// of another.
const lookForRemoved = 200 * time.Millisecond

// mindRemoved shuts out proxies that were removed, or whose name another has now.
func (s *server) mindRemoved(ctx context.Context) error {
	ticker := time.NewTicker(lookForRemoved)
	defer ticker.Stop()
	for last := (*store.View)(nil); ; {
		if view := s.store.View(); !view.SameValues(last) {
			s.shutOut()
			last = view
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *server) shutOut() {
	view := s.store.View()
	keys, err := identity.ShutOut(view, time.Now())
	if err != nil {
		s.log.Error("proxies are not told of all that were removed", "error", err)
	}
	s.api.TellShutOut(keys)
	s.api.ShutOut(func(id identity.ID, key crypto.PublicKey) error { return identity.CheckProxy(view, id, key) })
}

// RemoveProxy marks the node, so that no server serves it or renews its certificate, and
// withdraws what it has registered. One that was removed is removed again: maybe the first
// time ended half-way.
func (v servers) RemoveProxy(ctx context.Context, name string) error {
	if err := v.s.cluster.ReadBarrier(ctx); err != nil { // it may have joined just now
		return outcome(err)
	}
	nodes, err := v.s.registrar.Nodes(ctx)
	if err != nil {
		return outcome(err)
	}
	nodes = slices.DeleteFunc(nodes, func(n identity.Node) bool { return n.ID.Role == identity.RoleServer || n.ID.Name != name })
	if len(nodes) == 0 {
		return refused(admin.ReasonNotFound, "there is no edge or sidecar %q", name)
	}
	for _, n := range nodes {
		if err := v.s.removeProxy(ctx, n.ID); err != nil {
			return outcome(fmt.Errorf("remove %s: %w", n.ID, err))
		}
	}
	v.s.shutOut()
	return nil
}

func (s *server) removeProxy(ctx context.Context, id identity.ID) error {
	by := cmp.Or(admin.Actor(ctx), "weir")
	if err := s.registrar.Remove(ctx, id.Role, id.Name, by); err != nil {
		return err
	}
	if id.Role != identity.RoleSidecar {
		return nil
	}
	return s.withdraw(ctx, by, instanceRef(id))
}
