package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestPipelineEndsWhenItIsRefused: Raft reads no more answers after one that
// says no, and its writer then must not wait for ever for somebody to do so.
func TestPipelineEndsWhenItIsRefused(t *testing.T) {
	open := func() *raft.NetworkTransport {
		tr, err := raft.NewTCPTransport("127.0.0.1:0", nil, 2, time.Minute, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tr.Close() })
		return tr
	}
	near, far := open(), open()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case call := <-far.Consumer():
				call.Respond(&raft.AppendEntriesResponse{Term: 1, Success: false}, nil)
			case <-stop:
				return
			}
		}
	}()
	inner, err := near.AppendEntriesPipeline("far", far.LocalAddr())
	if err != nil {
		t.Fatal(err)
	}
	p := &pipeline{AppendPipeline: inner, member: "far", contacts: newContacts(),
		out: make(chan raft.AppendFuture), closed: make(chan struct{})}
	p.relaying.Go(p.relay)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			req := &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, PrevLogTerm: 1}
			if _, err := p.AppendEntries(req, new(raft.AppendEntriesResponse)); err != nil {
				return
			}
		}
	}()
	if first := <-p.Consumer(); first.Response().Success {
		t.Error("it was not refused")
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the writer waits for ever")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// What a follower answers about an append that it did not take is no proof.
func TestWhatConfirmsARead(t *testing.T) {
	req := func(term uint64) *raft.AppendEntriesRequest {
		return &raft.AppendEntriesRequest{Term: term, PrevLogEntry: 5, Entries: []*raft.Log{{Index: 6}, {Index: 7}}}
	}
	yes, no := &raft.AppendEntriesResponse{Term: 2, Success: true}, &raft.AppendEntriesResponse{Term: 2}
	voters := []string{"a", "b", "c"}
	tests := map[string]struct {
		answer func(c *contacts, before uint64)
		want   bool
	}{
		"nothing":                  {func(*contacts, uint64) {}, false},
		"one that began before":    {func(c *contacts, before uint64) { c.answered("b", before, req(2), yes) }, false},
		"one that began after":     {func(c *contacts, _ uint64) { c.answered("b", c.begin(), req(2), yes) }, true},
		"one that was refused":     {func(c *contacts, _ uint64) { c.answered("b", c.begin(), req(2), no) }, false},
		"one of an earlier term":   {func(c *contacts, _ uint64) { c.answered("b", c.begin(), req(1), yes) }, false},
		"one of who has no vote":   {func(c *contacts, _ uint64) { c.answered("x", c.begin(), req(2), yes) }, false},
		"one, then an earlier one": {func(c *contacts, b uint64) { c.answered("b", c.begin(), req(2), yes); c.answered("b", b, req(2), yes) }, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := newContacts()
			before := c.begin()
			number := c.now()
			test.answer(c, before)
			if got := c.confirmed(2, number, "a", voters); got != test.want {
				t.Errorf("confirmed: %t, want %t", got, test.want)
			}
		})
	}
	c := newContacts()
	c.answered("b", c.begin(), req(2), yes)
	if got := c.in(2)["b"].match; got != 7 {
		t.Errorf("b holds up to %d, want 7", got)
	}
	if !c.confirmed(2, c.now(), "a", []string{"a"}) {
		t.Error("a member alone does not confirm itself")
	}
}

// Once the member ends, Raft is made to believe that its vote is on a full disk
// (see logStore.insist): it must not get out.
func TestNothingIsSaidAfterTheEnd(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	life, end := context.WithCancel(t.Context())
	s := &stream{Conn: near, write: time.Minute, life: life}
	end()
	if n, err := s.Write([]byte("granted")); n > 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("%d bytes got out, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
