package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Whoever writes by way of a follower while nobody else does waits for the way
// there and back and for the quorum, and not for Raft to say at its leisure that it
// is agreed. The time is the bubble's: nothing else passes in it.
func TestALoneWriteByWayOfAFollowerIsAppliedThereAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a", "b", "c")
		g.leader()
		g.net.SetDelay(time.Millisecond)
		at := g.follower()
		g.write(at, "x", "first") // opens the streams
		for i := range 20 {
			time.Sleep(time.Second)
			began := time.Now()
			g.write(at, "x", fmt.Sprint(i))
			if took := time.Since(began); took >= raft.DefaultConfig().CommitTimeout {
				t.Errorf("write %d took %v", i, took)
			}
		}
	})
}
