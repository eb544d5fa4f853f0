package cluster

import (
	"io"

	"github.com/hashicorp/raft"
)

// arrivals stands between the transport and Raft: what other members ask of this
// one passes through it, one after the other. Raft v1.8.0 forgets three rules of
// the algorithm wherever a snapshot comes between a member and its leader, and
// then refuses the same append for ever, or panics. They are kept here.
//
//   - An append may begin before this member's log, with entries that a snapshot
//     has taken in. What is agreed on is not compared again: it is cut off.
//   - A snapshot of what the log holds anyway is not taken over. Raft would set the
//     state back, and drop entries that this member has acknowledged.
//   - A snapshot that a longer log does not agree with ends that log. Raft drops it
//     and goes on as if it were still there: see void.
//
// And an append agrees on no more than what it has shown to be the same here.
type arrivals struct {
	log    *logStore
	in     <-chan raft.RPC
	out    chan raft.RPC
	closed <-chan struct{}
}

func newArrivals(log *logStore, in <-chan raft.RPC, closed <-chan struct{}) *arrivals {
	return &arrivals{log: log, in: in, out: make(chan raft.RPC), closed: closed}
}

func (a *arrivals) run() {
	for {
		select {
		case rpc := <-a.in:
			a.pass(rpc)
		case <-a.closed:
			return
		}
	}
}

func (a *arrivals) pass(rpc raft.RPC) {
	switch request := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		a.fillVoid(request)
		rpc.Command = a.cutOff(request)
	case *raft.InstallSnapshotRequest:
		if a.holds(request.LastLogIndex, request.LastLogTerm) {
			a.confirm(rpc, request)
		} else {
			a.install(rpc, request)
		}
		return
	}
	a.send(rpc)
}

func (a *arrivals) send(rpc raft.RPC) (sent bool) {
	select {
	case a.out <- rpc:
		return true
	case <-a.closed:
		return false
	}
}

// ask has Raft do something before anything else, and returns what it answers; not
// ok: it has ended.
func (a *arrivals) ask(command any, reader io.Reader) (answer raft.RPCResponse, ok bool) {
	answers := make(chan raft.RPCResponse, 1)
	if !a.send(raft.RPC{Command: command, Reader: reader, RespChan: answers}) {
		return answer, false
	}
	select {
	case answer := <-answers:
		return answer, true
	case <-a.closed:
		return answer, false
	}
}

// cutOff leaves of an append what this member needs to hear.
func (a *arrivals) cutOff(request *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	shown := request.PrevLogEntry + uint64(len(request.Entries))
	request.LeaderCommitIndex = min(request.LeaderCommitIndex, shown)
	from, ok := a.comparable()
	if !ok || request.PrevLogEntry >= from.Index || isHeartbeat(request) {
		return request
	}
	cut := *request
	if shown <= from.Index {
		// All of it is agreed on: what is left says only who leads.
		cut.PrevLogEntry, cut.PrevLogTerm, cut.LeaderCommitIndex, cut.Entries = 0, 0, 0, nil
		return &cut
	}
	cut.PrevLogEntry, cut.PrevLogTerm = from.Index, from.Term
	cut.Entries = request.Entries[from.Index-request.PrevLogEntry:]
	if cut.Entries[0].Index != from.Index+1 {
		return request // it makes no sense
	}
	return &cut
}

// comparable is the first entry that this member can compare with another's, where
// a snapshot holds those before it; not ok: it is not known to be agreed on.
func (a *arrivals) comparable() (from raft.Log, ok bool) {
	first, err := a.log.FirstIndex()
	if err != nil || first <= 1 {
		return from, false
	}
	agreed := a.log.AgreedIndex()
	at := first
	if end, _ := a.log.snapshotEnd(); first > agreed && end == first-1 {
		at = end
	}
	ok = at <= agreed && a.log.GetLog(at, &from) == nil
	return from, ok
}

// holds tells whether the log holds all that a snapshot does.
func (a *arrivals) holds(index, term uint64) bool {
	var entry raft.Log
	if err := a.log.Log.GetLog(index, &entry); err == nil {
		return entry.Term == term
	}
	if index <= a.log.AgreedIndex() {
		return true // and a snapshot holds it
	}
	first, err := a.log.FirstIndex()
	at, of := a.log.snapshotEnd()
	return err == nil && first == index+1 && at == index && of == term
}

// confirm answers for a snapshot that nothing needs to be taken from. Raft sees a
// heartbeat, and decides by that whether this is its leader.
func (a *arrivals) confirm(rpc raft.RPC, request *raft.InstallSnapshotRequest) {
	if _, err := io.Copy(io.Discard, rpc.Reader); err != nil {
		rpc.Respond(&raft.InstallSnapshotResponse{RPCHeader: request.RPCHeader}, err)
		return
	}
	answer, ok := a.ask(&raft.AppendEntriesRequest{RPCHeader: request.RPCHeader, Term: request.Term}, nil)
	if !ok {
		return
	}
	response := new(raft.InstallSnapshotResponse)
	if beat, ok := answer.Response.(*raft.AppendEntriesResponse); ok {
		response.RPCHeader, response.Term, response.Success = beat.RPCHeader, beat.Term, beat.Success
	}
	rpc.Respond(response, answer.Error)
}

func (a *arrivals) install(rpc raft.RPC, request *raft.InstallSnapshotRequest) {
	a.log.installing.Store(true)
	answer, ok := a.ask(request, rpc.Reader)
	a.log.installing.Store(false)
	if !ok {
		return
	}
	a.fillVoid(&raft.AppendEntriesRequest{RPCHeader: request.RPCHeader, Term: request.Term})
	rpc.Respond(answer.Response, answer.Error)
}

// fillVoid tells Raft where the log ends, where it thinks of more: as an append of
// the leader that the request is of. If it does not take it, the next request is
// another try.
func (a *arrivals) fillVoid(request *raft.AppendEntriesRequest) {
	v := a.log.void.Load()
	if v == nil {
		return
	}
	a.ask(&raft.AppendEntriesRequest{
		RPCHeader: request.RPCHeader, Term: request.Term,
		Entries: []*raft.Log{{Index: v.index, Term: v.term, Type: raft.LogNoop}},
	}, nil)
}
