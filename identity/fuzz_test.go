package identity

import (
	"bytes"
	"net/url"
	"testing"
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
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.Parse(s)
		if err != nil {
			return
		}
		id, err := ParseURI(u)
		if err != nil {
			return
		}
		if again, err := ParseURI(id.URI()); err != nil || again != id {
			t.Fatalf("%q parsed to %v, which parses to %v, %v", s, id, again, err)
		}
	})
}

func FuzzKeyring(f *testing.F) {
	k := &Keyring{}
	key, err := newSealKey(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	k.keys = []sealKey{key}
	f.Add([]byte(keyringHead+"\n"+"00"), k.Seal("x", []byte("y")))
	f.Fuzz(func(t *testing.T, file, sealed []byte) {
		if parsed, err := parseKeyring(file); err == nil {
			if data, err := parsed.Open("p", parsed.Seal("p", sealed)); err != nil || !bytes.Equal(data, sealed) {
				t.Fatalf("sealed and opened: %v", err)
			}
		}
		k.Open("x", sealed)
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
