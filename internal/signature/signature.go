// Package signature says who lets a module run under a plugin's name.
//
//	author:  Sign(key, name, digest) ─▶ Signature ─▶ servers: Trust.Admit ─▶ proxies: Trust.Check
//
// # What is signed
//
// The [Statement], a text of three lines:
//
//	weir plugin signature v1
//	name: stamp
//	digest: sha256:…
//
// So a signature is good for one name and the bytes of one module, and for nothing
// that anybody signs for another purpose. It does not say when: an old version that
// was signed may come back, which is what a rollback is. To end what a key has
// signed, take the key out of the [Trust].
//
// # Files
//
// Keys are PEM, PKCS #8 and PKIX: what openssl genpkey -algorithm ed25519 and openssl
// pkey -pubout write. A signature in a file is a PEM block of its own, see [Encode].
package signature

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Signature is by a key, which it names.
type Signature struct {
	// Key is the [KeyID] of the public key.
	Key   string
	Bytes []byte
}

// Statement is what is signed. Neither a name nor a digest has a line break.
func Statement(name, digest string) []byte {
	return []byte("weir plugin signature v1\nname: " + name + "\ndigest: " + digest + "\n")
}

// Sign lets a module run under a name.
func Sign(key ed25519.PrivateKey, name, digest string) Signature {
	return Signature{Key: KeyID(key.Public().(ed25519.PublicKey)), Bytes: ed25519.Sign(key, Statement(name, digest))}
}

// KeyID names a public key.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return "ed25519:" + hex.EncodeToString(sum[:8])
}

// Key is a public key that is trusted.
type Key struct {
	Name   string
	Public ed25519.PublicKey
	// NotAfter is when servers stop to take in what it has signed; zero: never.
	NotAfter time.Time
}

// Trust says whose signatures count. The zero value trusts nobody and asks for
// nothing.
type Trust struct {
	// Require: what none of the keys has signed is refused.
	Require bool
	Keys    []Key
}

// Admit says whether a module may come in under a name now: by the names of which
// keys, or why not.
func (t Trust) Admit(name, digest string, signatures []Signature, now time.Time) (by []string, err error) {
	return t.judge(name, digest, signatures, func(k Key) bool { return k.NotAfter.IsZero() || now.Before(k.NotAfter) })
}

// Check says whether what came in may run. It looks at no clock: what runs would end
// with the next start of a proxy.
func (t Trust) Check(name, digest string, signatures []Signature) (by []string, err error) {
	return t.judge(name, digest, signatures, func(Key) bool { return true })
}

func (t Trust) judge(name, digest string, signatures []Signature, current func(Key) bool) (by []string, err error) {
	var unknown, expired []string
	for _, s := range signatures {
		key, known := t.find(s.Key)
		switch {
		case !known:
			unknown = append(unknown, s.Key)
		case len(s.Bytes) != ed25519.SignatureSize || !ed25519.Verify(key.Public, Statement(name, digest), s.Bytes):
			return nil, fmt.Errorf("the signature by the key %q is not for a plugin named %s with these bytes (%s)", key.Name, name, digest)
		case !current(key):
			expired = append(expired, fmt.Sprintf("%q, since %s", key.Name, key.NotAfter.UTC().Format(time.RFC3339)))
		default:
			by = append(by, key.Name)
		}
	}
	switch {
	case len(by) > 0 || !t.Require:
		return by, nil
	case len(expired) > 0:
		return nil, fmt.Errorf("it is signed by a key that may sign nothing more: %s", strings.Join(expired, "; "))
	case len(unknown) > 0:
		return nil, fmt.Errorf("it is signed by %s, which is not trusted; trusted %s", strings.Join(unknown, ", "), t.trusted())
	}
	return nil, fmt.Errorf("it is not signed; trusted %s", t.trusted())
}

func (t Trust) find(id string) (Key, bool) {
	for _, k := range t.Keys {
		if KeyID(k.Public) == id {
			return k, true
		}
	}
	return Key{}, false
}

// trusted is the end of a sentence.
func (t Trust) trusted() string {
	if len(t.Keys) == 0 {
		return "is no key at all"
	}
	var names []string
	for _, k := range t.Keys {
		names = append(names, fmt.Sprintf("%q (%s)", k.Name, KeyID(k.Public)))
	}
	return "are " + strings.Join(names, ", ")
}

// Wrong says what is wrong with a signature by itself, "" for nothing.
func (s Signature) Wrong() string {
	digits, ok := strings.CutPrefix(s.Key, "ed25519:")
	switch {
	case !ok || len(digits) != 16 || strings.Trim(digits, "0123456789abcdef") != "":
		return `names no key: "ed25519:" and 16 hexadecimal digits`
	case len(s.Bytes) != ed25519.SignatureSize:
		return fmt.Sprintf("has %d bytes; a signature has %d", len(s.Bytes), ed25519.SignatureSize)
	}
	return ""
}

var errNoKey = errors.New("it is no Ed25519 key")
