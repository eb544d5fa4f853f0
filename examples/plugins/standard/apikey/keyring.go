package apikey

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"unsafe"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// keyring finds whose a key is, in a time that tells nothing of the keys: they
// are found by a hash under a secret seed, and compared in constant time.
type keyring struct {
	seed maphash.Seed
	// known are keys in the clear: those configured so, and those which the
	// digests have recognised once: a digest costs the host about as much as all the
	// rest of a request does.
	known entries
	// digests are the keys of which only the SHA-256 is configured.
	digests entries
}

type entries map[uint64][]entry

type entry struct {
	secret   []byte
	consumer string
}

func newKeyring(keys []key) (keyring, error) {
	k := keyring{seed: maphash.MakeSeed(), known: entries{}, digests: entries{}}
	for i, given := range keys {
		if given.Key != "" {
			k.add(k.known, []byte(given.Key), given.Consumer)
			continue
		}
		digest, err := hex.DecodeString(given.SHA256)
		if err != nil || len(digest) != sha256.Size {
			return keyring{}, fmt.Errorf("keys[%d].sha256 (%s): want %d hexadecimal digits", i, given.Consumer, 2*sha256.Size)
		}
		k.add(k.digests, digest, given.Consumer)
	}
	return k, nil
}

// consumer says whose the key is.
func (k *keyring) consumer(presented string) (string, bool) {
	secret := unsafe.Slice(unsafe.StringData(presented), len(presented))
	if consumer, ok := k.find(k.known, secret); ok || len(k.digests) == 0 {
		return consumer, ok
	}
	consumer, ok := k.find(k.digests, digest(secret))
	if ok {
		// Only keys that were recognised are remembered: the map is no larger
		// than the configuration.
		k.add(k.known, []byte(presented), consumer)
	}
	return consumer, ok
}

// digest has the host hash, if it does such things.
func digest(secret []byte) []byte {
	if d, err := sdk.Digest(sdk.SHA256, secret); err == nil {
		return d
	}
	d := sha256.Sum256(secret)
	return d[:]
}

func (k *keyring) add(to entries, secret []byte, consumer string) {
	h := maphash.Bytes(k.seed, secret)
	to[h] = append(to[h], entry{secret, consumer})
}

func (k *keyring) find(in entries, secret []byte) (string, bool) {
	for _, e := range in[maphash.Bytes(k.seed, secret)] {
		if subtle.ConstantTimeCompare(e.secret, secret) == 1 {
			return e.consumer, true
		}
	}
	return "", false
}
