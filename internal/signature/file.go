package signature

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
)

// The labels of PEM blocks.
const (
	blockPrivate   = "PRIVATE KEY"
	blockPublic    = "PUBLIC KEY"
	blockSignature = "WEIR PLUGIN SIGNATURE"
)

// MaxFile is more than any file of keys or signatures needs.
const MaxFile = 64 << 10

// NewKey makes a key, and returns both of its files.
func NewKey() (private, public []byte, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, nil, err
	}
	public, err = EncodePublic(pub)
	return pem.EncodeToMemory(&pem.Block{Type: blockPrivate, Bytes: der}), public, err
}

// EncodePublic is the file of a public key.
func EncodePublic(key ed25519.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockPublic, Bytes: der}), nil
}

// ParsePrivate reads the file of a private key.
func ParsePrivate(text []byte) (ed25519.PrivateKey, error) {
	list, err := blocks(text, blockPrivate)
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("it holds %d keys, not one", len(list))
	}
	parsed, err := x509.ParsePKCS8PrivateKey(list[0].Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errNoKey
	}
	return key, nil
}

// ParsePublic reads one public key.
func ParsePublic(text []byte) (ed25519.PublicKey, error) {
	keys, err := ParsePublics(text)
	if err != nil {
		return nil, err
	}
	if len(keys) != 1 {
		return nil, fmt.Errorf("it holds %d keys, not one", len(keys))
	}
	return keys[0], nil
}

// ParsePublics reads public keys, at least one.
func ParsePublics(text []byte) ([]ed25519.PublicKey, error) {
	list, err := blocks(text, blockPublic)
	if err != nil {
		return nil, err
	}
	var keys []ed25519.PublicKey
	for _, b := range list {
		parsed, err := x509.ParsePKIXPublicKey(b.Bytes)
		if err != nil {
			return nil, err
		}
		key, ok := parsed.(ed25519.PublicKey)
		if !ok {
			return nil, errNoKey
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// Detached is a signature apart from what it is of.
type Detached struct {
	Name, Digest string
	Signature
}

// Encode is the file of a signature.
func Encode(d Detached) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockSignature, Bytes: d.Bytes,
		Headers: map[string]string{"Name": d.Name, "Digest": d.Digest, "Key": d.Key}})
}

// Parse reads the files of signatures, one behind the other.
func Parse(text []byte) ([]Detached, error) {
	list, err := blocks(text, blockSignature)
	if err != nil {
		return nil, err
	}
	var found []Detached
	for _, b := range list {
		d := Detached{Name: b.Headers["Name"], Digest: b.Headers["Digest"], Signature: Signature{Key: b.Headers["Key"], Bytes: b.Bytes}}
		if !maps.Equal(b.Headers, map[string]string{"Name": d.Name, "Digest": d.Digest, "Key": d.Key}) {
			return nil, errors.New("a signature has the headers Name, Digest and Key, and no others")
		}
		if wrong := d.Wrong(); wrong != "" {
			return nil, fmt.Errorf("a signature %s", wrong)
		}
		found = append(found, d)
	}
	return found, nil
}

// blocks are those of a file that holds nothing else, and at least one.
func blocks(text []byte, label string) (list []*pem.Block, err error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("it is longer than %d KiB", MaxFile>>10)
	}
	for text = bytes.TrimSpace(text); len(text) > 0; text = bytes.TrimSpace(text) {
		if !bytes.HasPrefix(text, []byte("-----BEGIN ")) {
			return nil, fmt.Errorf("it is no PEM block %q", label)
		}
		b, rest := pem.Decode(text)
		switch {
		case b == nil || bytes.Contains(text[10:len(text)-len(rest)], []byte("-----BEGIN ")):
			return nil, errors.New("it is no PEM: a block is damaged")
		case b.Type != label:
			return nil, fmt.Errorf("it is a %q, not a %q", b.Type, label)
		}
		list, text = append(list, b), rest
	}
	if len(list) == 0 {
		return nil, errors.New("it is empty")
	}
	return list, nil
}
