package cluster

import (
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// arrivalsOf is before a log with entries of term 1 from first to last, that is
// agreed on up to an index, beside a snapshot. The test is Raft.
func arrivalsOf(t *testing.T, first, last, agreed, snapshot, term uint64) *arrivals {
	t.Helper()
	l, err := openLog(config(t).withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	for index := first; index <= last && first > 0; index++ {
		if err := l.StoreLog(&raft.Log{Index: index, Term: 1}); err != nil {
			t.Fatal(err)
		}
	}
	l.NoteAgreed(agreed)
	l.snapshotEnd = func() (uint64, uint64) { return snapshot, term }
	closed := make(chan struct{})
	a := newArrivals(l, make(chan raft.RPC), closed)
	t.Cleanup(func() {
		close(closed)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// An append may begin before the log of this member, with what a snapshot has
// taken in, and agrees on no more than it shows.
func TestAppendIsCutOffAtWhatIsAgreedOn(t *testing.T) {
	type appended struct{ prev, prevTerm, entries, commit uint64 }
	// The log is from 10 to 20, and agreed on up to 15.
	for name, test := range map[string]struct{ sent, want appended }{
		"it goes on from the log":          {appended{20, 1, 2, 20}, appended{20, 1, 2, 20}},
		"it is in the log":                 {appended{10, 1, 20, 12}, appended{10, 1, 20, 12}},
		"it begins before the log":         {appended{4, 1, 10, 12}, appended{10, 1, 4, 12}},
		"it begins with the first of all":  {appended{0, 0, 12, 12}, appended{10, 1, 2, 12}},
		"it ends where the log begins":     {appended{4, 1, 6, 12}, appended{0, 0, 0, 0}},
		"it is all before the log":         {appended{4, 1, 2, 12}, appended{0, 0, 0, 0}},
		"it shows nothing":                 {appended{4, 1, 0, 12}, appended{0, 0, 0, 0}},
		"more is agreed on than it shows":  {appended{12, 1, 3, 40}, appended{12, 1, 3, 15}},
		"more is agreed on, and all is in": {appended{20, 1, 0, 40}, appended{20, 1, 0, 20}},
		"it is a sign of life":             {appended{0, 0, 0, 0}, appended{0, 0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			a := arrivalsOf(t, 10, 20, 15, 12, 1)
			request := &raft.AppendEntriesRequest{
				Term: 7, PrevLogEntry: test.sent.prev, PrevLogTerm: test.sent.prevTerm, LeaderCommitIndex: test.sent.commit,
			}
			for i := range test.sent.entries {
				request.Entries = append(request.Entries, &raft.Log{Index: test.sent.prev + 1 + i, Term: 1})
			}
			got := a.cutOff(request)
			if (appended{got.PrevLogEntry, got.PrevLogTerm, uint64(len(got.Entries)), got.LeaderCommitIndex}) != test.want || got.Term != 7 {
				t.Errorf("Raft sees %+v, want %+v", got, test.want)
			}
			for i, entry := range got.Entries {
				if entry.Index != got.PrevLogEntry+1+uint64(i) {
					t.Errorf("at place %d stands entry %d", i, entry.Index)
				}
			}
		})
	}
}

// What is not agreed on is compared, wherever the log begins.
func TestAppendIsNotCutOffAtWhatIsNotAgreedOn(t *testing.T) {
	a := arrivalsOf(t, 10, 20, 8, 9, 1)
	request := &raft.AppendEntriesRequest{PrevLogEntry: 4, PrevLogTerm: 1, Entries: []*raft.Log{{Index: 5, Term: 1}}}
	if got := a.cutOff(request); got.PrevLogEntry != 4 || len(got.Entries) != 1 {
		t.Errorf("Raft sees %+v", got)
	}
}

// Raft sets the state back where it takes over a snapshot of what it has, and
// drops the log. It is told of a heartbeat in its place.
func TestSnapshotOfWhatTheLogHoldsIsNotTakenOver(t *testing.T) {
	for name, test := range map[string]struct {
		first, last, agreed   uint64
		ownIndex, ownTerm     uint64
		index, term           uint64
		takenOver, leavesVoid bool
	}{
		"the log goes on from it":                 {3, 10, 2, 2, 1, 6, 1, false, false},
		"the log ends with it":                    {3, 10, 2, 2, 1, 10, 1, false, false},
		"the log begins after it":                 {7, 10, 0, 6, 1, 6, 1, false, false},
		"it is older than what is agreed on":      {3, 10, 5, 2, 1, 2, 1, false, false},
		"it is ahead of the log":                  {3, 10, 2, 2, 1, 12, 1, true, false},
		"the log does not agree with it":          {3, 10, 2, 2, 1, 6, 2, true, true},
		"the log's last does not agree with it":   {3, 10, 2, 2, 1, 10, 2, true, true},
		"the log is of another history":           {3, 10, 8, 2, 1, 6, 2, true, true},
		"there is no log":                         {0, 0, 0, 0, 0, 6, 1, true, false},
		"the log begins after another of its ind": {7, 10, 0, 6, 1, 6, 2, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			a := arrivalsOf(t, test.first, test.last, test.agreed, test.ownIndex, test.ownTerm)
			body := strings.NewReader("the state")
			answers := make(chan raft.RPCResponse, 1)
			go a.pass(raft.RPC{Reader: body, RespChan: answers, Command: &raft.InstallSnapshotRequest{
				Term: 7, LastLogIndex: test.index, LastLogTerm: test.term, Size: int64(body.Len()),
			}})
			asked := <-a.out
			if _, is := asked.Command.(*raft.InstallSnapshotRequest); is != test.takenOver {
				t.Fatalf("Raft is asked for %T", asked.Command)
			}
			if test.takenOver {
				a.log.snapshotEnd = func() (uint64, uint64) { return test.index, test.term }
				if err := a.log.DeleteRange(test.first, test.last); err != nil {
					t.Fatal(err)
				}
				asked.Respond(&raft.InstallSnapshotResponse{Term: 7, Success: true}, nil)
			} else {
				asked.Respond(&raft.AppendEntriesResponse{Term: 7, Success: true}, nil)
			}
			if test.leavesVoid {
				a.requireVoidEnds(t, test.index, test.term, test.last)
			}
			answer, ok := (<-answers).Response.(*raft.InstallSnapshotResponse)
			if !ok || answer.Term != 7 || !answer.Success {
				t.Errorf("the leader hears %+v", answer)
			}
			if !test.takenOver && body.Len() > 0 {
				t.Error("the snapshot was not read: what comes after it on the stream would not be understood")
			}
		})
	}
}

// requireVoidEnds does what Raft does with an append: it looks for what does not
// agree, and stores from there on.
func (a *arrivals) requireVoidEnds(t *testing.T, index, term, last uint64) {
	t.Helper()
	asked := <-a.out
	request, ok := asked.Command.(*raft.AppendEntriesRequest)
	if !ok || request.Term != 7 || len(request.Entries) != 1 || request.Entries[0].Index != index || request.Entries[0].Term != term {
		t.Fatalf("Raft is asked for %+v", asked.Command)
	}
	var entry raft.Log
	for i := index; i <= last; i++ {
		if err := a.log.GetLog(i, &entry); err != nil || entry.Term != 0 {
			t.Fatalf("entry %d is of term %d, %v", i, entry.Term, err)
		}
	}
	requireError(t, a.log.StoreLog(&raft.Log{Index: last + 1, Term: 1}), errVoid)
	if err := a.log.StoreLogs(request.Entries); err != nil {
		t.Fatal(err)
	}
	asked.Respond(&raft.AppendEntriesResponse{Term: 7, Success: true}, nil)
	requireTerm(t, a.log, index, term)
	if err := a.log.StoreLog(&raft.Log{Index: index + 1, Term: 7}); err != nil {
		t.Fatal(err)
	}
	if first, err := a.log.FirstIndex(); err != nil || first != index+1 {
		t.Errorf("the log begins at %d, %v", first, err)
	}
}
