package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// furnished is a store with something of everything.
func furnished(t testing.TB) *bench {
	b := open(t)
	b.put(gateway("public", "http"), service("books", "v1"), route("books", "public", to("books", "v1")),
		plugin("stamp", b.push("a module")), policy("stamp", "stamp"))
	b.push("an idle blob")
	accepted(t, b.entry(chunk("half of a blob", 0, 6))[0])
	accepted(t, b.entry(withID("value", putValue("t", "k", "v")))[0])
	return b
}

func snapshot(t failer, s *Store) []byte {
	t.Helper()
	write, release, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	var buf bytes.Buffer
	if err := write(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// requireTwins: two stores hold the same, byte for byte, and show the same.
func requireTwins(t failer, a, b *Store) {
	t.Helper()
	if !bytes.Equal(snapshot(t, a), snapshot(t, b)) {
		t.Fatal("the files differ")
	}
	if a.Applied() != b.Applied() || a.View().Revision() != b.View().Revision() {
		t.Fatalf("applied %d and %d, revision %d and %d", a.Applied(), b.Applied(), a.View().Revision(), b.View().Revision())
	}
	requireSame(t, slices.Collect(a.View().All()), slices.Collect(b.View().All()))
	requireSame(t, a.memory.next, b.memory.next)
	requireSame(t, a.memory.byID, b.memory.byID)
	for id := range a.memory.byID {
		requireSame(t, fmt.Sprint(a.memory.recall(id)), fmt.Sprint(b.memory.recall(id)))
	}
	for r := range a.View().All() {
		ref := resource.Of(r)
		requireSame(t, slices.Collect(a.View().Referrers(ref)), slices.Collect(b.View().Referrers(ref)))
	}
}

func TestSnapshotIsTheStateAtItsMoment(t *testing.T) {
	a := furnished(t)
	want := snapshot(t, a.Store)
	write, release, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	a.put(service("later"))
	a.delete(ref("Policy", "stamp"), ref("Plugin", "stamp"))
	var late bytes.Buffer
	if err := write(&late); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(late.Bytes(), want) {
		t.Error("what came later shows in the snapshot")
	}
}

func TestRestore(t *testing.T) {
	a, b := furnished(t), open(t)
	b.put(service("gone soon"))
	w := watch(t, b, 0)
	w.require("=1 +gone soon")
	if err := b.Restore(bytes.NewReader(snapshot(t, a.Store))); err != nil {
		t.Fatal(err)
	}
	requireTwins(t, a.Store, b.Store)
	w.require(fmt.Sprintf("=%d +public +stamp +stamp +books +books", a.View().Revision()))
	requireBlob(t, b, "a module")

	// Both go on alike, with the half of a blob and the remembered command.
	b.index = a.index
	for _, x := range []*bench{a, b} {
		accepted(t, x.entry(chunk("half of a blob", 6, 99))[0])
		accepted(t, x.entry(withID("value", putValue("t", "k", "not again")))[0])
		x.put(service("books", "v1", "v2"))
	}
	requireTwins(t, a.Store, b.Store)
	w.require("3→11 +books")
	b.reopen()
	requireTwins(t, a.Store, b.Store)
}

func TestRestoreDoesNotWaitForAReader(t *testing.T) {
	a, b := furnished(t), furnished(t)
	write, release, err := b.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	want := snapshot(t, b.Store)
	restored := make(chan error, 1)
	go func() { restored <- b.Restore(bytes.NewReader(snapshot(t, a.Store))) }()
	var late bytes.Buffer
	if err := errors.Join(write(&late)); err != nil {
		t.Fatal(err)
	}
	release()
	if err := <-restored; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(late.Bytes(), want) {
		t.Error("the snapshot of the old state was disturbed")
	}
}

func TestSnapshotsThatAreRefused(t *testing.T) {
	whole := snapshot(t, furnished(t).Store)
	change := func(f func([]byte) []byte) []byte { return f(bytes.Clone(whole)) }
	tests := map[string]struct {
		data []byte
		want string
	}{
		"nothing":        {nil, "cut short"},
		"something else": {[]byte("something else, long enough to be one"), "no snapshot of this version"},
		"a later version": {change(func(b []byte) []byte { b[len(magic)-2]++; return b }),
			"no snapshot of this version"},
		"without its end":     {whole[:len(whole)-(recordHead+3+16)], "cut short"},
		"with something more": {change(func(b []byte) []byte { return append(b, 0) }), "something follows"},
		"a length of 2 GiB": {change(func(b []byte) []byte { b[len(magic)] = 0x7f; return b }),
			fmt.Sprintf("at byte %d: a record of", len(magic))},
		"without its first record": {change(func(b []byte) []byte {
			first := len(magic) + recordHead + int(b[len(magic)+3])
			return append(b[:len(magic)], b[first:]...)
		}), "missing or were changed"},
		"with a record of another": {change(func(b []byte) []byte {
			body := b[len(magic)+recordHead:][:b[len(magic)+3]]
			body[len(body)-1]++
			binary.BigEndian.PutUint32(b[len(magic)+4:], crc32.Checksum(body, castagnoli))
			return b
		}), "missing or were changed"},
		"with its first record twice": {change(func(b []byte) []byte {
			first := len(magic) + recordHead + int(b[len(magic)+3])
			return slices.Insert(b, first, b[len(magic):first]...)
		}), "not in their order"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			b.put(service("stays"))
			before := snapshot(t, b.Store)
			err := b.Restore(bytes.NewReader(test.data))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error is %v, want %q", err, test.want)
			}
			if !bytes.Equal(before, snapshot(t, b.Store)) {
				t.Error("the state has changed")
			}
			if _, err := os.Stat(filepath.Join(b.dir, restoreName)); err == nil {
				t.Error("the file is left behind")
			}
			b.put(service("goes on"))
		})
	}
}

