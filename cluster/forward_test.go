package cluster

import (
	"fmt"
	"testing"

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
