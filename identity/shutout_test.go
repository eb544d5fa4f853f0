package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// tables are records as a member's own state has them.
type tables struct{ Records }

func (r tables) Values(table string) iter.Seq2[string, []byte] {
	entries, _ := r.List(context.Background(), table)
	return func(yield func(string, []byte) bool) {
		for _, e := range entries {
			if !yield(e.Key, e.Value) {
				return
			}
		}
	}
}

func shutOutNow(t *testing.T, r *Registrar) *weirv1.ShutOut {
	t.Helper()
	keys, err := ShutOut(tables{r.records}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// A proxy's key is on the list from its removal on, whoever has its name then, for as long
// as a certificate for it may be good. So is one that has lost its name to another.
func TestWhoIsShutOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistrar(t)
		stolen, peer := joined(t, r, sidecarOf("books"), "books-1"), joined(t, r, sidecarOf("shop"), "shop-1")
		if got := shutOutNow(t, r); len(got.GetKeys()) != 0 {
			t.Fatalf("while nobody was removed: %v", got)
		}
		listed := func(when string, nodes ...*Identity) {
			t.Helper()
			got := shutOutNow(t, r)
			if len(got.GetKeys()) != len(nodes) {
				t.Fatalf("%s %d keys are listed, want %d", when, len(got.GetKeys()), len(nodes))
			}
			if _, err := peer.TakeShutOut(got, true); err != nil {
				t.Fatal(err)
			}
			for i, n := range nodes {
				if !peer.IsShutOut(chainOf(t, n)[0]) {
					t.Errorf("%s node %d is believed", when, i)
				}
			}
		}
		remove := func(role Role, name string) {
			t.Helper()
			if err := r.Remove(t.Context(), role, name, "mira"); err != nil {
				t.Fatal(err)
			}
		}
		remove(RoleSidecar, "books-1")
		listed("after the removal", stolen)
		time.Sleep(time.Hour)
		fresh := joined(t, r, sidecarOf("books"), "books-1")
		listed("with its name another's", stolen)
		if peer.IsShutOut(chainOf(t, fresh)[0]) || peer.IsShutOut(chainOf(t, peer)[0]) {
			t.Error("one that was not removed is shut out")
		}
		// An edge with a new disk: nobody was removed.
		lost := joined(t, r, JoinTokenConfig{Role: RoleEdge}, "e1")
		joined(t, r, JoinTokenConfig{Role: RoleEdge}, "e1")
		listed("after a name was taken over", stolen, lost)
		// Servers are judged by servers.
		joined(t, r, JoinTokenConfig{Role: RoleServer, Uses: 1}, "a")
		remove(RoleServer, "a")
		listed("after a server was removed", stolen, lost)
		// Who joins again with the key would be let in by servers, and by nobody else.
		token := createJoin(t, r, JoinTokenConfig{Role: RoleSidecar, Tenant: "default", Service: "books", TTL: time.Hour})
		if _, err := join(t, r, token, "books-1", stolen); !errors.Is(err, ErrRemoved) || !errors.Is(err, ErrRequest) {
			t.Errorf("the key joins again: %v", err)
		}
		time.Sleep(outlives - time.Hour)
		listed("once its certificates have run out", lost)
		if peer.IsShutOut(chainOf(t, stolen)[0]) {
			t.Error("it is remembered for longer than that")
		}
	})
}

// What is known is kept on disk, and stays whatever else a server says.
func TestShutOutIsKept(t *testing.T) {
	r := newRegistrar(t)
	stolen, node := joined(t, r, sidecarOf("books"), "books-1"), joined(t, r, sidecarOf("shop"), "shop-1")
	leaf := chainOf(t, stolen)[0]
	take := func(want bool, m *weirv1.ShutOut) {
		t.Helper()
		if fresh, err := node.TakeShutOut(m, true); err != nil || fresh != want {
			t.Fatalf("fresh: %v, %v; want %v", fresh, err, want)
		}
	}
	key := func(node *Identity, until time.Duration) *weirv1.ShutOut {
		return &weirv1.ShutOut{Keys: []*weirv1.ShutOutKey{{Sha256: node.keyHash(), Until: timestamppb.New(time.Now().Add(until))}}}
	}
	take(false, key(stolen, -time.Second))
	take(true, key(stolen, 1000*time.Hour))
	take(false, key(stolen, time.Hour))
	take(false, new(weirv1.ShutOut))
	take(false, &weirv1.ShutOut{Keys: []*weirv1.ShutOutKey{{Sha256: []byte("short"), Until: timestamppb.New(time.Now().Add(time.Hour))}, {}}})
	again, err := Open(node.dir)
	if err != nil || again.ShutOutDamage() != nil || !again.IsShutOut(leaf) {
		t.Fatalf("after a restart it is believed: %v, %v", err, again.ShutOutDamage())
	}
	for _, until := range *again.shutOut.Load() {
		if left := time.Until(until); left > outlives+clockSkew {
			t.Errorf("it stays for %s", left)
		}
	}
	file := filepath.Join(node.dir, shutOutFile)
	data, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, append(data, "not one\n"...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if again, err = Open(node.dir); err != nil || again.ShutOutDamage() == nil || !again.IsShutOut(leaf) {
		t.Errorf("with the file damaged: %v, %v", err, again.ShutOutDamage())
	}

	// What is not to be written is in force, and is written the next time.
	other := joined(t, r, sidecarOf("books"), "books-2")
	kept := func() bool {
		again, err := Open(node.dir)
		if err != nil {
			t.Fatal(err)
		}
		return again.IsShutOut(chainOf(t, other)[0])
	}
	if fresh, err := node.TakeShutOut(key(other, time.Hour), false); err != nil || !fresh || !node.IsShutOut(chainOf(t, other)[0]) || kept() {
		t.Errorf("fresh: %v, %v; on disk: %v", fresh, err, kept())
	}
	take(false, key(other, time.Hour))
	if !kept() {
		t.Error("it is not on disk")
	}

	// Those that run out first go first when there are too many.
	many := new(weirv1.ShutOut)
	for i := range maxShutOut + 10 {
		sum := sha256.Sum256(fmt.Append(nil, i))
		many.Keys = append(many.Keys, &weirv1.ShutOutKey{Sha256: sum[:], Until: timestamppb.New(time.Now().Add(time.Hour + time.Duration(i)*time.Second))})
	}
	take(true, many)
	if n := len(*node.shutOut.Load()); n != maxShutOut || !node.IsShutOut(leaf) {
		t.Errorf("%d are kept", n)
	}
	if again, err = Open(node.dir); err != nil || again.ShutOutDamage() != nil || len(*again.shutOut.Load()) != maxShutOut {
		t.Errorf("after a restart: %v, %v", err, again.ShutOutDamage())
	}
}

func FuzzParseShutOut(f *testing.F) {
	f.Add([]byte(strings.Repeat("00", 32) + " 2026-01-02T03:04:05Z\n"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseShutOut(data)
		if err != nil {
			return
		}
		again, err := parseShutOut(s.text())
		if err != nil || len(again) != len(s) || !bytes.Equal(again.text(), s.text()) {
			t.Fatalf("%q is read as %v, and that as %v, %v", data, s, again, err)
		}
	})
}
