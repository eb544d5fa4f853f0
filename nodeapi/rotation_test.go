package nodeapi

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/weirmesh/weir/identity"
)

// rotateRoot begins a rotation, and takes the steps that fall due as a server
// does, until the test ends.
func (c *cluster) rotateRoot() {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	enrol := func(*identity.Authority) {
		if err := c.registrar.EnrolServer(context.WithoutCancel(ctx), c.node, "s1", identity.Names{}); err != nil {
			c.t.Error(err)
		}
	}
	var following sync.WaitGroup
	c.t.Cleanup(func() {
		cancel()
		following.Wait()
	})
	if err := c.registrar.RotateRoot(ctx); err != nil {
		c.t.Fatal(err)
	}
	enrol(nil) // as at its start: Follow tells of the steps that come after it
	following.Go(func() {
		c.registrar.Follow(ctx, identity.FollowConfig{Every: 20 * time.Millisecond, Logger: logger(c.t), Changed: enrol})
	})
}

// awaitRotation waits until a rotation waits for these nodes, or with none is over.
func (c *cluster) awaitRotation(waiting int) {
	c.t.Helper()
	var state identity.RotationState
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		var err error
		if state, err = c.registrar.Rotation(c.t.Context()); err != nil {
			c.t.Fatal(err)
		}
		if steady := state.Phase == identity.PhaseSteady; steady == (waiting == 0) && len(state.Waiting) == waiting {
			return
		}
	}
	c.t.Fatalf("the rotation is in %s and waits for %v", state.Phase, state.Waiting)
}

// Proxies that are connected are asked to renew at each step, so that a rotation
// of the root is over in moments; one that is off holds it up, and is asked when it
// comes back.
func TestProxiesAreAskedToRenewForARotation(t *testing.T) {
	c := startCluster(t)
	old := c.registrar.Authority().Fingerprint()
	node := c.enrol(identity.RoleEdge, "e1")
	e := startEdge(t, node, t.TempDir(), nil, c.address)
	requireUpdate(t, e.next(), true, 0, nil, nil)
	off := c.enrol(identity.RoleEdge, "off")

	c.rotateRoot()
	c.awaitRotation(1)
	startEdge(t, off, t.TempDir(), nil, c.address)
	c.awaitRotation(0)
	for _, node := range []*identity.Identity{node, off} {
		if !node.Knows(identity.Token{Fingerprint: c.registrar.Authority().Fingerprint()}) {
			t.Errorf("%s does not know the new root", node.ID())
		}
	}
	if now := c.registrar.Authority().Fingerprint(); now == old {
		t.Error("the old root still signs")
	}
}
