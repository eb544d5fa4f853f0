package identity

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	keyIDSize  = 4
	sealedHead = 1 + keyIDSize + chacha20poly1305.NonceSizeX
	sealedV1   = 1
)

// Keyring holds the keys that seal what is at rest: of a cluster, for what
// goes through the log, or of one node, for its own files. The first key
// seals; every key opens, so that a new one can be put in front of an old one.
// It is safe for concurrent use.
type Keyring struct {
	path string
	// given: the file is put there from outside, and not ours to write.
	given bool

	change sync.Mutex // held while keys, and the file before them, change
	keys   atomic.Pointer[[]sealKey]
}

// sealKey is one key. It does not change.
type sealKey struct {
	id      [keyIDSize]byte
	raw     [chacha20poly1305.KeySize]byte
	aead    cipher.AEAD
	created time.Time // zero: not known
}

func makeSealKey() sealKey {
	var raw [chacha20poly1305.KeySize]byte
	rand.Read(raw[:])
	key, err := newSealKey(raw[:], time.Now().UTC().Truncate(time.Second))
	if err != nil {
		panic(err) // only for keys of another length
	}
	return key
}

func newSealKey(raw []byte, created time.Time) (sealKey, error) {
	aead, err := chacha20poly1305.NewX(raw)
	if err != nil {
		return sealKey{}, err
	}
	key := sealKey{aead: aead, created: created}
	copy(key.raw[:], raw)
	// A key's name gives nothing of the key away.
	sum := sha256.Sum256(append([]byte("weir key id "), raw...))
	copy(key.id[:], sum[:])
	return key, nil
}

func (k sealKey) name() string { return hex.EncodeToString(k.id[:]) }

// all are the keys, the one that seals first. They must not be changed.
func (k *Keyring) all() []sealKey { return *k.keys.Load() }

// ID names the key that seals.
func (k *Keyring) ID() string { return k.all()[0].name() }

// Key is what may be told of a key.
type Key struct {
	ID string
	// Created is when it was made, zero where that is not known.
	Created time.Time
}

// Keys are what the keyring holds, the key that seals first.
func (k *Keyring) Keys() []Key {
	var list []Key
	for _, key := range k.all() {
		list = append(list, Key{ID: key.name(), Created: key.created})
	}
	return list
}

// key returns the key of that name.
func (k *Keyring) key(id string) (sealKey, bool) {
	for _, key := range k.all() {
		if key.name() == id {
			return key, true
		}
	}
	return sealKey{}, false
}

// Seal encrypts data so that only this keyring opens it, and only for the same
// purpose: a sealed thing put in another's place does not open.
func (k *Keyring) Seal(purpose string, data []byte) []byte {
	key := k.all()[0]
	out := make([]byte, sealedHead, sealedHead+len(data)+key.aead.Overhead())
	out[0] = sealedV1
	copy(out[1:], key.id[:])
	rand.Read(out[1+keyIDSize : sealedHead])
	return key.aead.Seal(out, out[1+keyIDSize:sealedHead], data, []byte(purpose))
}

// ErrSealed is the cause when something sealed does not open.
var ErrSealed = errors.New("cannot be opened")

// SealedBy names the key that sealed something.
func SealedBy(sealed []byte) (id string, err error) {
	if len(sealed) < sealedHead || sealed[0] != sealedV1 {
		return "", fmt.Errorf("not something sealed: %w", ErrSealed)
	}
	return hex.EncodeToString(sealed[1 : 1+keyIDSize]), nil
}

// Open decrypts what Seal made for the purpose.
func (k *Keyring) Open(purpose string, sealed []byte) ([]byte, error) {
	id, err := SealedBy(sealed)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", purpose, err)
	}
	key, ok := k.key(id)
	if !ok {
		return nil, fmt.Errorf("open %s: keyring %s does not hold key %s: %w", purpose, k.path, id, ErrSealed)
	}
	data, err := key.aead.Open(nil, sealed[1+keyIDSize:sealedHead], sealed[sealedHead:], []byte(purpose))
	if err != nil {
		return nil, fmt.Errorf("open %s: it was altered or belongs elsewhere: %w", purpose, ErrSealed)
	}
	return data, nil
}

// Derive makes 32 secret bytes that stay the same as long as the key that
// seals does, such as a key that must survive a restart.
func (k *Keyring) Derive(purpose string) [32]byte {
	key, err := hkdf.Key(sha256.New, k.all()[0].raw[:], nil, "weir "+purpose, 32)
	if err != nil {
		panic(err) // only for lengths that SHA-256 cannot give
	}
	return [32]byte(key)
}
