package cluster

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

func openTestLog(t testing.TB) *logStore {
	t.Helper()
	l, err := openLog(filepath.Join(t.TempDir(), "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func entry(index uint64) *raft.Log {
	return &raft.Log{Index: index, Term: index / 3, Type: raft.LogCommand, Data: []byte(fmt.Sprint("entry ", index))}
}

func TestLogKeepsEntries(t *testing.T) {
	l := openTestLog(t)
	requireEdges(t, l, 0, 0)
	entries := []*raft.Log{
		{Index: 7, Term: 2, Type: raft.LogConfiguration, Data: []byte("data"), Extensions: []byte("more"), AppendedAt: time.Unix(1, 2)},
		{Index: 8, Term: 1 << 60, Type: raft.LogNoop},
		{Index: 9, Term: 3, Data: []byte("x")},
	}
	if err := l.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
	requireEdges(t, l, 7, 9)
	for _, want := range entries {
		var got raft.Log
		if err := l.GetLog(want.Index, &got); err != nil {
			t.Fatal(err)
		}
		same := cmp.Comparer(func(a, b []byte) bool { return string(a) == string(b) })
		if diff := cmp.Diff(*want, got, same); diff != "" {
			t.Errorf("entry (-want +got):\n%s", diff)
		}
	}
	var got raft.Log
	if err := l.GetLog(10, &got); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("error is %v", err)
	}
	if err := l.StoreLog(entry(8)); err != nil { // an entry may be written over
		t.Fatal(err)
	}
	if err := l.GetLog(8, &got); err != nil || string(got.Data) != "entry 8" {
		t.Errorf("entry 8 is %v, %v", got, err)
	}
	if err := l.check(); err != nil {
		t.Error(err)
	}
}

func requireEdges(t *testing.T, l *logStore, first, last uint64) {
	t.Helper()
	gotFirst, err1 := l.FirstIndex()
	gotLast, err2 := l.LastIndex()
	if err := errors.Join(err1, err2); err != nil || gotFirst != first || gotLast != last {
		t.Fatalf("the log goes from %d to %d, %v; want %d to %d", gotFirst, gotLast, err, first, last)
	}
}

func TestLogDeletesRanges(t *testing.T) {
	tests := map[string]struct{ min, max, first, last uint64 }{
		"the head":    {1, 40, 41, 100},
		"the tail":    {60, 100, 1, 59},
		"beyond both": {0, 1000, 0, 0},
		"nothing":     {101, 200, 1, 100},
		"one":         {1, 1, 2, 100},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := openTestLog(t)
			for i := uint64(1); i <= 100; i += 10 {
				var entries []*raft.Log
				for j := range uint64(10) {
					entries = append(entries, entry(i+j))
				}
				if err := l.StoreLogs(entries); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.DeleteRange(test.min, test.max); err != nil {
				t.Fatal(err)
			}
			requireEdges(t, l, test.first, test.last)
			for i := uint64(1); i <= 100; i++ {
				var got raft.Log
				err := l.GetLog(i, &got)
				if deleted := i >= test.min && i <= test.max; deleted != errors.Is(err, raft.ErrLogNotFound) {
					t.Errorf("entry %d: %v", i, err)
				}
			}
		})
	}
}

func TestLogKeepsTermAndVote(t *testing.T) {
	l := openTestLog(t)
	if n, err := l.GetUint64([]byte("term")); n != 0 || err != nil {
		t.Errorf("a term that was never set is %d, %v", n, err)
	}
	if v, err := l.Get([]byte("vote")); len(v) != 0 || err != nil {
		t.Errorf("a vote that was never cast is %q, %v", v, err)
	}
	if err := errors.Join(l.SetUint64([]byte("term"), 1<<63), l.Set([]byte("vote"), []byte("two"))); err != nil {
		t.Fatal(err)
	}
	if n, err := l.GetUint64([]byte("term")); n != 1<<63 || err != nil {
		t.Errorf("the term is %d, %v", n, err)
	}
	if v, err := l.Get([]byte("vote")); string(v) != "two" || err != nil {
		t.Errorf("the vote is %q, %v", v, err)
	}
	if _, err := l.GetUint64([]byte("vote")); err == nil {
		t.Error("a vote was read as a number")
	}
}

// FuzzDecodeLog: foreign bytes are an error or an entry, never a panic; what
// was encoded comes back.
func FuzzDecodeLog(f *testing.F) {
	whole := encodeLog(&raft.Log{Index: 1, Term: 2, Data: []byte("data"), Extensions: []byte("more"), AppendedAt: time.Unix(1, 2)})[sumSize:]
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1}, whole)
	f.Add([]byte{1}, whole[:entryHead-1])
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1}, whole[:entryHead])
	f.Fuzz(func(t *testing.T, key, content []byte) {
		var l raft.Log
		if decodeLog(key, content, &l) != nil {
			return
		}
		if again := encodeLog(&l)[sumSize:]; string(again) != string(content) {
			t.Errorf("%x was read and written as %x", content, again)
		}
	})
}