func TestEverySnapshotThatIsDamagedAnywhereIsRefused(t *testing.T) {
	whole := snapshot(t, furnished(t).Store)
	b := open(t)
	b.put(service("stays"))
	for i := range whole {
		for name, data := range map[string][]byte{
			"cut":     whole[:i],
			"flipped": append(append(bytes.Clone(whole[:i]), whole[i]^0x10), whole[i+1:]...),
		} {
			if i%7 != 0 && i > 2*len(magic) && i < len(whole)-64 {
				continue // every byte of the edges, and every seventh between them
			}
			if err := b.Restore(bytes.NewReader(data)); err == nil {
				t.Fatalf("%s at byte %d of %d: it was taken", name, i, len(whole))
			}
		}
	}
	b.get(ref("Service", "stays"))
}

func TestRestoreFromAReaderThatFails(t *testing.T) {
	b := open(t)
	broken := errors.New("the wire is cut")
	r := io.MultiReader(bytes.NewReader(snapshot(t, furnished(t).Store)[:100]), errReader{broken})
	if err := b.Restore(r); !errors.Is(err, broken) {
		t.Fatalf("error is %v", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestClosedStateIsTakenOver(t *testing.T) {
	b := furnished(t)
	before, applied := snapshot(t, b.Store), b.Applied()
	b.reopen()
	if b.Applied() != applied || !bytes.Equal(before, snapshot(t, b.Store)) {
		t.Fatal("it is not what was closed")
	}
	// What was applied is skipped, in the same shape.
	data := encode(t, transact([]*weirv1.Resource{service("again")}), putValue("t", "k", "again"))
	results := b.Apply([]uint64{1, applied}, [][]byte{data, data})
	if len(results) != 2 || len(results[0]) != 2 || results[0][0] != nil || results[1][1] != nil {
		t.Fatalf("results of skipped entries are %v", results)
	}
	if !bytes.Equal(before, snapshot(t, b.Store)) {
		t.Fatal("an entry was done twice")
	}
}

func TestStateThatWasNotClosedIsDiscarded(t *testing.T) {
	state := func(b *bench) string { return filepath.Join(b.dir, stateName) }
	note := func(b *bench) string { return filepath.Join(b.dir, closedName) }
	rewrite := func(t *testing.T, path string, f func([]byte) []byte) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]func(t *testing.T, b *bench){
		"no note":        func(t *testing.T, b *bench) { rm(t, note(b)) },
		"no state":       func(t *testing.T, b *bench) { rm(t, state(b)) },
		"an empty note":  func(t *testing.T, b *bench) { rewrite(t, note(b), func([]byte) []byte { return nil }) },
		"a torn note":    func(t *testing.T, b *bench) { rewrite(t, note(b), func(d []byte) []byte { return d[:len(d)/2] }) },
		"an empty state": func(t *testing.T, b *bench) { rewrite(t, state(b), func([]byte) []byte { return nil }) },
		"a short state":  func(t *testing.T, b *bench) { rewrite(t, state(b), func(d []byte) []byte { return d[:len(d)-4096] }) },
		"a flipped bit": func(t *testing.T, b *bench) {
			rewrite(t, state(b), func(d []byte) []byte { d[len(d)/2] ^= 1; return d })
		},
	}
	for name, harm := range tests {
		t.Run(name, func(t *testing.T) {
			b := furnished(t)
			whole := snapshot(t, b.Store)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			harm(t, b)
			b.open()
			if b.Applied() != 0 || b.View().Revision() != 0 || b.View().Len() != 0 {
				t.Fatalf("applied is %d, revision %d", b.Applied(), b.View().Revision())
			}
			// The log's owner restores, and the next start trusts it again.
			if err := b.Restore(bytes.NewReader(whole)); err != nil {
				t.Fatal(err)
			}
			b.reopen()
			if !bytes.Equal(whole, snapshot(t, b.Store)) {
				t.Fatal("the rebuilt state differs")
			}
		})
	}
}

func rm(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestRunningStateIsNeverTrusted(t *testing.T) {
	b := furnished(t)
	b.reopen()
	// A copy of the directory as a killed process leaves it.
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(b.dir)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Dir: copied})
	if err != nil {
		t.Fatal(err)
	}
	if s.Applied() != 0 {
		t.Errorf("applied is %d", s.Applied())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	b := open(t)
	if _, err := Open(Config{Dir: b.dir}); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Fatalf("error is %v", err)
	}
	b.put(service("unharmed"))
}

func TestEntryThatCannotBeReadEndsTheProcess(t *testing.T) {
	later := []byte{0x0a, 0x03, 0xfa, 0x07, 0x00} // a command whose action is field 127
	for name, data := range map[string][]byte{"no message": {0xff}, "a command of a later version": later} {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			before := b.View()
			func() {
				defer func() {
					if r := fmt.Sprint(recover()); !strings.Contains(r, "store: entry 1: read command") {
						t.Fatalf("recovered %v", r)
					}
				}()
				b.Apply([]uint64{1}, [][]byte{data})
			}()
			if b.View() != before || b.Applied() != 0 {
				t.Error("something was applied")
			}
		})
	}
}
