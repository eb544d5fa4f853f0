// Package apikey is what a key of an App looks like and what is kept of it.
//
//	New ─▶ weir_3kT…  ─▶ shown once to who asked for it
//	Sum ─▶ SHA-256    ─▶ stored, sent to proxies, looked up
//
// # Promises
//
//   - A key that New makes has 190 random bits: nobody guesses one, and nobody gets it
//     back from its sum.
//   - Any other bytes are a key as well, if their sum is declared: keys that came from
//     elsewhere stay in use.
package apikey

import (
	"crypto/rand"
	"crypto/sha256"
)

const (
	// Mark is how keys of Weir begin, for people and for programs that look for
	// secrets where none should be.
	Mark = "weir_"
	// MaxBytes is how long a key may be.
	MaxBytes = 4 << 10

	letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	random  = 32 // letters: 190 bits
	shown   = 7  // of them, 41 bits: enough to tell keys apart, and 149 are left
)

// New makes a key.
func New() string {
	key := make([]byte, 0, len(Mark)+random)
	key = append(key, Mark...)
	var drawn [64]byte
	for len(key) < cap(key) {
		_, _ = rand.Read(drawn[:]) // it never fails
		for _, b := range drawn {
			// As many values for each letter; the rest of them are drawn again.
			if int(b) < 256/len(letters)*len(letters) && len(key) < cap(key) {
				key = append(key, letters[int(b)%len(letters)])
			}
		}
	}
	return string(key)
}

// Sum is what is kept of a key.
func Sum[K string | []byte](key K) [sha256.Size]byte { return sha256.Sum256([]byte(key)) }

// Prefix is what of a key may be shown.
func Prefix(key string) string { return key[:min(len(key), len(Mark)+shown)] }
