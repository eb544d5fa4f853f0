package signature

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newKey(t testing.TB, name string) (ed25519.PrivateKey, Key) {
	t.Helper()
	private, public, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	priv, err := ParsePrivate(private)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ParsePublic(public)
	if err != nil {
		t.Fatal(err)
	}
	return priv, Key{Name: name, Public: pub}
}

var digest = "sha256:" + strings.Repeat("ab", 32)

func TestTrust(t *testing.T) {
	release, releaseKey := newKey(t, "release")
	ci, ciKey := newKey(t, "ci")
	other, _ := newKey(t, "other")
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	past := releaseKey
	past.NotAfter = now
	good := Sign(release, "stamp", digest)
	tampered := Signature{Key: good.Key, Bytes: bytes.Clone(good.Bytes)}
	tampered.Bytes[3] ^= 1
	posing := Signature{Key: good.Key, Bytes: Sign(other, "stamp", digest).Bytes}
	for _, c := range []struct {
		what       string
		trust      Trust
		signatures []Signature
		by         string
		admitted   string // part of the refusal; "": it is admitted
		runs       string
	}{
		{"nothing is asked for", Trust{}, nil, "", "", ""},
		{"keys, but no signature is asked for", Trust{Keys: []Key{releaseKey}}, nil, "", "", ""},
		{"signed", Trust{Require: true, Keys: []Key{releaseKey}}, []Signature{good}, "release", "", ""},
		{"signed by the second key, while keys are changed", Trust{Require: true, Keys: []Key{releaseKey, ciKey}},
			[]Signature{Sign(other, "stamp", digest), Sign(ci, "stamp", digest)}, "ci", "", ""},
		{"signed by both", Trust{Require: true, Keys: []Key{releaseKey, ciKey}}, []Signature{good, Sign(ci, "stamp", digest)}, "release,ci", "", ""},
		{"unsigned", Trust{Require: true, Keys: []Key{releaseKey}}, nil, "", "it is not signed; trusted are \"release\"", "it is not signed"},
		{"no key is trusted", Trust{Require: true}, nil, "", "it is not signed; trusted is no key at all", "no key at all"},
		{"another's key", Trust{Require: true, Keys: []Key{releaseKey}}, []Signature{Sign(other, "stamp", digest)}, "", "which is not trusted", "not trusted"},
		{"the key was taken out", Trust{Require: true, Keys: []Key{ciKey}}, []Signature{good}, "", "which is not trusted", "not trusted"},
		{"the key may sign nothing more", Trust{Require: true, Keys: []Key{past}}, []Signature{good}, "release", "since 2026-05-01T00:00:00Z", ""},
		{"signed for another name", Trust{Keys: []Key{releaseKey}}, []Signature{Sign(release, "auth", digest)}, "", `is not for a plugin named stamp`, "is not for"},
		{"signed for other bytes", Trust{Require: true, Keys: []Key{releaseKey}}, []Signature{Sign(release, "stamp", strings.Replace(digest, "ab", "ac", 1))}, "", "is not for", "is not for"},
		{"a flipped bit", Trust{Require: true, Keys: []Key{releaseKey}}, []Signature{tampered}, "", "is not for", "is not for"},
		{"a wrong signature beside a good one", Trust{Require: true, Keys: []Key{releaseKey}}, []Signature{good, tampered}, "", "is not for", "is not for"},
		{"one key poses as another", Trust{Keys: []Key{releaseKey}}, []Signature{posing}, "", "is not for", "is not for"},
		{"cut short", Trust{Keys: []Key{releaseKey}}, []Signature{{Key: good.Key, Bytes: good.Bytes[:63]}}, "", "is not for", "is not for"},
	} {
		t.Run(c.what, func(t *testing.T) {
			by, err := c.trust.Admit("stamp", digest, c.signatures, now)
			judge(t, "admitted", err, c.admitted)
			if c.admitted == "" && strings.Join(by, ",") != c.by {
				t.Errorf("admitted by %q, want %s", by, c.by)
			}
			by, err = c.trust.Check("stamp", digest, c.signatures)
			judge(t, "run", err, c.runs)
			if c.runs == "" && strings.Join(by, ",") != c.by {
				t.Errorf("runs by %q, want %s", by, c.by)
			}
		})
	}
}

func judge(t *testing.T, what string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: got %v, want %q", what, err, want)
	}
}

