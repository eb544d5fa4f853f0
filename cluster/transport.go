package cluster

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// transport is Raft's, over the members' streams. It adds four things: it
// notes what each member has answered (see contacts), it asks again where only
// a kept stream had gone stale, its pipelines end when they fail (see pipeline),
// and what other members ask is put right (see arrivals).
type transport struct {
	*raft.NetworkTransport
	arrivals *arrivals
	contacts *contacts
	election time.Duration
}

func newTransport(n *Node, conf *raft.Config) *transport {
	inner := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  n.streams,
		MaxPool: 2,
		Timeout: max(2*n.cfg.Election, time.Second),
		Logger:  conf.Logger,
	})
	return &transport{
		NetworkTransport: inner,
		arrivals:         newArrivals(n.log, inner.Consumer(), n.stopped),
		contacts:         n.contacts,
		election:         n.cfg.Election,
	}
}

func (t *transport) Consumer() <-chan raft.RPC { return t.arrivals.out }

func isHeartbeat(args *raft.AppendEntriesRequest) bool {
	return args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && len(args.Entries) == 0 && args.LeaderCommitIndex == 0
}

func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	begun := t.contacts.begin()
	var err error
	if isHeartbeat(args) {
		err = t.again(func() error { return t.NetworkTransport.AppendEntries(id, classBeat.of(target), args, resp) })
	} else {
		err = t.NetworkTransport.AppendEntries(id, classData.of(target), args, resp)
	}
	if err == nil {
		t.contacts.answered(string(id), begun, args, resp)
	}
	return err
}

// again repeats a call that failed so fast that a stream must have been kept
// whose other end is gone, at most as often as streams are kept. It is for
// calls that may come twice.
func (t *transport) again(call func() error) error {
	for try := 0; ; try++ {
		began := time.Now()
		err := call()
		if err == nil || try == 2 || errors.Is(err, errDial) || time.Since(began) > t.election/4 {
			return err
		}
	}
}

func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.again(func() error { return t.NetworkTransport.RequestVote(id, classVote.of(target), args, resp) })
}

func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.again(func() error { return t.NetworkTransport.RequestPreVote(id, classVote.of(target), args, resp) })
}

func (t *transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.again(func() error { return t.NetworkTransport.TimeoutNow(id, classVote.of(target), args, resp) })
}

func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	err := t.NetworkTransport.InstallSnapshot(id, classSnapshot.of(target), args, resp, data)
	if err == nil && resp.Success {
		t.contacts.matches(string(id), args.Term, args.LastLogIndex)
	}
	return err
}

func (t *transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, classData.of(target))
	if err != nil {
		return nil, err
	}
	p := &pipeline{
		AppendPipeline: inner, member: string(id), contacts: t.contacts,
		out: make(chan raft.AppendFuture), closed: make(chan struct{}),
	}
	p.relaying.Go(p.relay)
	return p, nil
}

// EncodePeer is without the class: Raft puts it into what it sends.
func (t *transport) EncodePeer(_ raft.ServerID, member raft.ServerAddress) []byte {
	return []byte(member)
}

// pipeline mends two faults of Raft's pipelines. When an append was refused or
// failed, Raft's reader of answers leaves while its writer may go on, and the
// writer then waits for ever for the reader. So after the first failure this
// one is closed, which makes the writer's next append an error. And Raft takes
// a failed append for a sign of life; so it is not told of it.
type pipeline struct {
	raft.AppendPipeline
	member   string
	contacts *contacts
	out      chan raft.AppendFuture
	closed   chan struct{}
	once     sync.Once
	relaying sync.WaitGroup

	mu    sync.Mutex
	begun []uint64 // of the appends under way, in their order
}

func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.mu.Lock()
	p.begun = append(p.begun, p.contacts.begin())
	p.mu.Unlock()
	return p.AppendPipeline.AppendEntries(args, resp)
}

func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.out }

func (p *pipeline) relay() {
	for {
		select {
		case done := <-p.AppendPipeline.Consumer():
			p.mu.Lock()
			begun := p.begun[0]
			p.begun = p.begun[1:]
			p.mu.Unlock()
			if done.Error() != nil {
				_ = p.AppendPipeline.Close()
				return
			}
			p.contacts.answered(p.member, begun, done.Request(), done.Response())
			select {
			case p.out <- done:
			case <-p.closed:
				return
			}
			if !done.Response().Success {
				_ = p.AppendPipeline.Close()
				return
			}
		case <-p.closed:
			return
		}
	}
}

func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	err := p.AppendPipeline.Close()
	p.relaying.Wait()
	return err
}
