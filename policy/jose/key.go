package jose

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	josekeys "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// Bounds of what is read.
const (
	// MaxKeysBytes is how long a text of keys may be, maxKeys how many they are.
	MaxKeysBytes = 256 << 10
	maxKeys      = 64
	// MaxTokenBytes is how long a token may be.
	MaxTokenBytes = 16 << 10
	// maxTries is how many keys are tried for one signature.
	maxTries = 4

	leastRSA, mostRSA = 2048, 8192
)

// Key is one that signatures are checked with.
type Key struct {
	// ID is the key's "kid"; PEM has none.
	ID       string
	material any
	// algorithms are those that the key may be used with.
	algorithms []*algorithm
}

// Nanoseconds is about what checking a signature over so many bytes takes.
func (k *Key) Nanoseconds(message int) int64 { return nanoseconds(k.material, message) }

// Verify checks a signature by an algorithm of RFC 7518. ok is false, too, where
// the key is none of that algorithm's.
func (k *Key) Verify(algorithm string, message, signature []byte) (ok bool) {
	a := k.algorithm(algorithm)
	return a != nil && a.check(a.hash, k.material, message, signature)
}

func (k *Key) algorithm(name string) *algorithm {
	for _, a := range k.algorithms {
		if a.name == name {
			return a
		}
	}
	return nil
}

// Keys is a set of them.
type Keys struct{ list []*Key }

// Len says how many there are.
func (k *Keys) Len() int { return len(k.list) }

// Nanoseconds is about what checking a signature over so many bytes takes, with the
// dearest of the keys.
func (k *Keys) Nanoseconds(message int) (most int64) {
	for _, key := range k.list {
		most = max(most, key.Nanoseconds(message))
	}
	return most
}

// For finds the keys to try for a signature: those of that id, or where it has
// none, or nobody bears it, those that have none. An empty algorithm is any.
func (k *Keys) For(algorithm, id string) []*Key {
	var found []*Key
	pick := func(wanted func(*Key) bool) {
		for _, key := range k.list {
			if len(found) < maxTries && wanted(key) && (algorithm == "" || key.algorithm(algorithm) != nil) {
				found = append(found, key)
			}
		}
	}
	if id == "" {
		pick(func(*Key) bool { return true })
		return found
	}
	pick(func(key *Key) bool { return key.ID == id })
	if len(found) == 0 {
		pick(func(key *Key) bool { return key.ID == "" })
	}
	return found
}

// public are those that are no secrets.
func (k *Keys) public() *Keys {
	return &Keys{slices.DeleteFunc(slices.Clone(k.list), func(key *Key) bool {
		_, secret := key.material.([]byte)
		return secret
	})}
}

// ParseKeys reads a JWK, a JWK set, or PEM: public keys and certificates. Keys of a
// set that are not for signatures, or of a kind that is not known, are passed over,
// as RFC 7517 wants it; a set without any left is an error.
func ParseKeys(text []byte) (*Keys, error) {
	if len(text) > MaxKeysBytes {
		return nil, fmt.Errorf("the keys are longer than %d KiB", MaxKeysBytes>>10)
	}
	text = bytes.TrimSpace(text)
	switch {
	case bytes.HasPrefix(text, []byte("{")):
		return parseJWKs(text)
	case bytes.HasPrefix(text, []byte("-----BEGIN ")):
		return parsePEM(text)
	}
	return nil, errors.New("the keys are neither a JWK, nor a JWK set, nor PEM")
}

func parseJWKs(text []byte) (*Keys, error) {
	var set struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if set.Keys == nil {
		key, err := parseJWK(text)
		if err != nil {
			return nil, err
		}
		return &Keys{[]*Key{key}}, nil
	}
	if len(*set.Keys) > maxKeys {
		return nil, fmt.Errorf("there are more than %d keys", maxKeys)
	}
	keys := &Keys{}
	var why error
	for i, one := range *set.Keys {
		key, err := parseJWK(one)
		if err != nil {
			why = fmt.Errorf("keys[%d]: %w", i, err)
			continue
		}
		keys.list = append(keys.list, key)
	}
	if len(keys.list) == 0 && why == nil {
		why = errors.New("there are none")
	}
	if len(keys.list) == 0 {
		return nil, fmt.Errorf("no key can be used: %w", why)
	}
	return keys, nil
}

func parseJWK(text []byte) (*Key, error) {
	var jwk josekeys.JSONWebKey
	if err := jwk.UnmarshalJSON(text); err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if jwk.Use != "" && jwk.Use != "sig" {
		return nil, fmt.Errorf("key %q is for %q, not for signatures", jwk.KeyID, jwk.Use)
	}
	var operations struct {
		Operations []string `json:"key_ops"`
	}
	if err := json.Unmarshal(text, &operations); err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if ops := operations.Operations; ops != nil && !slices.Contains(ops, "verify") {
		return nil, fmt.Errorf("key %q is not for verifying: its key_ops are %q", jwk.KeyID, ops)
	}
	key, err := newKey(jwk.Key)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", jwk.KeyID, err)
	}
	key.ID = jwk.KeyID
	if jwk.Algorithm == "" {
		return key, nil
	}
	a := key.algorithm(jwk.Algorithm)
	if a == nil {
		return nil, fmt.Errorf("key %q cannot be used with its algorithm %q", jwk.KeyID, jwk.Algorithm)
	}
	key.algorithms = []*algorithm{a}
	return key, nil
}

func parsePEM(text []byte) (*Keys, error) {
	keys := &Keys{}
	for len(text) > 0 {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, errors.New("read keys: the PEM is damaged")
		}
		if len(keys.list) == maxKeys {
			return nil, fmt.Errorf("there are more than %d keys", maxKeys)
		}
		material, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", block.Type, err)
		}
		key, err := newKey(material)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", block.Type, err)
		}
		keys.list = append(keys.list, key)
		text = bytes.TrimSpace(rest)
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (any, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return certificate.PublicKey, nil
	}
	return nil, errors.New("want PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE: whoever checks signatures needs no private key")
}

func newKey(material any) (*Key, error) {
	switch m := material.(type) {
	case *rsa.PublicKey:
		if bits := m.N.BitLen(); bits < leastRSA || bits > mostRSA {
			return nil, fmt.Errorf("an RSA key of %d bits: want %d to %d", bits, leastRSA, mostRSA)
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	case []byte:
		if len(m) < 32 {
			return nil, fmt.Errorf("a secret of %d bytes is too short: HS256 wants 32, HS384 48, HS512 64 (RFC 7518, section 3.2)", len(m))
		}
		material = bytes.Clone(m)
	case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
		return nil, errors.New("it is a private key: give the public one alone")
	default:
		return nil, fmt.Errorf("a key of type %T is not known", material)
	}
	key := &Key{material: material}
	for i := range algorithms {
		if algorithms[i].fits(material) {
			key.algorithms = append(key.algorithms, &algorithms[i])
		}
	}
	if len(key.algorithms) == 0 { // P-224
		return nil, errors.New("no algorithm uses such a key: want P-256, P-384 or P-521")
	}
	return key, nil
}
