// Package testcluster runs real members for tests: a store fed by a node, as
// package node puts them together, in a directory that goes with the test. One
// alone is a [Member], several that agree are a [Cluster].
//
//	m := testcluster.Start(t)
//	m.Apply(t, route)
//	m.Restart(t)
//	m.Store.View().Get(ref)
package testcluster

import (
	"crypto/rand"
	"errors"
	"path/filepath"
	"testing"

	"github.com/weirmesh/weir/cluster"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/store"
)

// Member is a store and the node that feeds it.
type Member struct {
	Store *store.Store
	Node  *cluster.Node

	dir string
	cfg cluster.Config
}

// Open runs a member alone in a directory. The name and the directories of cfg
// are set by it.
func Open(dir string, cfg cluster.Config) (*Member, error) {
	cfg.Name = "one"
	return open(dir, cfg)
}

func open(dir string, cfg cluster.Config) (*Member, error) {
	s, err := store.Open(store.Config{Dir: filepath.Join(dir, "store")})
	if err != nil {
		return nil, err
	}
	cfg.Dir = filepath.Join(dir, "cluster")
	n, err := cluster.Start(cfg, s)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &Member{Store: s, Node: n, dir: dir, cfg: cfg}, nil
}

// Close stops the node, then the store.
func (m *Member) Close() error {
	return errors.Join(m.Node.Close(), m.Store.Close())
}

// Start runs a member that leads, until the test ends.
func Start(t testing.TB) *Member {
	t.Helper()
	m, err := Open(t.TempDir(), cluster.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := m.Node.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// Restart stops the member and starts it again from its directory.
func (m *Member) Restart(t testing.TB) {
	t.Helper()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(m.dir, m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	*m = *again
	if err := m.Node.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Apply puts resources, which must be accepted. Where the outcome is unknown, as
// when a leader is lost, it is the same command that is proposed again.
func (m *Member) Apply(t testing.TB, puts ...*weirv1.Resource) *weirv1.ApplyResponse {
	t.Helper()
	command := &weirv1.Command{Id: rand.Text(), Action: &weirv1.Command_Transact{Transact: &weirv1.Transact{Puts: puts}}}
	result, err := m.Node.Propose(t.Context(), command)
	for errors.Is(err, cluster.ErrUnknown) && t.Context().Err() == nil {
		result, err = m.Node.Propose(t.Context(), command)
	}
	if err != nil {
		t.Fatal(err)
	}
	response, ok := result.(*weirv1.ApplyResponse)
	if !ok {
		t.Fatalf("apply: %v", result)
	}
	return response
}
