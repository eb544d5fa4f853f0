package nodeapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// accepted takes a change into what is held, as if it had come by a stream and
// been accepted, and writes it.
func accepted(t *testing.T, j *journal, h *held, snapshot bool, puts []*weirv1.Resource, deletes ...resource.Ref) {
	t.Helper()
	c := &received{snapshot: snapshot, from: h.at.revision, revision: h.at.revision + 1, deletes: deletes}
	d := h.at.digest
	if snapshot {
		c.from, d = 0, digest{}
	}
	for _, ref := range deletes {
		d.toggle(ref, revisionOf(h.resources[ref]))
	}
	for _, r := range puts {
		if old := h.resources[resource.Of(r)]; old != nil {
			d.toggle(resource.Of(r), revisionOf(old))
		}
		resource.Meta(r).Revision = c.revision
		d.toggle(resource.Of(r), c.revision)
	}
	c.puts, c.digest = puts, d
	if err := h.receive(c); err != nil {
		t.Fatal(err)
	}
	u := h.update()
	h.accept()
	if err := j.write(h, u); err != nil {
		t.Fatal(err)
	}
}

// writtenJournal holds a snapshot and two changes.
func writtenJournal(t *testing.T) (dir string, keyring *identity.Keyring, h *held) {
	t.Helper()
	dir = t.TempDir()
	keyring, h = openKeyring(t, dir), newHeld()
	j := newJournal(dir, "a.example", keyring)
	defer j.close()
	accepted(t, j, h, true, []*weirv1.Resource{gateway("public", nil), service("books")})
	accepted(t, j, h, false, []*weirv1.Resource{route("r", "public", "books")})
	h.at.revision += 3 // revisions that changed nothing are not written
	h.accept()
	accepted(t, j, h, false, []*weirv1.Resource{service("prices")}, ref("Service", "books"))
	return dir, keyring, h
}

func TestJournal(t *testing.T) {
	dir, keyring, want := writtenJournal(t)
	got, err := newJournal(dir, "a.example", keyring).load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(names(want.resources), names(got.resources)); diff != "" {
		t.Fatal(diff)
	}
	if got.at != want.at || !got.isAccepted || got.accepted != want.accepted {
		t.Fatalf("at %v, accepted %d; want %v, %d", got.at, got.accepted, want.at, want.accepted)
	}
	info, err := os.Stat(filepath.Join(dir, journalName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	data, err := os.ReadFile(filepath.Join(dir, journalName))
	if err != nil || bytes.Contains(data, []byte("public")) {
		t.Fatal("the journal can be read by anyone")
	}
}

func TestJournalThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	if h, err := newJournal(dir, "a.example", openKeyring(t, dir)).load(); h != nil || err != nil {
		t.Fatalf("got %v, %v", h, err)
	}
}

func TestJournalIsWrittenAnewWhenItHasGrown(t *testing.T) {
	dir := t.TempDir()
	keyring, h := openKeyring(t, dir), newHeld()
	j := newJournal(dir, "a.example", keyring)
	defer j.close()
	accepted(t, j, h, true, []*weirv1.Resource{service("a")})
	for i := range 40 {
		r := service("a")
		resource.Meta(r).Annotations = map[string]string{"noise": noise(i, 100_000)}
		accepted(t, j, h, false, []*weirv1.Resource{r})
	}
	info, err := os.Stat(filepath.Join(dir, journalName))
	if err != nil || info.Size() > 2*minCompact {
		t.Fatalf("%d bytes for one resource, %v", info.Size(), err)
	}
	got, err := newJournal(dir, "a.example", keyring).load()
	if err != nil || got.at != h.at {
		t.Fatalf("at %v, %v; want %v", got.at, err, h.at)
	}
}

func TestDamagedJournal(t *testing.T) {
	dir, keyring, whole := writtenJournal(t)
	path := filepath.Join(dir, journalName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	records := split(t, good)
	head := good[:journalHead]
	join := func(parts ...[]byte) []byte { return bytes.Join(append([][]byte{head}, parts...), nil) }
	flipped := func(i int) []byte {
		data := bytes.Clone(good)
		data[i] ^= 1
		return data
	}
	for name, c := range map[string]struct {
		data     []byte
		revision uint64 // what is still usable; 0: nothing
	}{
		"the end cut off":               {good[:len(good)-3], 2},
		"half a length at the end":      {append(bytes.Clone(good), 0, 0), whole.at.revision},
		"a huge length at the end":      {binary.BigEndian.AppendUint32(bytes.Clone(good), 1<<31), whole.at.revision},
		"a flipped bit in the last":     {flipped(len(good) - 1), 2},
		"a flipped bit in the snapshot": {flipped(journalHead + 40), 0},
		"a flipped bit in the file id":  {flipped(len(journalMagic)), 0},
		"a record left out":             {join(records[0], records[2]), 1},
		"two records changed round":     {join(records[0], records[2], records[1]), 1},
		"a record twice":                {join(records[0], records[1], records[1]), 2},
		"no snapshot":                   {join(records[1]), 0},
		"nothing":                       {nil, 0},
		"something else":                {[]byte("key: value\n"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			h, err := newJournal(dir, "a.example", keyring).load()
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Fatalf("the error %v does not say which file is damaged", err)
			}
			var got uint64
			if h != nil {
				got = h.at.revision
			}
			if got != c.revision {
				t.Fatalf("revision %d is used, want %d (%v)", got, c.revision, err)
			}
		})
	}
	t.Run("another node's", func(t *testing.T) {
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		if h, err := newJournal(dir, "a.example", openKeyring(t, t.TempDir())).load(); h != nil || !errors.Is(err, identity.ErrSealed) {
			t.Fatalf("got %v, %v", h, err)
		}
		if h, err := newJournal(dir, "b.example", keyring).load(); h != nil || !errors.Is(err, identity.ErrSealed) {
			t.Fatalf("of another cluster: got %v, %v", h, err)
		}
	})
}

func split(t *testing.T, data []byte) (records [][]byte) {
	t.Helper()
	for rest := data[journalHead:]; len(rest) > 0; {
		n := 4 + binary.BigEndian.Uint32(rest)
		records = append(records, rest[:n])
		rest = rest[n:]
	}
	if len(records) != 3 {
		t.Fatalf("%d records, want 3", len(records))
	}
	return records
}

// A journal that was damaged is whole again after the next write.
func TestDamagedJournalIsReplaced(t *testing.T) {
	dir, keyring, _ := writtenJournal(t)
	path := filepath.Join(dir, journalName)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data[:len(data)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	j := newJournal(dir, "a.example", keyring)
	defer j.close()
	h, err := j.load()
	if err == nil || h == nil {
		t.Fatalf("got %v, %v", h, err)
	}
	accepted(t, j, h, false, []*weirv1.Resource{service("new")})
	again, err := newJournal(dir, "a.example", keyring).load()
	if err != nil || again.at != h.at || again.resources[ref("Service", "new")] == nil {
		t.Fatalf("got %v, %v", again, err)
	}
}

func FuzzJournal(f *testing.F) {
	dir := f.TempDir()
	keyring, err := identity.OpenKeyring(filepath.Join(dir, "keyring"))
	if err != nil {
		f.Fatal(err)
	}
	j := newJournal(dir, "a.example", keyring)
	h := newHeld()
	h.pendingAll = true
	u := h.update()
	if err := j.write(h, u); err != nil {
		f.Fatal(err)
	}
	j.close()
	good, err := os.ReadFile(j.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(journalMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		newJournal(dir, "a.example", keyring).parse(data)
	})
}
