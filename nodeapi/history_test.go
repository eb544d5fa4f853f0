package nodeapi

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

func at(revision uint64, d byte) position { return position{revision, digest{d}} }

func step(h *history, to position) { h.append(encodeChange(h.end(), to, nil, nil)) }

func TestHistoryForgetsTheOldest(t *testing.T) {
	h := newHistory(at(1, 1))
	for i := range uint64(maxFrames + 10) {
		step(h, at(2+i, 1))
	}
	if _, _, ok := h.at(9); ok {
		t.Fatal("the tenth change is still there")
	}
	if f, _, ok := h.at(10); !ok || f.to.revision != 12 {
		t.Fatalf("the eleventh change is %v, %v", f, ok)
	}
	if number, ok := h.find(at(5, 1)); !ok && number != 10 {
		t.Fatalf("a proxy from before goes on from %d, %v", number, ok)
	}
	if f, wait, ok := h.at(maxFrames + 10); !ok || f != nil || wait == nil {
		t.Fatal("the next change is not waited for")
	}
}

func TestHistoryIsBoundedInBytes(t *testing.T) {
	h := newHistory(position{})
	for i := range uint64(40) {
		h.append(&frame{to: at(i+1, 1), size: 1 << 20})
	}
	if h.bytes > maxFrameBytes || len(h.frames) == 0 {
		t.Fatalf("%d changes of %d bytes are kept", len(h.frames), h.bytes)
	}
}

func TestHistoryFind(t *testing.T) {
	h := newHistory(at(10, 1))
	step(h, at(12, 2))
	step(h, at(15, 2)) // nothing in the scope changed
	step(h, at(20, 3))
	for name, c := range map[string]struct {
		proxy  position
		number uint64
		ok     bool
	}{
		"at the start":                       {at(10, 1), 0, true},
		"in the middle":                      {at(12, 2), 1, true},
		"between two, with the state before": {at(13, 2), 1, true},
		"at an empty change":                 {at(15, 2), 2, true},
		"at the end":                         {at(20, 3), 3, true},
		"ahead, unchanged":                   {at(25, 3), 3, true},
		"before the start":                   {at(9, 1), 0, false},
		"another state":                      {at(15, 9), 2, false},
		"a state of another time":            {at(20, 2), 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			number, ok := h.find(c.proxy)
			if ok != c.ok || ok && number != c.number {
				t.Fatalf("found %d, %v; want %d, %v", number, ok, c.number, c.ok)
			}
		})
	}
}

func TestSnapshotComesInParts(t *testing.T) {
	var all []*weirv1.Resource
	want := newHeld()
	for i := range 300 {
		r := service("s" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + string(rune('a'+i/26)))
		// What does not compress, so that parts are big on the wire too.
		meta := resource.Meta(r)
		meta.Revision = uint64(i + 1)
		meta.Annotations = map[string]string{"noise": noise(i, 10_000)}
		all = append(all, r)
		want.at.digest.toggle(resource.Of(r), meta.Revision)
	}
	f := encodeSnapshot(position{300, want.at.digest}, all)
	if len(f.parts) < 3 {
		t.Fatalf("%d parts for three MiB", len(f.parts))
	}
	got, c := newHeld(), &received{}
	for i, part := range f.parts {
		if size := proto.Size(part); size > maxPart+1024 {
			t.Errorf("part %d has %d bytes", i, size)
		}
		whole, err := c.add(arrived(t, part))
		if err != nil || whole != (i == len(f.parts)-1) {
			t.Fatalf("part %d of %d: whole %v, %v", i, len(f.parts), whole, err)
		}
	}
	if err := got.receive(c); err != nil || len(got.resources) != len(all) {
		t.Fatalf("%d resources arrived, %v", len(got.resources), err)
	}
}

func noise(seed, n int) string {
	b := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = 'a' + byte(x%26)
	}
	return string(b)
}

func TestReceiveRefusesWhatDoesNotFit(t *testing.T) {
	base := func() *held {
		h := newHeld()
		r := service("a")
		resource.Meta(r).Revision = 5
		var d digest
		d.toggle(resource.Of(r), 5)
		if err := h.receive(&received{snapshot: true, revision: 5, puts: []*weirv1.Resource{r}, digest: d}); err != nil {
			t.Fatal(err)
		}
		return h
	}
	for name, c := range map[string]*received{
		"a gap":          {from: 7, revision: 8, digest: base().at.digest},
		"another digest": {from: 5, revision: 6, digest: digest{1}},
		"a delete of what others do not have": {from: 5, revision: 6, digest: base().at.digest,
			deletes: []resource.Ref{ref("Service", "a")}},
	} {
		t.Run(name, func(t *testing.T) {
			h := base()
			if err := h.receive(c); err == nil {
				t.Fatal("it was taken in")
			}
			if h.at != (position{}) {
				t.Fatalf("it would go on from %v rather than ask for a snapshot", h.at)
			}
		})
	}
}

func FuzzReceived(f *testing.F) {
	for _, part := range encodeSnapshot(at(3, 1), []*weirv1.Resource{gateway("a", nil), service(strings.Repeat("s", 60))}).parts {
		raw, err := proto.Marshal(part)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := new(weirv1.StreamConfigResponse)
		if proto.Unmarshal(data, m) != nil {
			return
		}
		c := &received{}
		if whole, err := c.add(m); err != nil || !whole {
			return
		}
		h := newHeld()
		if err := h.receive(c); err == nil {
			h.update()
			h.accept()
		}
	})
}
