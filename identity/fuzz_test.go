package identity

import (
	"bytes"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/identity/identitytest"
	"github.com/weirmesh/weir/identity/record"
)

func FuzzParseToken(f *testing.F) {
	f.Add(Token{ID: newID(), Secret: newSecret(), Fingerprint: newSecret()}.String())
	f.Add("weir1...")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			return
		}
		again, err := ParseToken(token.String())
		if err != nil || again != token {
			t.Fatalf("%q parsed to %v, which parses to %v, %v", s, token, again, err)
		}
	})
}

func FuzzParseURI(f *testing.F) {
	f.Add("spiffe://a.weir.internal/node/edge/e1")
	f.Add("spiffe://a.weir.internal/node/edge/e1%2f..")
	f.Add("spiffe://a.weir.internal/ns/default/svc/books")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.Parse(s)
		if err != nil {
			return
		}
		id, err := ParseURI(u, "n1")
		if err != nil {
			return
		}
		if again, err := ParseURI(id.URI(), id.Name); err != nil || again != id {
			t.Fatalf("%q parsed to %v, which parses to %v, %v", s, id, again, err)
		}
	})
}

// FuzzKeyring: a file is refused or read; what is read is written so that it
// reads the same, and seals.
func FuzzKeyring(f *testing.F) {
	fixed, err := newSealKey(make([]byte, 32), time.Time{})
	if err != nil {
		f.Fatal(err)
	}
	own := new(Keyring)
	own.keys.Store(&[]sealKey{fixed})
	zeros := strings.Repeat("00", 32)
	f.Add([]byte(keyringHead1+"\n"+zeros), own.Seal("x", []byte("y")))
	f.Add([]byte(keyringHead+"\n# why\n"+zeros+" 2026-01-02T03:04:05+01:00\n"), []byte{sealedV1})
	f.Add([]byte(keyringHead+"\n"+zeros+" 9999-12-31T23:59:59-01:00\n"), []byte(nil))
	f.Fuzz(func(t *testing.T, file, sealed []byte) {
		if keys, err := parseKeyring(file); err == nil {
			k := new(Keyring)
			k.keys.Store(&keys)
			if data, err := k.Open("p", k.Seal("p", sealed)); err != nil || !bytes.Equal(data, sealed) {
				t.Fatalf("sealed and opened: %v", err)
			}
			again, err := parseKeyring(k.Export())
			if err != nil || len(again) != len(keys) || again[0].id != keys[0].id {
				t.Fatalf("%q was written as %q: %v", file, k.Export(), err)
			}
		}
		if data, err := own.Open("x", sealed); err == nil && string(data) != "y" {
			t.Fatalf("opened %q, which was never sealed", data)
		}
	})
}

func FuzzRequestKey(f *testing.F) {
	f.Add([]byte("\x30\x00"))
	f.Fuzz(func(t *testing.T, csr []byte) {
		if key, err := RequestKey(csr); err == nil && key == nil {
			t.Fatal("no key and no error")
		}
	})
}

func FuzzCredentialFiles(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, err := parsePEM(data, "CERTIFICATE")
		if err != nil {
			return
		}
		NewVerifier("a.example", blocks)
	})
}

// FuzzAuthority: a record is refused or makes an authority that can be sealed,
// opened and used.
func FuzzAuthority(f *testing.F) {
	a, err := NewAuthority("a.example")
	if err != nil {
		f.Fatal(err)
	}
	keys := []sealKey{makeSealKey()}
	k := new(Keyring)
	k.keys.Store(&keys)
	for range 4 {
		sealed, err := a.Seal(k)
		if err != nil {
			f.Fatal(err)
		}
		data, err := k.Open(authorityPurpose, sealed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		if a.phase == PhaseSteady {
			a, err = a.announce(time.Now())
		} else {
			a = a.advance(time.Now(), func(uint64) bool { return true })
		}
		if err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseAuthority(data)
		if err != nil {
			return
		}
		sealed, err := a.Seal(k)
		if err != nil {
			t.Fatal(err)
		}
		b, err := OpenAuthority(k, sealed)
		if err != nil || b.Fingerprint() != a.Fingerprint() || len(b.Roots()) != len(a.Roots()) {
			t.Fatalf("sealed and opened it is another: %v", err)
		}
		b.state()
		b.path(time.Now())
	})
}

// FuzzRecords: what a member reads of another's records is refused or used.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"keyHash":"AA==","removed":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"hash":"AA==","uses":1,"used":[{"node":"edge/e1"}]}`))
	f.Add([]byte(`{"seals":"00000000","keys":[{"id":"00000000","copy":"AQ=="}],"members":{"a":{"holds":[""]}}}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		records := identitytest.NewRecords()
		for _, table := range []string{TableNode, TableJoinToken, TableClusterKey} {
			key := map[string]string{TableNode: "edge/e1", TableJoinToken: "000000000000", TableClusterKey: ringKey}[table]
			if len(value) == 0 || records.Change(t.Context(), record.Change{Table: table, Key: key, Is: value}) != nil {
				return
			}
		}
		keys := []sealKey{makeSealKey()}
		k := &Keyring{given: true}
		k.keys.Store(&keys)
		r, err := OpenRegistrar(t.Context(), records, k, 0)
		if err != nil {
			t.Fatal(err)
		}
		r.Nodes(t.Context())
		r.Tokens().ListJoin(t.Context())
		r.Tokens().sweep(t.Context(), time.Now())
		ring := NewKeys(KeysConfig{Records: records, Keyring: k, Member: "s1", Members: func() []string { return []string{"s1"} }})
		ring.Step(t.Context())
		ring.List(t.Context())
	})
}

func FuzzHello(f *testing.F) {
	f.Add([]byte(`{"self":{"name":"a","address":"a:1"},"expect":2,"met":[{"name":"a","address":"a:1"}]}`))
	f.Add([]byte(`{"self":{"name":"b","address":"a:1"},"expect":2,"committed":[{"name":"b","address":"a:1"},{"name":"s","address":"s:1"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		founders, err := NewFounders(t.TempDir()+"/founders", Founder{"s", "s:1"}, 2)
		if err != nil {
			t.Fatal(err)
		}
		h, err := parseHello(data)
		if err != nil {
			return
		}
		founders.Hear(h.Self.Name, data)
		founders.Others()
		if _, err := parseHello(founders.Hello()); err != nil {
			t.Fatalf("after %q it says what nobody understands: %v", data, err)
		}
	})
}
