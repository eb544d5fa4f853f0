package store

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// large are so many values, of which some replace earlier ones, that they are
// written in several parts.
func large(b *bench) (want map[string]string) {
	want = map[string]string{}
	for i := range 200 {
		key, value := fmt.Sprintf("k%d", i%70), fmt.Sprint(i)+strings.Repeat("x", 50<<10)
		accepted(b.t, b.entry(putValue("t", key, value))[0])
		want[key] = value
		if i%10 == 9 {
			gone := fmt.Sprintf("k%d", i%70-5)
			accepted(b.t, b.entry(&weirv1.Command{Action: &weirv1.Command_DeleteValue{DeleteValue: &weirv1.DeleteValue{Table: "t", Key: gone}}})[0])
			delete(want, gone)
		}
	}
	return want
}

// What gathers in memory is in the file once that is closed.
func TestWhatGatheredIsThereAfterAClose(t *testing.T) {
	b := open(t)
	want := large(b)
	b.put(gateway("g"))
	digest := b.push("content")
	applied := b.Applied()
	b.reopen()
	if b.Applied() != applied {
		t.Errorf("entry %d is applied, want %d", b.Applied(), applied)
	}
	requireValues(t, b, "t", want)
	b.get(resource.Ref{Kind: resource.KindGateway, Tenant: "default", Name: "g"})
	if _, ok := b.Blob(digest); !ok {
		t.Error("the blob is gone")
	}
}

// And it is in every snapshot, while more gathers.
func TestWhatGatheredIsInASnapshot(t *testing.T) {
	b, other := open(t), open(t)
	large(b)
	for range 3 {
		want := large(b)
		write, release, err := b.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := write(&out); err != nil {
			t.Fatal(err)
		}
		release()
		large(other) // is under way to the file that the snapshot replaces
		if err := other.Restore(&out); err != nil {
			t.Fatal(err)
		}
		other.index = other.Applied()
		if other.Applied() != b.Applied() {
			t.Errorf("entry %d is applied, want %d", other.Applied(), b.Applied())
		}
		requireValues(t, other, "t", want)
	}
}

// What could not be written is written with what came later, which has the last
// word.
func TestWhatFailedIsWrittenLater(t *testing.T) {
	b := open(t)
	u := &b.unwritten
	of := func(key, value string) write {
		return write{bucket: bucketValues, key: []byte(key), value: []byte(value)}
	}
	u.written = newBatch()
	u.written.add([]write{of("a", "1"), of("b", "1")}, []counted{{receipt{id: "x"}, 0}, {receipt{id: "y"}, 1}}, 10, 1, 1)
	u.gathered.add([]write{of("b", "2"), {bucket: bucketValues, key: []byte("a"), gone: true}, of("c", "2")}, []counted{{receipt{id: "z"}, remembered}}, 10, 2, 2)
	b.landed(errors.New("no space"))
	if !u.failed || u.written != nil || u.gathered.bytes != 20 || u.gathered.applied != 2 || u.gathered.revision != 2 {
		t.Errorf("%+v, %+v", u, u.gathered)
	}
	if err := b.makeRoom(); err != nil || u.failed || len(u.gathered.writes) != 0 {
		t.Errorf("%v, %+v", err, u)
	}
	tx, err := b.db.Begin(false)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for key, want := range map[string]string{"a": "", "b": "2", "c": "2"} {
		if got := tx.Bucket(bucketValues).Get([]byte(key)); string(got) != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	m := newMemory()
	if err := tx.Bucket(bucketRecent).ForEach(m.load); err != nil {
		t.Fatal(err)
	}
	if m.slots[0].id != "z" || m.slots[1].id != "y" || m.next != remembered+1 {
		t.Errorf("%q and %q are remembered, the next is %d", m.slots[0].id, m.slots[1].id, m.next)
	}
	if applied, _ := number(tx, keyApplied); applied != 2 {
		t.Errorf("the file is at %d", applied)
	}
}
