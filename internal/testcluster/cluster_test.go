package testcluster

import (
	"testing"

	"github.com/weirmesh/weir/cluster"
)

func TestClusterBearsFaults(t *testing.T) {
	c := StartCluster(t, 3)
	c.Apply(service("a", "v1"))
	cut := c.Leader()
	c.Partition(cut)
	c.Apply(service("b", "v1"))
	if _, found := c.Member(cut).Store.View().Get(ref("b")); found {
		t.Error("it came through a partition")
	}
	c.Heal()
	c.RequireConverged()

	stopped := c.Leader()
	c.Stop(stopped)
	c.Apply(service("c", "v1"))
	c.Restart(stopped)
	c.RequireConverged()

	// A revision is the same whoever took the change.
	for _, name := range Names(3) {
		got := c.Member(name).Apply(t, service("d", name)).Revision
		if r, found := c.Member(name).Store.View().Get(ref("d")); !found || r.GetService().Metadata.Revision != got {
			t.Errorf("%s was told %d, and holds %v", name, got, r)
		}
	}
	joined := c.Join("s4")
	if err := joined.Node.ReadBarrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, found := joined.Store.View().Get(ref("c")); !found {
		t.Error("a new member lacks what was there")
	}
	c.eventually("it votes", func() bool {
		for _, m := range joined.Node.Status().Members {
			if m.Name == "s4" {
				return m.Role == cluster.Voter
			}
		}
		return false
	})
	c.RequireConverged()
}
