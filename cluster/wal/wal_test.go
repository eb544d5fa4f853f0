package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

func TestLogKeepsEntries(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	requireEdges(t, l, 0, 0)
	entries := []*raft.Log{
		{Index: 7, Term: 2, Type: raft.LogConfiguration, Data: []byte("data"), Extensions: []byte("more"), AppendedAt: time.Unix(1, 2)},
		{Index: 8, Term: 1 << 60, Type: raft.LogNoop},
		{Index: 9, Term: 3, Data: []byte(strings.Repeat("x", 9<<20))}, // larger than a segment
	}
	if err := l.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"now", "after a restart"} {
		requireEdges(t, l, 7, 9)
		for _, want := range entries {
			var got raft.Log
			if err := l.GetLog(want.Index, &got); err != nil {
				t.Fatal(err)
			}
			same := cmp.Comparer(func(a, b []byte) bool { return string(a) == string(b) })
			if diff := cmp.Diff(*want, got, same); diff != "" {
				t.Errorf("%s, entry (-want +got):\n%s", state, diff)
			}
		}
		for _, index := range []uint64{0, 6, 10} {
			if err := l.GetLog(index, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
				t.Errorf("%s, entry %d: %v", state, index, err)
			}
		}
		shut(t, l)
		l = open(t, dir, Options{})
	}
}

func TestLogRefusesGaps(t *testing.T) {
	l := open(t, t.TempDir(), Options{})
	store(t, l, 5, 7)
	for _, entries := range [][]*raft.Log{
		{entry(9)}, {entry(8), entry(10)}, {{Index: 0}}, {{Index: 8, Data: make([]byte, maxRecord)}},
	} {
		if err := l.StoreLogs(entries); err == nil {
			t.Errorf("%d entries from %d on were taken", len(entries), entries[0].Index)
		}
	}
	if err := l.DeleteRange(6, 6); err == nil {
		t.Error("an entry was deleted from between others")
	}
	requireEdges(t, l, 5, 7)
}

func TestLogKeepsValues(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	if err := errors.Join(l.SetUint64([]byte("term"), 1<<60), l.Set([]byte("vote"), []byte("b"))); err != nil {
		t.Fatal(err)
	}
	if err := l.SetUint64([]byte("term"), 1<<61); err != nil {
		t.Fatal(err)
	}
	shut(t, l)
	l = open(t, dir, Options{})
	term, err1 := l.GetUint64([]byte("term"))
	vote, err2 := l.Get([]byte("vote"))
	none, err3 := l.GetUint64([]byte("none"))
	if err := errors.Join(err1, err2, err3); err != nil || term != 1<<61 || string(vote) != "b" || none != 0 {
		t.Errorf("term %d, vote %q, none %d, %v", term, vote, none, err)
	}
	if _, err := l.GetUint64([]byte("vote")); err == nil {
		t.Error("a vote was read as a number")
	}
}

// What is agreed on comes to the disk with the next entries, by Settle and by
// Close, and never names more than there is.
func TestLogKnowsWhatIsAgreedOn(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	known := func() uint64 {
		t.Helper()
		crashed := open(t, copyDir(t, dir), Options{})
		return crashed.AgreedIndex()
	}
	store(t, l, 1, 5)
	l.NoteAgreed(9)
	if got := l.AgreedIndex(); got != 5 {
		t.Errorf("agreed up to %d, want 5", got)
	}
	l.NoteAgreed(2)
	if got := known(); got != 0 {
		t.Errorf("the disk knows of %d before it was told", got)
	}
	store(t, l, 6, 6)
	if got := known(); got != 2 {
		t.Errorf("with an entry the disk got to know of %d, want 2", got)
	}
	l.NoteAgreed(3)
	if err := l.Settle(); err != nil {
		t.Fatal(err)
	}
	if got := known(); got != 3 {
		t.Errorf("by Settle the disk got to know of %d, want 3", got)
	}
	l.NoteAgreed(6)
	shut(t, l)
	if got := known(); got != 6 {
		t.Errorf("by Close the disk got to know of %d, want 6", got)
	}
}

func TestOneProcessHasALog(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, Options{})
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("it was opened twice: %v", err)
	}
}

func TestOldSegmentsGo(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 512})
	for i := uint64(1); i <= 100; i++ {
		store(t, l, i, i)
	}
	before := len(segmentFiles(t, dir))
	if err := l.DeleteRange(1, 90); err != nil {
		t.Fatal(err)
	}
	requireEdges(t, l, 91, 100)
	if after := len(segmentFiles(t, dir)); after > 3 || before < 10 {
		t.Errorf("%d segments became %d", before, after)
	}
	if got := l.Newest(1 << 20); got != 10 {
		t.Errorf("the newest are %d, want 10", got)
	}
	if got := l.Newest(1); got != 1 {
		t.Errorf("the newest within a byte are %d, want 1", got)
	}
	if got, most := l.Bytes(), int64(3*512); got > most {
		t.Errorf("it takes %d bytes", got)
	}
}

