package identity

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirmesh/weir/identity/identitytest"
)

// ringMembers are servers with a keyring file each, over the same records.
type ringMembers struct {
	t       *testing.T
	records *identitytest.Records
	names   []string
	keys    map[string]*Keys
	// registrars have the same keyring as keys.
	registrars map[string]*Registrar
}

func newRingMembers(t *testing.T, names ...string) *ringMembers {
	t.Helper()
	m := &ringMembers{t, identitytest.NewRecords(), names, map[string]*Keys{}, map[string]*Registrar{}}
	first := newKeyring(t)
	for _, name := range names {
		m.start(name, filepath.Join(t.TempDir(), "keyring"), first.Export())
	}
	return m
}

func (m *ringMembers) start(name, path string, exported []byte) {
	m.t.Helper()
	k, err := InstallKeyring(path, exported)
	if err != nil {
		m.t.Fatal(err)
	}
	r, err := OpenRegistrar(m.t.Context(), m.records, k, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	m.registrars[name] = r
	m.keys[name] = NewKeys(KeysConfig{Records: m.records, Keyring: k, Member: name,
		Members: func() []string { return m.names }, Sealed: []Sealed{r}})
}

func (m *ringMembers) step(names ...string) {
	m.t.Helper()
	for _, name := range names {
		if err := m.keys[name].Step(m.t.Context()); err != nil {
			m.t.Fatal(err)
		}
	}
}

// is says which state each key is in, at a member, in order.
func (m *ringMembers) is(name string) string {
	m.t.Helper()
	list, err := m.keys[name].List(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	var states []string
	for _, s := range list {
		states = append(states, string(s.State))
	}
	return strings.Join(states, " ")
}

func (m *ringMembers) require(name, want string) {
	m.t.Helper()
	if got := m.is(name); got != want {
		m.t.Fatalf("at %s the keys are %s, want %s", name, got, want)
	}
}

func (m *ringMembers) ring(name string) *Keyring { return m.keys[name].cfg.Keyring }

func (m *ringMembers) stored() []byte {
	value, _ := m.records.Value(TableClusterKey, ringKey)
	return value
}

func TestKeyRotation(t *testing.T) {
	m := newRingMembers(t, "a", "b", "c")
	m.step("a", "b", "c")
	m.require("b", "SEALS")
	old := m.ring("a").ID()
	id, err := m.keys["b"].Rotate(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	m.require("a", "SEALS NEXT")
	if _, err := m.keys["a"].Rotate(t.Context(), "bob"); !errors.Is(err, ErrRotatingKey) || !strings.Contains(err.Error(), id+" is on its way") {
		t.Fatalf("a second rotation: %v", err)
	}
	m.step("a", "b", "a")
	list, err := m.keys["a"].List(t.Context())
	if err != nil || list[1].ID != id || list[1].By != "alice" || !slices.Equal(list[1].Lacking, []string{"c"}) || list[0].Needed != 1 {
		t.Fatalf("while c is away: %+v, %v", list, err)
	}
	// The last one to take it over is the first to seal with it.
	m.step("c")
	m.require("a", "OPENS SEALS")
	if strings.Contains(string(m.stored()), `"copy"`) {
		t.Fatal("a copy of the key stays in the records")
	}
	for _, name := range []string{"a", "b", "c"} {
		if _, err := m.registrars[name].refresh(t.Context()); err != nil {
			t.Fatalf("in between, at %s: %v", name, err)
		}
	}
	if err := m.keys["a"].Drop(t.Context(), old); !errors.Is(err, ErrNeeded) {
		t.Fatalf("dropped before all seal by the new key: %v", err)
	}
	m.step("a", "b", "c")
	for _, name := range []string{"a", "b", "c"} {
		if m.ring(name).ID() != id {
			t.Fatalf("%s seals by %s", name, m.ring(name).ID())
		}
	}
	if sealed, _ := m.records.Value(TableAuthority, authorityKey); !strings.Contains(string(sealed[1:5]), string(m.ring("a").all()[0].id[:])) {
		t.Fatal("the authority is not sealed anew")
	}
	// After a restart each reads it from its own file.
	again, err := ReadKeyring(m.ring("b").path)
	if err != nil || again.ID() != id || len(again.Keys()) != 2 || again.Keys()[0].Created.IsZero() {
		t.Fatalf("b's file has %v, %v", again.Keys(), err)
	}
	if err := m.keys["a"].Drop(t.Context(), id); !errors.Is(err, ErrNeeded) {
		t.Fatalf("dropped the key that seals: %v", err)
	}
	if err := m.keys["a"].Drop(t.Context(), "none"); !errors.Is(err, ErrNoKey) {
		t.Fatalf("dropped a key that is not there: %v", err)
	}
	if err := m.keys["a"].Drop(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	m.step("b", "c")
	m.require("c", "DROPPED SEALS")
	for _, name := range []string{"a", "b", "c"} {
		if len(m.ring(name).Keys()) != 1 {
			t.Fatalf("%s still holds %v", name, m.ring(name).Keys())
		}
	}
	if err := m.keys["a"].Drop(t.Context(), old); err == nil {
		t.Fatal("dropped twice")
	}
}

// What is sealed by a key keeps it, whatever it is.
type stubborn struct{ by string }

func (s stubborn) Reseal(context.Context, *Keyring) error { return nil }
func (s stubborn) SealedBy(context.Context) (map[string]int, error) {
	return map[string]int{s.by: 3}, nil
}

func TestAKeyThatIsNeededIsNotDropped(t *testing.T) {
	m := newRingMembers(t, "a")
	old := m.ring("a").ID()
	m.keys["a"].cfg.Sealed = append(m.keys["a"].cfg.Sealed, stubborn{old})
	if _, err := m.keys["a"].Rotate(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	m.step("a", "a")
	m.require("a", "OPENS SEALS")
	if err := m.keys["a"].Drop(t.Context(), old); !errors.Is(err, ErrNeeded) || !strings.Contains(err.Error(), "3 things") {
		t.Fatalf("got %v", err)
	}
}

// A server that does not know the members yet decides nothing for them.
func TestKeysWithoutMembers(t *testing.T) {
	m := newRingMembers(t, "a", "b")
	m.step("a", "b")
	if _, err := m.keys["a"].Rotate(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	old := m.ring("a").ID()
	m.keys["a"].cfg.Members = func() []string { return nil }
	m.step("a")
	m.require("b", "SEALS NEXT")
	if err := m.keys["a"].Drop(t.Context(), old); err == nil {
		t.Fatal("it dropped a key")
	}
}

// A rotation may be given up while it is on its way.
func TestAKeyOnItsWayIsDropped(t *testing.T) {
	m := newRingMembers(t, "a", "b")
	m.step("a", "b")
	id, err := m.keys["a"].Rotate(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.keys["a"].Drop(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	m.step("b", "a", "b")
	m.require("b", "SEALS DROPPED")
	if len(m.ring("a").Keys()) != 1 || len(m.ring("b").Keys()) != 1 {
		t.Fatalf("a holds %v, b %v", m.ring("a").Keys(), m.ring("b").Keys())
	}
}

// A server that was off when a key was dropped does not bring it back.
func TestADroppedKeyStaysSo(t *testing.T) {
	m := newRingMembers(t, "a", "b")
	m.step("a", "b")
	old, file := m.ring("b").ID(), m.ring("b").Export()
	if _, err := m.keys["a"].Rotate(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	m.step("b", "a", "b", "a")
	if err := m.keys["a"].Drop(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	m.step("b")
	// b gets its old file back from a backup, and says what is wrong with it.
	path := filepath.Join(t.TempDir(), "keyring")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := ReadKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	m.keys["b"] = NewKeys(KeysConfig{Records: m.records, Keyring: k, Member: "b", Members: func() []string { return m.names }})
	if err := m.keys["b"].Step(t.Context()); err == nil || !strings.Contains(err.Error(), "copy the keyring file of another server") {
		t.Fatalf("got %v", err)
	}
	m.require("a", "DROPPED SEALS")
	list, err := m.keys["a"].List(t.Context())
	if err != nil || list[1].Problems["b"] == "" {
		t.Fatalf("a is told %+v, %v", list, err)
	}
}

// systemd hands the keyrings over: the operator puts the new key into each, and
// no copy of it is ever in the records.
func TestKeyringsThatAreHandedOver(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	m := newRingMembers(t, "a", "b")
	m.step("a", "b")
	file := m.ring("a").Export()
	restart := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, keyringCredential), data, 0o440); err != nil {
			t.Fatal(err)
		}
		path := LocateKeyring(t.TempDir())
		k, err := ReadKeyring(path)
		if err != nil || !k.given {
			t.Fatalf("%s: %v", path, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		m.keys[name] = NewKeys(KeysConfig{Records: m.records, Keyring: k, Member: name,
			Members: func() []string { return m.names }, Sealed: []Sealed{m.registrars[name]}})
		m.registrars[name].keyring = k
	}
	restart("a", file)
	restart("b", file)
	if _, err := m.keys["a"].Rotate(t.Context(), ""); !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), "behind the first one") {
		t.Fatalf("a rotation: %v", err)
	}
	byHand, err := InstallKeyring(filepath.Join(t.TempDir(), "keyring"), file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := byHand.Add(); err != nil {
		t.Fatal(err)
	}
	both := byHand.Export()
	restart("a", both)
	m.step("a")
	m.require("b", "SEALS NEXT")
	if strings.Contains(string(m.stored()), `"copy"`) {
		t.Fatal("a key of the operator's is in the records")
	}
	restart("b", both)
	m.step("b", "a", "b", "a")
	m.require("a", "OPENS SEALS")
	// They seal by it though the files say otherwise.
	if id := m.ring("a").ID(); id != m.ring("b").ID() || id == sealsFirst(file) {
		t.Fatalf("a seals by %s", id)
	}
	// A key that is dropped is named, for the operator to take it out.
	if err := m.keys["a"].Drop(t.Context(), sealsFirst(file)); !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), "by hand") {
		t.Fatalf("got %v", err)
	}
	m.require("b", "DROPPED SEALS")
}

// sealsFirst names the first key of a file.
func sealsFirst(file []byte) string {
	keys, err := parseKeyring(file)
	if err != nil {
		return ""
	}
	return keys[0].name()
}

// Members that step at random moments, and a rotation now and then, while
// nodes join: nobody ever fails to open what another sealed.
func TestKeyRotationUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRingMembers(t, "a", "b", "c")
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		var failed errorHandler
		for name, r := range m.registrars {
			running.Go(func() {
				r.Follow(ctx, FollowConfig{Every: time.Second, Keys: m.keys[name], Logger: slog.New(&failed)})
			})
		}
		token := edgeToken(t, m.registrars["a"])
		for round := range 3 {
			time.Sleep(10 * time.Second)
			if _, err := m.keys[m.names[round]].Rotate(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			if err := m.registrars["a"].RotateRoot(t.Context()); err != nil && !errors.Is(err, ErrRotating) {
				t.Fatal(err)
			}
			for _, name := range m.names {
				node := newIdentity(t)
				if _, err := join(t, m.registrars[name], token, "e"+string(rune('0'+round))+name, node); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(10 * time.Second)
		cancel()
		running.Wait()
		m.require("a", "OPENS OPENS OPENS SEALS")
		for _, said := range failed.said {
			t.Error(said)
		}
	})
}

// errorHandler keeps warnings.
type errorHandler struct {
	mu   sync.Mutex
	said []string
}

func (h *errorHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (h *errorHandler) WithAttrs([]slog.Attr) slog.Handler           { return h }
func (h *errorHandler) WithGroup(string) slog.Handler                { return h }
func (h *errorHandler) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	h.said = append(h.said, text)
	return nil
}
