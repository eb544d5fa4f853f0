package sdk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// What the host computes for a plugin, since a sandbox takes ten times as long for it.
// These are Weir's own; elsewhere they return an error that [NotOffered] knows.
//
// Keys, rules, expressions and paths are read once, when a handler is made: what is
// returned for them is a small value to keep.

// NotOffered reports whether an error says that this host does not have the function.
func NotOffered(err error) bool { return errors.Is(err, abi.NotFound) }

// Hash is a hash function.
type Hash uint32

// The hash functions.
const (
	SHA256 Hash = 256
	SHA384 Hash = 384
	SHA512 Hash = 512
)

// message is arguments on their way to the host. A sandbox has one thread.
var message []byte

func number(b []byte, n uint32) []byte { return binary.LittleEndian.AppendUint32(b, n) }

func sized[T string | []byte](b []byte, text T) []byte {
	return append(number(b, uint32(len(text))), text...)
}

// Digest hashes data.
func Digest(h Hash, data []byte) ([]byte, error) {
	message = append(number(message[:0], uint32(h)), data...)
	return Foreign("weir.digest", message)
}

// HMAC is a message's authentication code under a key.
func HMAC(h Hash, key, data []byte) ([]byte, error) {
	message = append(sized(number(message[:0], uint32(h)), key), data...)
	return Foreign("weir.hmac", message)
}

// Keys are public keys, or secrets, which signatures are checked with.
type Keys struct{ handle uint32 }

// ParseKeys reads a JWK, a JWK set or PEM (public keys, certificates).
func ParseKeys(text string) (Keys, error) {
	h, err := made("weir.keys", []byte(text))
	return Keys{h}, err
}

// Verify checks a signature by an algorithm of RFC 7518, such as "ES256", with the
// keys of that id, or those that have none. A signature of ECDSA is r and s one after
// the other.
func (k Keys) Verify(algorithm, id string, signed, signature []byte) (bool, error) {
	message = sized(sized(sized(number(message[:0], k.handle), algorithm), id), signature)
	message = append(message, signed...)
	return yes(Foreign("weir.verify", message))
}

// Password is a hash that bcrypt has made of one.
type Password struct{ handle uint32 }

// ParsePassword reads a hash, "$2y$…". One that takes more fuel than a callback has
// is refused.
func ParsePassword(hash string) (Password, error) {
	h, err := made("weir.password", []byte(hash))
	return Password{h}, err
}

// Check reports whether it is that password. The host remembers those that were, so
// that this is dear once.
func (p Password) Check(password string) (bool, error) {
	message = append(number(message[:0], p.handle), password...)
	return yes(Foreign("weir.password_check", message))
}

func yes(result []byte, err error) (bool, error) {
	return len(result) == 1 && result[0] == 1, err
}

// made calls a function that makes something of a text, and returns its handle.
func made(function string, text []byte) (uint32, error) {
	result, err := Foreign(function, text)
	switch {
	case err != nil:
		return 0, err
	case len(result) == 5 && result[0] == 0:
		return binary.LittleEndian.Uint32(result[1:]), nil
	case len(result) > 1:
		return 0, errors.New(string(result[1:]))
	}
	return 0, fmt.Errorf("call %s: it returned %d bytes", function, len(result))
}

// values takes apart what the host has put one after the other.
func values(result []byte, f func(i int, value string, there bool)) error {
	const none = 1<<32 - 1
	for i := 0; len(result) > 0; i++ {
		if len(result) < 4 {
			return errCut
		}
		n := binary.LittleEndian.Uint32(result)
		result = result[4:]
		if n == none {
			f(i, "", false)
			continue
		}
		if uint64(n) > uint64(len(result)) {
			return errCut
		}
		f(i, abi.Text(result[:n]), true)
		result = result[n:]
	}
	return nil
}

var errCut = errors.New("host: a result is cut off")

// Expression is a regular expression of RE2.
type Expression struct{ handle uint32 }

// Compile reads a regular expression, in Go's syntax.
func Compile(pattern string) (Expression, error) {
	h, err := made("weir.regexp", []byte(pattern))
	return Expression{h}, err
}

// Find returns where the first match begins and ends, then its groups, -1 for those
// that took no part; nil where there is no match.
func (e Expression) Find(text string) ([]int, error) {
	message = append(number(message[:0], e.handle), text...)
	result, err := Foreign("weir.regexp_find", message)
	if err != nil || len(result) == 0 {
		return nil, err
	}
	at := make([]int, len(result)/4)
	for i := range at {
		at[i] = int(int32(binary.LittleEndian.Uint32(result[4*i:])))
	}
	return at, nil
}

// Match reports whether something in the text matches.
func (e Expression) Match(text string) (bool, error) {
	message = append(number(message[:0], e.handle), text...)
	result, err := Foreign("weir.regexp_find", message)
	return len(result) > 0, err
}

// Replace puts what the template makes of each match ($1, ${name}) in its place.
func (e Expression) Replace(text, template string) (string, error) {
	message = append(sized(number(message[:0], e.handle), template), text...)
	result, err := Foreign("weir.regexp_replace", message)
	return abi.Text(result), err
}