// A segment that the disk failed is left behind, and the log goes on.
func TestLogGoesOnAfterAnError(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	store(t, l, 1, 3)
	readOnly, err := os.Open(l.current().path)
	if err != nil {
		t.Fatal(err)
	}
	writable := l.current().f
	defer writable.Close()
	l.current().f = readOnly
	if err := l.StoreLog(entry(4)); err == nil {
		t.Fatal("a file was written to that cannot be")
	}
	requireEdges(t, l, 1, 3)
	store(t, l, 4, 6)
	requireEdges(t, l, 1, 6)
	shut(t, l)
	requireEdges(t, open(t, dir, Options{}), 1, 6)
}

// A long life, drawn from a seed, beside a list: each step may be the last one
// before a crash, and what is found then is what was acknowledged.
func TestLogIsAList(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { live(t, seed, 100) })
	}
}

func live(t *testing.T, seed uint64, steps int) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	dir, options := t.TempDir(), Options{SegmentBytes: 400, NoSync: true}
	l := open(t, dir, options)
	var want []*raft.Log
	for step := range steps {
		what := ""
		switch n := rnd.IntN(20); {
		case n < 12:
			want, what = grow(t, l, rnd, want)
		case n < 14 && len(want) > 0:
			want, what = truncate(t, l, rnd, want)
		case n < 17 && len(want) > 0:
			want, what = compact(t, l, rnd, want)
		case n == 17:
			what = "restarted"
			shut(t, l)
			l = open(t, dir, options)
		case n == 18:
			what = "settled"
			if err := l.Settle(); err != nil {
				t.Fatal(err)
			}
		}
		requireHolds(t, l, want, fmt.Sprintf("step %d, %s", step, what))
		if rnd.IntN(4) == 0 {
			crashed, err := Open(copyDir(t, dir), options)
			if err != nil {
				t.Fatalf("step %d, %s, after a crash: %v", step, what, err)
			}
			requireHolds(t, crashed, want, fmt.Sprintf("step %d, %s, after a crash", step, what))
			shut(t, crashed)
		}
	}
}

// requireHolds: all that is wanted is there, and before it at the most what was
// compacted away.
func requireHolds(t *testing.T, l *Log, want []*raft.Log, when string) {
	t.Helper()
	last, _ := l.LastIndex()
	if len(want) == 0 {
		return
	}
	if last != want[len(want)-1].Index {
		t.Fatalf("%s: the log ends at %d, want %d", when, last, want[len(want)-1].Index)
	}
	for _, w := range want {
		var got raft.Log
		if err := l.GetLog(w.Index, &got); err != nil || string(got.Data) != string(w.Data) || got.Term != w.Term {
			t.Fatalf("%s: entry %d is %q of term %d, %v; want %q", when, w.Index, got.Data, got.Term, err, w.Data)
		}
	}
}

func grow(t *testing.T, l *Log, rnd *rand.Rand, want []*raft.Log) ([]*raft.Log, string) {
	next := uint64(1 + rnd.IntN(100))
	if last, _ := l.LastIndex(); last > 0 {
		next = last + 1
		if len(want) > 0 && rnd.IntN(10) == 0 { // written over
			next = want[rnd.IntN(len(want))].Index
			want = want[:next-want[0].Index]
		}
	}
	var batch []*raft.Log
	for range 1 + rnd.IntN(5) {
		batch = append(batch, &raft.Log{Index: next, Term: rnd.Uint64N(9), Data: []byte(strings.Repeat(string(rune('a'+rnd.IntN(26))), rnd.IntN(200)))})
		next++
	}
	l.NoteAgreed(0)
	if err := l.StoreLogs(batch); err != nil {
		t.Fatal(err)
	}
	return append(slices.Clip(want), batch...), fmt.Sprintf("stored %d to %d", batch[0].Index, next-1)
}

func truncate(t *testing.T, l *Log, rnd *rand.Rand, want []*raft.Log) ([]*raft.Log, string) {
	from, to := want[rnd.IntN(len(want))].Index, want[len(want)-1].Index
	if first, _ := l.FirstIndex(); from == want[0].Index {
		from = first
	}
	if err := l.DeleteRange(from, to); err != nil {
		t.Fatal(err)
	}
	if from <= want[0].Index {
		return nil, fmt.Sprintf("deleted all, %d to %d", from, to)
	}
	return want[:from-want[0].Index], fmt.Sprintf("deleted the end, %d to %d", from, to)
}

func compact(t *testing.T, l *Log, rnd *rand.Rand, want []*raft.Log) ([]*raft.Log, string) {
	first, _ := l.FirstIndex()
	to := want[rnd.IntN(len(want))].Index
	if err := l.DeleteRange(first, to); err != nil {
		t.Fatal(err)
	}
	return want[to-want[0].Index+1:], fmt.Sprintf("deleted the beginning, %d to %d", first, to)
}