// Names and digests cannot be put together so that one statement is another.
func TestStatement(t *testing.T) {
	const want = "weir plugin signature v1\nname: stamp\ndigest: sha256:00\n"
	if got := string(Statement("stamp", "sha256:00")); got != want {
		t.Errorf("got %q: all signatures of before are void", got)
	}
}

func TestFiles(t *testing.T) {
	key, public := newKey(t, "a")
	text := Encode(Detached{Name: "stamp", Digest: digest, Signature: Sign(key, "stamp", digest)})
	twice := append(append([]byte{}, text...), text...)
	found, err := Parse(twice)
	if err != nil || len(found) != 2 || found[1].Name != "stamp" || found[1].Digest != digest || found[1].Key != KeyID(public.Public) {
		t.Fatalf("got %+v, %v", found, err)
	}
	if _, err := (Trust{Require: true, Keys: []Key{public}}).Check("stamp", digest, []Signature{found[0].Signature}); err != nil {
		t.Error(err)
	}
	_, pub, _ := NewKey()
	for what, bad := range map[string][]byte{
		"empty":           nil,
		"another block":   pub,
		"before it":       append([]byte("x\n"), text...),
		"between":         bytes.Replace(twice, []byte("-----END WEIR PLUGIN SIGNATURE-----\n"), []byte("-----END WEIR PLUGIN SIGNATURE-----\nx\n"), 1),
		"cut":             text[:len(text)-20],
		"a second header": bytes.Replace(text, []byte("Name:"), []byte("Nome:"), 1),
		"short":           Encode(Detached{Name: "stamp", Digest: digest, Signature: Signature{Key: KeyID(public.Public), Bytes: []byte("short")}}),
		"long":            bytes.Repeat(text, 1000),
	} {
		if got, err := Parse(bad); err == nil {
			t.Errorf("%s: got %+v", what, got)
		}
	}
}

// Keys and signatures are openssl's, too.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	read := func(name string) []byte {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if err := os.WriteFile(filepath.Join(dir, "statement"), Statement("stamp", digest), 0o600); err != nil {
		t.Fatal(err)
	}
	run("genpkey", "-algorithm", "ed25519", "-out", "key.pem")
	run("pkey", "-in", "key.pem", "-pubout", "-out", "key.pub")
	run("pkeyutl", "-sign", "-rawin", "-inkey", "key.pem", "-in", "statement", "-out", "sig")
	pub, err := ParsePublic(read("key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	trust := Trust{Require: true, Keys: []Key{{Name: "openssl", Public: pub}}}
	if _, err := trust.Check("stamp", digest, []Signature{{Key: KeyID(pub), Bytes: read("sig")}}); err != nil {
		t.Error(err)
	}
	key, err := ParsePrivate(read("key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ours"), Sign(key, "stamp", digest).Bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	run("pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "key.pub", "-in", "statement", "-sigfile", "ours")
	run("genpkey", "-algorithm", "RSA", "-out", "rsa.pem")
	run("pkey", "-in", "rsa.pem", "-pubout", "-out", "rsa.pub")
	if _, err := ParsePrivate(read("rsa.pem")); err == nil {
		t.Error("an RSA key was taken")
	}
	if _, err := ParsePublic(read("rsa.pub")); err == nil {
		t.Error("an RSA key was taken")
	}
}

func FuzzParse(f *testing.F) {
	key, _ := newKey(f, "a")
	private, public, _ := NewKey()
	f.Add(Encode(Detached{Name: "stamp", Digest: digest, Signature: Sign(key, "stamp", digest)}))
	f.Add(private)
	f.Add(public)
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if found, err := Parse(text); err == nil {
			for _, d := range found {
				if d.Wrong() != "" {
					t.Errorf("%+v was taken", d)
				}
				again, err := Parse(Encode(d))
				if err != nil || len(again) != 1 || again[0].Name != d.Name || again[0].Digest != d.Digest || !bytes.Equal(again[0].Bytes, d.Bytes) {
					t.Errorf("%+v becomes %+v, %v", d, again, err)
				}
			}
		}
		if keys, err := ParsePublics(text); err == nil {
			for _, key := range keys {
				if len(key) != ed25519.PublicKeySize {
					t.Errorf("a key of %d bytes", len(key))
				}
			}
		}
		if key, err := ParsePrivate(text); err == nil && len(key) != ed25519.PrivateKeySize {
			t.Errorf("a key of %d bytes", len(key))
		}
	})
}
