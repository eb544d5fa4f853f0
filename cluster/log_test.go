package cluster

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

// A follower without space must replace entries. Raft deletes them first, and
// then takes them for still there when the new ones cannot be stored: so they
// must be.
func TestEntriesAreReplacedAtOnce(t *testing.T) {
	cfg := config(t)
	l, err := openLog(cfg.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for index := range uint64(5) {
		if err := l.StoreLog(&raft.Log{Index: index + 1, Term: 1}); err != nil {
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

func requireTerm(t *testing.T, l *logStore, index, want uint64) {
	t.Helper()
	var entry raft.Log
	if err := l.GetLog(index, &entry); err != nil || entry.Term != want {
		t.Fatalf("entry %d is of term %d, %v; want %d", index, entry.Term, err, want)
	}
}
