package cluster

import (
	"bytes"
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

// A follower without space must replace entries. Raft deletes them first, and
// then takes them for still there when the new ones cannot be stored: so they
// must be.
func TestEntriesAreReplacedAtOnce(t *testing.T) {
	t.Run("of the log's end", func(t *testing.T) { requireReplacedAtOnce(t, 1) })
	t.Run("of all that follows a snapshot", func(t *testing.T) { requireReplacedAtOnce(t, 3) })
}

// requireReplacedAtOnce replaces entry 3 and what follows in a log that begins
// there, or before.
func requireReplacedAtOnce(t *testing.T, begins uint64) {
	cfg := config(t)
	l, err := openLog(cfg.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.snapshotEnd = func() (uint64, uint64) { return begins - 1, 1 }
	for index := begins; index <= 5; index++ {
		if err := l.StoreLog(&raft.Log{Index: index, Term: 1}); err != nil {
			t.Fatal(err)
		}
	}
	full := true
	l.free = func(string) (int64, bool) { return 0, full }
	for range 2 {
		if err := l.DeleteRange(3, 5); err != nil {
			t.Fatal(err)
		}
		requireError(t, l.StoreLog(&raft.Log{Index: 3, Term: 2}), ErrNoSpace)
		requireTerm(t, l, 5, 1)
	}
	full = false
	if err := errors.Join(l.DeleteRange(3, 5), l.StoreLog(&raft.Log{Index: 3, Term: 2})); err != nil {
		t.Fatal(err)
	}
	if last, err := l.LastIndex(); err != nil || last != 3 {
		t.Errorf("the log ends at %d, %v", last, err)
	}
	requireTerm(t, l, 2, 1)
	requireTerm(t, l, 3, 2)
}

// The newest entries are read from memory, and are those of the disk, whatever
// became of them.
func TestTheNewestEntriesAreTheLogs(t *testing.T) {
	l, err := openLog(config(t).withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	store := func(first, last, term uint64, size int) {
		t.Helper()
		var entries []*raft.Log
		for index := first; index <= last; index++ {
			entries = append(entries, &raft.Log{Index: index, Term: term, Data: bytes.Repeat([]byte{byte(index)}, size)})
		}
		if err := l.StoreLogs(entries); err != nil {
			t.Fatal(err)
		}
	}
	compare := func(held int) {
		t.Helper()
		if got := len(l.newest.entries); got != held {
			t.Errorf("%d entries are in memory, want %d", got, held)
		}
		last, err := l.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		for index := range last + 3 {
			var got, want raft.Log
			gotErr, wantErr := l.GetLog(index, &got), l.Log.GetLog(index, &want)
			if !errors.Is(gotErr, wantErr) || got.Term != want.Term || got.Index != want.Index || !bytes.Equal(got.Data, want.Data) {
				t.Fatalf("entry %d: %d of %d, %v; want %d of %d, %v", index, got.Index, got.Term, gotErr, want.Index, want.Term, wantErr)
			}
		}
	}
	store(1, 10, 1, 100)
	compare(10)
	store(11, 100, 1, 100)
	compare(newestEntries)
	store(95, 97, 2, 100) // replaces the end
	compare(3)
	store(98, 100, 2, newestBytes/2)
	compare(2)
	store(101, 101, 2, newestBytes+1)
	compare(0)
	store(102, 104, 2, 10)
	if err := l.DeleteRange(1, 103); err != nil {
		t.Fatal(err)
	}
	compare(0)
	store(105, 106, 2, 10)
	if err := l.Clear(); err != nil {
		t.Fatal(err)
	}
	compare(0)
}

// What is agreed on is never replaced, whoever asks for it.
func TestWhatIsAgreedOnIsNotReplaced(t *testing.T) {
	l, err := openLog(config(t).withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for index := range uint64(5) {
		if err := l.StoreLog(&raft.Log{Index: index + 1, Term: 1}); err != nil {
			t.Fatal(err)
		}
	}
	l.NoteAgreed(3)
	requireError(t, l.StoreLog(&raft.Log{Index: 3, Term: 2}), errHistory)
	requireTerm(t, l, 3, 1)
	if err := l.StoreLog(&raft.Log{Index: 4, Term: 2}); err != nil {
		t.Fatal(err)
	}
	requireTerm(t, l, 4, 2)
}

func requireTerm(t *testing.T, l *logStore, index, want uint64) {
	t.Helper()
	var entry raft.Log
	if err := l.GetLog(index, &entry); err != nil || entry.Term != want {
		t.Fatalf("entry %d is of term %d, %v; want %d", index, entry.Term, err, want)
	}
}
