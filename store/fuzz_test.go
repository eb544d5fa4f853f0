package store

import (
	"bytes"
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// FuzzApply: an entry is refused as unreadable or applied; what it leaves is a
// state that can be taken and restored.
func FuzzApply(f *testing.F) {
	for _, commands := range [][]*weirv1.Command{
		nil,
		{transact([]*weirv1.Resource{service("books"), gateway("public", "http")}), transact(nil, ref("Service", "books"))},
		{chunk("content", 0, 99), transact([]*weirv1.Resource{plugin("p", digestOf("content"))})},
		{transact([]*weirv1.Resource{app("demo"), planOf("free", 10, "minute"), subscription("s", "free", 0)}), lease("edge/a", 1, 5, "minute"), lease("edge/a", 1, 5, "minute"),
			transact(nil, ref("Subscription", "s"))},
		{create(app("demo")), create(app("demo")), withID("id", create(app("other"))), withID("id", create(app("other")))},
		{withID("id", putValue("t", "k", "v")), withID("id", deleteValue("t", "k", true))},
		{changeValues(&weirv1.ValueChange{Table: "t", Key: "k", MustNotExist: true, Value: []byte("v")}), changeValues(&weirv1.ValueChange{Table: "t", Key: "k", MustBe: []byte("v")})},
		{usage("edge/a", segment(1, 1, 1, &weirv1.UsageCount{Tenant: "t", App: "a", Subscription: "s", Api: "a", Operation: "o", StatusClass: 2, Count: 1})), ended("edge/a", epochOf(1))},
	} {
		f.Add(encode(f, commands...))
	}
	b, twin := open(f), open(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		entry, err := decodeEntry(data)
		if err != nil {
			return
		}
		results := b.Apply([]uint64{b.Applied() + 1}, [][]byte{data})[0]
		if len(results) != len(entry.GetCommands()) {
			t.Fatalf("%d results for %d commands", len(results), len(entry.GetCommands()))
		}
		for _, result := range results {
			switch r := result.(type) {
			case *weirv1.ApplyResponse, *weirv1.LeaseTokensResponse:
			case *RefusedError:
				if len(r.Violations) == 0 || strings.TrimSpace(r.Error()) == "" {
					t.Fatalf("refused without a reason: %v", r)
				}
			default:
				t.Fatalf("result is %v", result)
			}
		}
		taken := snapshot(t, b.Store)
		if err := twin.Restore(bytes.NewReader(taken)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(taken, snapshot(t, twin.Store)) {
			t.Fatal("a restored state differs")
		}
	})
}

// FuzzRestore: foreign bytes are refused, or make a state that works.
func FuzzRestore(f *testing.F) {
	whole := snapshot(f, furnished(f).Store)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(magic))
	b := open(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		restoreAnything(t, b, data)
	})
}

// FuzzRestoreRecords is FuzzRestore behind the checksums: the records are
// anything, the frame around them is sound. The data is a list of buckets,
// lengths of key and value, keys and values.
func FuzzRestoreRecords(f *testing.F) {
	f.Add([]byte("\x00\x06\x08format\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Add([]byte("\x03\x03\x18key" + strings.Repeat("\x00", 24) + "\x04\x0ckey\x00" + strings.Repeat("\x00", 8) + "chunk"))
	f.Add([]byte("\x05\x04\x12\x00\x00\x00\x00" + strings.Repeat("\x00", 16) + "\x01i"))
	b := open(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		w := newRecordWriter(&out)
		take := func(n byte) (part []byte) {
			n = byte(min(int(n), len(data)))
			part, data = data[:n], data[n:]
			return part
		}
		for len(data) >= 3 {
			bucket, key, value := data[0]%byte(len(buckets)), data[1], data[2]
			data = data[3:]
			if err := w.record(bucket, take(key), take(value)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		restoreAnything(t, b, out.Bytes())
	})
}

func restoreAnything(t *testing.T, b *bench, data []byte) {
	before := b.View()
	if err := b.Restore(bytes.NewReader(data)); err != nil {
		if b.View() != before {
			t.Fatal("a refused snapshot has changed the state")
		}
		return
	}
	for r := range b.View().All() {
		_ = r
	}
	for key := range scan(b.View().blobs.Root(), nil, nil) {
		if blob, ok := b.Blob(string(key)); ok {
			_, _ = blob.Read(make([]byte, 16))
		}
	}
	b.Apply([]uint64{b.Applied() + 1}, [][]byte{encode(t, transact([]*weirv1.Resource{service("after")}))})
}
