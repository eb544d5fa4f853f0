package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	josekeys "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// The keys of the tests, made once.
var (
	rsaKey, _          = rsa.GenerateKey(rand.Reader, 2048)
	p256, _            = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _            = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, _            = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	edPublic, edKey, _ = ed25519.GenerateKey(rand.Reader)
	secret             = []byte(strings.Repeat("secret-", 10))
	otherRSA, _        = rsa.GenerateKey(rand.Reader, 2048)
	now                = time.Unix(1_800_000_000, 0)
	good               = fmt.Sprintf(`{"iss":"https://issuer.example","aud":["shop","till"],"sub":"alice","exp":%d,"scope":"read write","realm":{"roles":["admin","a/b"]},"n":7}`, now.Unix()+60)
	everything         = jwk(`"kid":"all"`, secret)
)

// jwk is a key as JSON, with more members.
func jwk(more string, key any) string {
	b, err := json.Marshal(josekeys.JSONWebKey{Key: key})
	if err != nil {
		panic(err)
	}
	if more == "" {
		return string(b)
	}
	return "{" + more + "," + string(b[1:])
}

// sign makes a token by another implementation than the one that checks it.
func sign(t testing.TB, algorithm string, key any, header map[josekeys.HeaderKey]any, claims string) string {
	t.Helper()
	options := &josekeys.SignerOptions{ExtraHeaders: header}
	signer, err := josekeys.NewSigner(josekeys.SigningKey{Algorithm: josekeys.SignatureAlgorithm(algorithm), Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	object, err := signer.Sign([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	token, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func check(v *Verifier, token string, at time.Time) (*Claims, error) {
	opened, err := v.Open([]byte(token))
	if err != nil {
		return nil, err
	}
	claims, err := opened.Verify()
	if err != nil {
		return nil, err
	}
	return claims, claims.At(at)
}

func verifier(t testing.TB, r Rules) *Verifier {
	t.Helper()
	v, err := NewVerifier(r)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestEveryAlgorithmIsChecked(t *testing.T) {
	for _, c := range []struct {
		algorithm string
		private   any
		public    any
	}{
		{"HS256", secret, secret}, {"HS384", secret, secret}, {"HS512", secret, secret},
		{"RS256", rsaKey, &rsaKey.PublicKey}, {"RS384", rsaKey, &rsaKey.PublicKey}, {"RS512", rsaKey, &rsaKey.PublicKey},
		{"PS256", rsaKey, &rsaKey.PublicKey}, {"PS384", rsaKey, &rsaKey.PublicKey}, {"PS512", rsaKey, &rsaKey.PublicKey},
		{"ES256", p256, &p256.PublicKey}, {"ES384", p384, &p384.PublicKey}, {"ES512", p521, &p521.PublicKey},
		{"EdDSA", edKey, edPublic},
	} {
		t.Run(c.algorithm, func(t *testing.T) {
			v := verifier(t, Rules{Keys: jwk("", c.public)})
			token := sign(t, c.algorithm, c.private, nil, good)
			if _, err := check(v, token, now); err != nil {
				t.Errorf("a good token: %v", err)
			}
			for i := strings.LastIndexByte(token, '.') + 1; i < len(token); i += 13 {
				changed := []byte(token)
				changed[i] ^= 1 // still base64url, or not: wrong in any case
				if _, err := check(v, string(changed), now); err == nil {
					t.Errorf("with another byte %d it is accepted", i)
				}
			}
			fixed := verifier(t, Rules{Keys: jwk(`"alg":"`+c.algorithm+`"`, c.public)})
			if _, err := check(fixed, token, now); err != nil {
				t.Errorf("with the algorithm in the key: %v", err)
			}
		})
	}
}

// TestTheKeyDecides is RFC 8725, section 3.1: what a token says about itself
// does not change how it is checked.
func TestTheKeyDecides(t *testing.T) {
	public, err := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	v := verifier(t, Rules{Keys: text})
	part := base64.RawURLEncoding.EncodeToString
	claims := part([]byte(good))
	for name, token := range map[string]string{
		"none":                      part([]byte(`{"alg":"none"}`)) + "." + claims + ".",
		"None":                      part([]byte(`{"alg":"NONE"}`)) + "." + claims + ".",
		"no algorithm":              part([]byte(`{}`)) + "." + claims + ".",
		"the public key as secret":  sign(t, "HS256", []byte(text), nil, good),
		"another key":               sign(t, "RS256", otherRSA, nil, good),
		"an algorithm of the other": sign(t, "ES256", p256, nil, good),
		"a key of its own":          sign(t, "RS256", otherRSA, map[josekeys.HeaderKey]any{"jwk": josekeys.JSONWebKey{Key: &otherRSA.PublicKey}}, good),
	} {
		if _, err := check(v, token, now); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	only := verifier(t, Rules{Keys: jwk(`"alg":"PS256"`, &rsaKey.PublicKey)})
	if _, err := check(only, sign(t, "RS256", rsaKey, nil, good), now); err == nil {
		t.Error("another algorithm than the key's is accepted")
	}
	only = verifier(t, Rules{Keys: jwk("", &rsaKey.PublicKey), Algorithms: []string{"RS512"}})
	if _, err := check(only, sign(t, "RS256", rsaKey, nil, good), now); err == nil {
		t.Error("another algorithm than those allowed is accepted")
	}
}

func TestClaims(t *testing.T) {
	at := func(claims string) string { return strings.ReplaceAll(claims, "NOW", fmt.Sprint(now.Unix())) }
	for _, c := range []struct {
		name   string
		rules  Rules
		claims string
		header map[josekeys.HeaderKey]any
		why    string // "" accepted
	}{
		{name: "good", claims: good},
		{name: "no end", claims: `{}`, why: "has no exp"},
		{name: "no end, and that is allowed", rules: Rules{Endless: true}, claims: `{}`},
		{name: "over this very second", claims: at(`{"exp":NOW}`), why: "has expired"},
		{name: "over, within the leeway", rules: Rules{Leeway: 5}, claims: at(`{"exp":NOW}`)},
		{name: "not yet valid", claims: `{"exp":1800000100,"nbf":1800000001}`, why: "not valid yet"},
		{name: "not yet, within the leeway", rules: Rules{Leeway: 2}, claims: `{"exp":1800000100,"nbf":1800000001}`},
		{name: "an end that is text", claims: `{"exp":"1800000100"}`, why: "not a time"},
		{name: "an end that is null", claims: `{"exp":null}`, why: "not a time"},
		{name: "an end that is huge", claims: `{"exp":1e300}`, why: "not a time"},
		{name: "fractions of a second", claims: `{"exp":1800000000.5}`},
		{name: "the issuer", rules: Rules{Issuers: []string{"x", "https://issuer.example"}}, claims: good},
		{name: "another issuer", rules: Rules{Issuers: []string{"https://issuer.example/"}}, claims: good, why: "issuer"},
		{name: "no issuer", rules: Rules{Issuers: []string{""}}, claims: `{"exp":1800000100,"iss":7}`},
		{name: "one of the audiences", rules: Rules{Audiences: []string{"till"}}, claims: good},
		{name: "another audience", rules: Rules{Audiences: []string{"bank"}}, claims: good, why: "another audience"},
		{name: "an audience that is no list", rules: Rules{Audiences: []string{"bank"}}, claims: `{"exp":1800000100,"aud":"bank"}`},
		{name: "no audience", rules: Rules{Audiences: []string{"bank"}}, claims: `{"exp":1800000100}`, why: "another audience"},
		{name: "a scope", rules: Rules{Require: map[string][]string{"scope": {"write"}}}, claims: good},
		{name: "not a scope but its beginning", rules: Rules{Require: map[string][]string{"scope": {"wri"}}}, claims: good, why: "does not allow"},
		{name: "a role below", rules: Rules{Require: map[string][]string{"/realm/roles": {"admin"}}}, claims: good},
		{name: "a role that is not there", rules: Rules{Require: map[string][]string{"/realm/none": {"admin"}}}, claims: good, why: "does not allow"},
		{name: "a number", rules: Rules{Require: map[string][]string{"n": {"7"}}}, claims: good},
		{name: "any value", rules: Rules{Require: map[string][]string{"sub": nil}}, claims: good},
		{name: "a claim twice", claims: `{"exp":1800000100,"exp":1900000000}`, why: "not a JSON object"},
		{name: "a claim in capitals is another", claims: `{"EXP":1800000100}`, why: "has no exp"},
		{name: "a list", claims: `[]`, why: "not a JSON object"},
		{name: "null", claims: `null`, why: "not a JSON object"},
		{name: "critical extensions", claims: good, header: map[josekeys.HeaderKey]any{"crit": []string{"exp"}, "exp": 1}, why: "critical"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.rules.Keys = everything
			_, err := check(verifier(t, c.rules), sign(t, "HS256", secret, c.header, c.claims), now)
			if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
				t.Errorf("got %v, want %q", err, c.why)
			}
			var refusal *Refusal
			if errors.As(err, &refusal) && refusal.Insufficient != (len(c.rules.Require) > 0) {
				t.Errorf("insufficient: %v", refusal.Insufficient)
			}
		})
	}
}

func TestClaimsAsText(t *testing.T) {
	v := verifier(t, Rules{Keys: everything, Claims: []string{"sub", "aud", "n", "/realm/roles", "none", "realm", ""}})
	c, err := check(v, sign(t, "HS256", secret, nil, good), now)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"alice", "shop,till", "7", "admin,a/b", "", `{"roles":["admin","a/b"]}`, good}
	for i, value := range c.Values {
		if string(value) != want[i] {
			t.Errorf("claim %d is %q, want %q", i, value, want[i])
		}
	}
	if c.Values[4] != nil {
		t.Error("a claim that is not there is there")
	}
}

func TestWhichKey(t *testing.T) {
	other := []byte(strings.Repeat("other-", 12))
	set := `{"keys":[` + jwk(`"kid":"a"`, secret) + "," + jwk(`"kid":"b"`, other) + `,{"kty":"unheard-of"},` + jwk(`"kid":"e","use":"enc"`, &rsaKey.PublicKey) + `]}`
	v := verifier(t, Rules{Keys: set})
	for _, c := range []struct {
		kid  any
		key  []byte
		good bool
	}{{"a", secret, true}, {"b", other, true}, {"a", other, false}, {"c", secret, false}, {nil, other, true}} {
		header := map[josekeys.HeaderKey]any{}
		if c.kid != nil {
			header["kid"] = c.kid
		}
		if _, err := check(v, sign(t, "HS256", c.key, header, good), now); (err == nil) != c.good {
			t.Errorf("kid %v: %v", c.kid, err)
		}
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	small, _ := rsa.GenerateKey(rand.Reader, 1024)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	weak, err := x509.MarshalPKIXPublicKey(&p224.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(edKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, why string }{
		"nothing":              {"", "neither"},
		"words":                {"secret", "neither"},
		"no keys in a set":     {`{"keys":[]}`, "there are none"},
		"a private JWK":        {jwk("", rsaKey), "private"},
		"a private PEM":        {string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), "no private key"},
		"damaged PEM":          {"-----BEGIN PUBLIC KEY-----\nAAAA", "damaged"},
		"a small RSA key":      {jwk("", &small.PublicKey), "1024 bits"},
		"a short secret":       {jwk("", []byte("short")), "too short"},
		"a curve of no use":    {string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: weak})), "P-256"},
		"the wrong algorithm":  {jwk(`"alg":"ES256"`, secret), "cannot be used"},
		"no hash long enough":  {jwk(`"alg":"HS512"`, secret[:40]), "cannot be used"},
		"not for verification": {jwk(`"key_ops":["sign"]`, secret), "key_ops"},
		"for encryption":       {jwk(`"use":"enc"`, secret), "not for signatures"},
		"too long":             {"{" + strings.Repeat(" ", MaxKeysBytes), "longer"},
		"too many":             {`{"keys":[` + strings.Repeat("{},", maxKeys) + `{}]}`, "more than"},
	} {
		if _, err := ParseKeys([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSeveralPEM(t *testing.T) {
	var text strings.Builder
	for _, key := range []crypto.PublicKey{&rsaKey.PublicKey, &p256.PublicKey, edPublic} {
		b, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		_ = pem.Encode(&text, &pem.Block{Type: "PUBLIC KEY", Bytes: b})
	}
	v := verifier(t, Rules{Keys: text.String()})
	for algorithm, key := range map[string]any{"RS256": rsaKey, "ES256": p256, "EdDSA": edKey} {
		if _, err := check(v, sign(t, algorithm, key, nil, good), now); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
	}
}

// FuzzOpen: no token makes the verifier panic, and none that is not signed is
// accepted.
func FuzzOpen(f *testing.F) {
	v := verifier(f, Rules{Keys: everything, Claims: []string{"sub", "/a/b", ""}, Require: map[string][]string{"/x/y": {"z"}}})
	signed := sign(f, "HS256", secret, nil, good)
	f.Add(signed)
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := check(v, token, now); err == nil && token != signed {
			t.Errorf("%q is accepted", token)
		}
	})
}

// FuzzClaims: claims that are signed may be anything.
func FuzzClaims(f *testing.F) {
	v := verifier(f, Rules{Keys: everything, Claims: []string{"sub", "/a/b", ""}, Require: map[string][]string{"/x/y": {"z"}, "w": nil}, Endless: true})
	f.Add(good)
	f.Add(`{"x":{"y":"z"},"w":[null]}`)
	f.Fuzz(func(t *testing.T, claims string) {
		_, _ = check(v, sign(t, "HS256", secret, nil, claims), now)
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add(everything)
	f.Add(`{"keys":[` + jwk("", &p256.PublicKey) + `]}`)
	f.Add("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")
	f.Fuzz(func(t *testing.T, text string) {
		if keys, err := ParseKeys([]byte(text)); err == nil && keys.Len() == 0 {
			t.Error("no keys, and no error")
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	for algorithm, keys := range map[string][2]any{
		"HS256": {secret, secret}, "RS256": {rsaKey, &rsaKey.PublicKey}, "ES256": {p256, &p256.PublicKey},
		"ES384": {p384, &p384.PublicKey}, "ES512": {p521, &p521.PublicKey}, "EdDSA": {edKey, edPublic},
	} {
		b.Run(algorithm, func(b *testing.B) {
			v := verifier(b, Rules{Keys: jwk("", keys[1]), Claims: []string{"sub"}})
			token := sign(b, algorithm, keys[0], nil, good)
			opened, err := v.Open([]byte(token))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(opened.Nanoseconds()), "said-ns")
			for b.Loop() {
				if _, err := check(v, token, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestAnUnknownKeyIsToldApart, since newer keys might have it.
func TestAnUnknownKeyIsToldApart(t *testing.T) {
	set := `{"keys":[` + jwk(`"kid":"one"`, p256.Public()) + `,` + jwk("", edPublic) + `]}`
	v := verifier(t, Rules{Keys: set})
	for _, c := range []struct {
		name, token string
		unknown     bool
	}{
		{"of another id", sign(t, "ES256", p256, map[josekeys.HeaderKey]any{"kid": "two"}, good), true},
		{"of another algorithm", sign(t, "RS256", rsaKey, map[josekeys.HeaderKey]any{"kid": "one"}, good), true},
		{"of no id, by another key", sign(t, "ES256", func() any { k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader); return k }(), nil, good), true},
		{"of that id, by another key", sign(t, "ES256", func() any { k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader); return k }(), map[josekeys.HeaderKey]any{"kid": "one"}, good), false},
		{"of no algorithm", "eyJhbGciOiJub25lIn0.e30.", false},
	} {
		_, err := check(v, c.token, now)
		var refusal *Refusal
		if !errors.As(err, &refusal) || refusal.UnknownKey != c.unknown {
			t.Errorf("%s: %v (%+v)", c.name, err, refusal)
		}
	}
}

// TestPublicKeysAreNoSecrets: what everybody may read nobody signs with.
func TestPublicKeysAreNoSecrets(t *testing.T) {
	shared := jwk(`"kid":"s"`, secret)
	v := verifier(t, Rules{Keys: `{"keys":[` + shared + `,` + jwk(`"kid":"one"`, p256.Public()) + `]}`, Public: true})
	if _, err := check(v, sign(t, "HS256", secret, map[josekeys.HeaderKey]any{"kid": "s"}, good), now); err == nil {
		t.Error("a token is accepted that is signed with what everybody may read")
	}
	if _, err := check(v, sign(t, "ES256", p256, map[josekeys.HeaderKey]any{"kid": "one"}, good), now); err != nil {
		t.Error(err)
	}
	if _, err := NewVerifier(Rules{Keys: shared, Public: true}); err == nil || !strings.Contains(err.Error(), "secrets are not taken") {
		t.Errorf("a set of secrets alone: %v", err)
	}
}
