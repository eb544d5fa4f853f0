package wal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// A log that was closed is whole or refused: no bit of it can change and take
// an entry along.
func TestDamageAnywhereIsSeen(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 600})
	for i := uint64(1); i <= 12; i += 2 {
		store(t, l, i, i+1)
	}
	if err := l.DeleteRange(11, 12); err != nil {
		t.Fatal(err)
	}
	store(t, l, 11, 11)
	if err := l.SetUint64([]byte("term"), 4); err != nil {
		t.Fatal(err)
	}
	want, err := contents(l)
	if err != nil {
		t.Fatal(err)
	}
	shut(t, l)
	files := append(segmentFiles(t, dir), filepath.Join(dir, "stable"))
	if len(files) < 4 {
		t.Fatalf("only %d files", len(files))
	}
	for _, path := range files {
		for at := range used(t, path) {
			requireWholeOrRefused(t, dir, filepath.Base(path), at, want)
		}
	}
}

func requireWholeOrRefused(t *testing.T, dir, name string, at int64, want []string) {
	t.Helper()
	damaged := copyDir(t, dir)
	flip(t, filepath.Join(damaged, name), at, 1<<(at%8))
	l, err := Open(damaged, Options{NoSync: true})
	if err != nil {
		if !strings.Contains(err.Error(), ".seg") && !strings.Contains(err.Error(), "stable") {
			t.Errorf("%s damaged at %d: the error names no file: %v", name, at, err)
		}
		return
	}
	defer l.Close()
	got, err := contents(l)
	term, _ := l.GetUint64([]byte("term"))
	if err != nil || !slices.Equal(got, want) || term != 4 {
		t.Errorf("%s damaged at %d was believed: %d of %d entries, term %d, %v", name, at, len(got), len(want), term, err)
	}
}

// Without a Close only the last batch can go unseen: nothing says that it was
// ever safe.
func TestDamageBeforeTheLastBatchIsSeenAfterACrash(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 2048})
	for i := uint64(1); i <= 10; i += 2 {
		store(t, l, i, i+1)
	}
	crashed := copyDir(t, dir)
	path := segmentFiles(t, dir)[0]
	end := int64(l.segments[0].offsets[8]) // where the last batch begins
	for at := int64(headerSize); at < end; at++ {
		damaged := copyDir(t, crashed)
		flip(t, filepath.Join(damaged, filepath.Base(path)), at, 0x10)
		if l, err := Open(damaged, Options{NoSync: true}); err == nil {
			got, err := contents(l)
			if err != nil || len(got) != 10 {
				t.Errorf("damaged at %d: %d entries of 10, %v", at, len(got), err)
			}
			l.Close()
		}
	}
}

// A crash takes entries, not size: a file that is shorter than it was made is
// missing something, whatever its entries say.
func TestAFileThatIsCutShortIsSeen(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 2048})
	store(t, l, 1, 10)
	path := segmentFiles(t, dir)[0]
	for size := range int64(2048) {
		short := copyDir(t, dir)
		name := filepath.Join(short, filepath.Base(path))
		if err := os.Truncate(name, size); err != nil {
			t.Fatal(err)
		}
		l, err := Open(short, Options{NoSync: true})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Fatalf("cut to %d bytes: %v", size, err)
		}
		if l != nil {
			l.Close()
		}
	}
}

