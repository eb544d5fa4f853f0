package node

import (
	"path/filepath"
	"testing"

	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/identity/identitytest"
	"github.com/weirmesh/weir/store"
)

func TestRecords(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(store.Config{Dir: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n, err := cluster.Start(cluster.Config{Name: "s1", Dir: filepath.Join(dir, "raft")}, s)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	identitytest.Suite(t, records{s, n})
}
