package wal

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func open(t testing.TB, dir string, options Options) *Log {
	t.Helper()
	l, err := Open(dir, options)
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

func shut(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func entry(index uint64) *raft.Log {
	return &raft.Log{Index: index, Term: 1 + index/3, Type: raft.LogCommand, Data: fmt.Appendf(nil, "entry %d", index), AppendedAt: time.Unix(0, int64(index))}
}

func store(t testing.TB, l *Log, from, to uint64) {
	t.Helper()
	var entries []*raft.Log
	for i := from; i <= to; i++ {
		entries = append(entries, entry(i))
	}
	if err := l.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
}

// contents are the entries of a log, each as one string.
func contents(l *Log) (all []string, err error) {
	first, err1 := l.FirstIndex()
	last, err2 := l.LastIndex()
	if err1 != nil || err2 != nil || last == 0 {
		return nil, nil
	}
	for i := first; i <= last; i++ {
		var e raft.Log
		if err := l.GetLog(i, &e); err != nil {
			return nil, err
		}
		all = append(all, fmt.Sprintf("%d %d %d %q %q %d", e.Index, e.Term, e.Type, e.Data, e.Extensions, e.AppendedAt.UnixNano()))
	}
	return all, nil
}

func requireEdges(t testing.TB, l *Log, first, last uint64) {
	t.Helper()
	gotFirst, _ := l.FirstIndex()
	gotLast, _ := l.LastIndex()
	if gotFirst != first || gotLast != last {
		t.Fatalf("the log goes from %d to %d; want %d to %d", gotFirst, gotLast, first, last)
	}
}

// copyDir is what another process would find if this one died now.
func copyDir(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// flip changes bits of one byte of a file.
func flip(t testing.TB, path string, at int64, bits byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= bits
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func segmentFiles(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// used is how much of a file is not the zeros at its end.
func used(t testing.TB, path string) int64 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(bytes.TrimRight(data, "\x00")))
}
