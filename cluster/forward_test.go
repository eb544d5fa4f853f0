package cluster

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Every member would end on an entry that cannot be read, at every start.
func TestForeignBytesDoNotReachTheLog(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a", "b", "c")
		leader, other := g.leader(), g.node(g.follower())
		good, err := encodeCommand(put("x", "1"))
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range [][]byte{
			[]byte("\xff\xff garbage"), {},
			protowire.AppendString(protowire.AppendTag(nil, commandIDField, protowire.BytesType), "no action"),
			append([]byte(nil), good[:len(good)-1]...),
		} {
			payload := encodeForwarded([]forwarded{{command: good}, {command: command}})
			code, text, err := other.call(g.ctx(), leader, methodPropose, payload)
			if err != nil || code != codeNotDone {
				t.Errorf("%q was answered by %d, %s, %v", command, code, text, err)
			}
		}
		if got := g.read("a", "x"); got != "" {
			t.Errorf("what was said not to be done was: %q", got)
		}
		g.converge()
	})
}

// More commands than a message may have are not put into one.
func TestBatchIsNoLargerThanAMessageMayBe(t *testing.T) {
	const many = 2*maxWaiting + 1
	n := &Node{proposals: make(chan *proposal, many)}
	for i := range many {
		n.proposals <- &proposal{command: fmt.Append(nil, i)}
	}
	sizes := 0
	for held := <-n.proposals; held != nil; {
		var taken []*proposal
		taken, held = n.fill(held)
		commands := make([]forwarded, len(taken))
		for i, p := range taken {
			commands[i].command = p.command
		}
		if _, err := decodeForwarded(encodeForwarded(commands)); err != nil {
			t.Fatalf("a batch of %d: %v", len(taken), err)
		}
		sizes += len(taken)
	}
	if sizes != many {
		t.Errorf("%d commands came out of %d", sizes, many)
	}
}

// A leader that is gone took with it what it was sent, or not. Nobody waits for
// longer than until what its successor decides is applied here: from then on
// nothing of it can turn up.
func TestWhatALostLeaderWasSentIsNotWaitedForLong(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a", "b", "c")
		leader, at := g.leader(), g.follower()
		g.write(at, "x", "1") // and the stream to the leader is open
		g.net.Isolate(leader)
		begun := time.Now()
		_, err := g.node(at).Propose(g.ctx(), put("x", "2"))
		requireError(t, err, ErrUnknown)
		if took := time.Since(begun); took > 4*g.node(at).cfg.Election {
			t.Errorf("it took %v to say so", took)
		}
		g.write(at, "x", "3")
		g.net.Heal()
		g.converge()
	})
}

// A leader that hands over says what it did not take: that goes to the next one, and
// the callers hear nothing of it.
func TestNoWriteIsLostSightOfInAHandOver(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a", "b", "c")
		g.net.SetDelay(time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		for _, name := range g.names() {
			for i := range 4 {
				writers.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						if _, err := g.node(name).Propose(t.Context(), put(fmt.Sprint(name, i), fmt.Sprint(n))); err != nil {
							t.Errorf("at %s: %v", name, err)
						}
					}
				})
			}
		}
		for range 20 {
			time.Sleep(50 * time.Millisecond) // of the bubble's time
			if err := g.node(g.leader()).Transfer(g.ctx(), ""); err != nil {
				t.Error(err)
			}
		}
		cancel()
		writers.Wait()
		g.converge()
	})
}