// A crash in the middle of a write leaves any part of it: all that came before
// is there, and of the batch at most a beginning.
func TestTornBatchIsDropped(t *testing.T) {
	for seed := range uint64(25) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		dir := t.TempDir()
		l := open(t, dir, Options{SegmentBytes: 20 << 10})
		store(t, l, 1, 5)
		before := copyDir(t, dir)
		var batch []*raft.Log
		for i := range uint64(1 + rnd.IntN(4)) {
			batch = append(batch, &raft.Log{Index: 6 + i, Data: bytes.Repeat([]byte{byte(i + 1)}, rnd.IntN(3000))})
		}
		if err := l.StoreLogs(batch); err != nil {
			t.Fatal(err)
		}
		path := segmentFiles(t, dir)[0]
		tear(t, filepath.Join(before, filepath.Base(path)), path, rnd)
		torn, err := Open(before, Options{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		got, err := contents(torn)
		if err != nil || len(got) < 5 || len(got) > 5+len(batch) {
			t.Fatalf("seed %d: %d entries, %v", seed, len(got), err)
		}
		next := uint64(len(got)) + 1
		store(t, torn, next, next+2) // and it goes on
		shut(t, torn)
		requireEdges(t, open(t, before, Options{}), 1, next+2)
	}
}

// tear carries some of the sectors of a newer file over to an older one.
func tear(t *testing.T, older, newer string, rnd *rand.Rand) {
	t.Helper()
	a, err := os.ReadFile(older)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(newer)
	if err != nil {
		t.Fatal(err)
	}
	const sector = 512
	for at := 0; at < len(b); at += sector {
		if rnd.IntN(2) == 0 {
			copy(a[at:at+sector], b[at:at+sector])
		}
	}
	if err := os.WriteFile(older, a, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMissingFilesAreSeen(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 300})
	for i := uint64(1); i <= 12; i++ {
		l.NoteAgreed(i - 1)
		store(t, l, i, i)
	}
	shut(t, l)
	files := segmentFiles(t, dir)
	if len(files) < 4 {
		t.Fatalf("only %d segments", len(files))
	}
	for i, path := range append(files[1:], filepath.Join(dir, "stable")) {
		damaged := copyDir(t, dir)
		if err := os.Remove(filepath.Join(damaged, filepath.Base(path))); err != nil {
			t.Fatal(err)
		}
		if l, err := Open(damaged, Options{}); err == nil {
			last, _ := l.LastIndex()
			l.Close()
			if i != len(files)-2 || last == 12 { // the newest may have held only what was not agreed on
				t.Errorf("without %s the log was opened, up to %d", filepath.Base(path), last)
			}
		}
	}
}

// What callers put into entries is never taken for a record.
func TestEntryThatHoldsALog(t *testing.T) {
	dir := t.TempDir()
	inner := open(t, t.TempDir(), Options{})
	store(t, inner, 1, 20)
	data, err := os.ReadFile(inner.current().path)
	if err != nil {
		t.Fatal(err)
	}
	l := open(t, dir, Options{})
	store(t, l, 1, 1)
	if err := l.StoreLog(&raft.Log{Index: 2, Data: data[:4096]}); err != nil {
		t.Fatal(err)
	}
	crashed := copyDir(t, dir)
	flip(t, segmentFiles(t, crashed)[0], int64(l.segments[0].offsets[1])+4, 1)
	requireEdges(t, open(t, crashed, Options{}), 1, 1)
}

func FuzzParseRecord(f *testing.F) {
	nonce := []byte("12345678")
	f.Add(appendEntry(nil, nonce, 3, 2, entry(4)), nonce)
	f.Add(appendRecord(nil, nonce, kindClosed, 3, 2, nil), nonce)
	f.Fuzz(func(t *testing.T, data, nonce []byte) {
		r, err := parseRecord(data, nonce)
		if err != nil || r.kind != kindEntry {
			return
		}
		var e raft.Log
		r.entry(&e)
		again := appendEntry(nil, nonce, r.safe, r.agreed, &e)
		if int64(len(again)) != r.size || !bytes.Equal(again[:len(again)-alignment], data[:len(again)-alignment]) {
			t.Errorf("%s was written again as another record", fmt.Sprint(e))
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add(header{seq: 3, void: 4, prevSeq: 2, prevEnd: 99}.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := parseHeader(data); err == nil && !bytes.Equal(h.encode()[:52], data[:52]) {
			t.Errorf("%+v was written again as another header", h)
		}
	})
}

func FuzzStable(f *testing.F) {
	f.Add(encodeStable(map[string][]byte{"term": {1}, "vote": nil}))
	f.Fuzz(func(t *testing.T, data []byte) {
		values, err := decodeStable(data)
		if err != nil {
			return
		}
		again, err := decodeStable(encodeStable(values))
		if err != nil || len(again) != len(values) {
			t.Errorf("%v became %v, %v", values, again, err)
		}
	})
}
