package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/identity"
)

// memberNames are the servers of the cluster.
func (s *server) memberNames() (names []string) {
	for _, m := range s.cluster.Members() {
		names = append(names, m.Name)
	}
	return names
}

// admit says whether a server may become a member: one that has joined, or
// founded the cluster, and that no operator has removed since. The leader asks;
// it waits until this server knows.
func (s *server) admit(ctx context.Context, name string) error {
	select {
	case <-s.enrolled:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	nodes, err := s.registrar.Nodes(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(nodes, func(n identity.Node) bool { return n.ID.Role == identity.RoleServer && n.ID.Name == name })
	switch {
	case i < 0:
		return fmt.Errorf("no server named %s has joined", name)
	case !nodes[i].Removed.IsZero():
		return fmt.Errorf("%s was removed at %s: it must join anew, with an empty data directory", name, nodes[i].Removed.Format(time.RFC3339))
	}
	return nil
}

// remove takes a member out for good. Whether the others can do without it is
// for the cluster to say, so that comes first; a member that is let in again in
// between, since nothing speaks against it yet, is taken out once more.
func (s *server) remove(ctx context.Context, name, by string, force bool) error {
	if err := s.cluster.Remove(ctx, name, force); err != nil {
		return err
	}
	if err := s.registrar.Remove(ctx, identity.RoleServer, name, by); err != nil {
		return err
	}
	if !slices.Contains(s.memberNames(), name) {
		return nil
	}
	if err := s.cluster.Remove(ctx, name, true); err != nil && !errors.Is(err, cluster.ErrRefused) {
		return err
	}
	return nil
}
