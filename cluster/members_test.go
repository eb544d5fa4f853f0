package cluster

import (
	"fmt"
	"sync"
	"testing"
)

func TestAnyMemberTakesAnyCall(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a", "b", "c")
		var callers sync.WaitGroup
		for i, name := range g.names() {
			callers.Go(func() {
				for j := range 20 {
					key := fmt.Sprintf("%d-%d", i, j)
					result, err := g.node(name).Propose(g.ctx(), put(key, "v"))
					if err != nil {
						t.Error(err)
						return
					}
					var index uint64
					if _, err := fmt.Sscanf(fmt.Sprint(result), "v at %d", &index); err != nil || index == 0 {
						t.Errorf("result at %s is %v", name, result)
					}
				}
			})
		}
		callers.Wait()
		g.write("a", "x", "1")
		for _, name := range g.names() {
			if got := g.read(name, "x"); got != "1" {
				t.Errorf("%s reads %q", name, got)
			}
		}
		g.converge()
	})
}

func TestKilledLeaderIsFollowedByAnother(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a", "b", "c")
		for i := range 3 {
			leader := g.leader()
			g.kill(leader)
			g.write(g.follower(), "x", fmt.Sprint(i))
			g.start(leader)
			if got := g.read(leader, "x"); got != fmt.Sprint(i) {
				t.Errorf("%s reads %q after its restart", leader, got)
			}
		}
		g.converge()
	})
}
