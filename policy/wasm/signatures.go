package wasm

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"fmt"
	"hash"

	"github.com/weirmesh/weir/policy/jose"
	"github.com/weirmesh/weir/policy/wasm/abi"
)

// What guests ask of the host because it takes them ten times as long: hashes,
// signatures, tokens, passwords. Each is paid for before it is done, by what it takes
// the host.

// signatureCalls are the foreign functions of this file and the next.
var signatureCalls = []foreign{
	{"weir.digest", "hashes bytes by SHA-2", digestOf},
	{"weir.hmac", "makes a message's HMAC", hmacOf},
	{"weir.equal", "compares secrets in constant time", equalSecrets},
	{"weir.keys", "reads keys: JWK, JWK set, PEM", readKeys},
	{"weir.verify", "checks a signature", verifySignature},
	{"weir.jwt", "reads the rules that tokens are checked by", readTokenRules},
	{"weir.jwt_check", "checks a token", checkToken},
	{"weir.password", "reads a password's hash", readPassword},
	{"weir.password_check", "checks a password", checkPassword},
	{"weir.free", "gives up what a handle names", freeObject},
}

// hashes by the numbers that guests know them by.
var hashes = map[uint32]struct {
	new     func() hash.Hash
	perByte int64
}{
	256: {sha256.New, fuelPerDigestByte},
	384: {sha512.New384, 2 * fuelPerDigestByte},
	512: {sha512.New, 2 * fuelPerDigestByte},
}

func digestOf(v *vm, b []byte) ([]byte, abi.Status) {
	a := argumentsOf(b)
	h, known := hashes[a.number()]
	data := a.rest()
	if !known || a.bad {
		return nil, abi.BadArgument
	}
	v.draw(fuelPerDigest + int64(len(data))*h.perByte)
	v.settle()
	d := h.new()
	d.Write(data)
	v.scratch = d.Sum(v.scratch[:0])
	return v.scratch, abi.OK
}

func hmacOf(v *vm, b []byte) ([]byte, abi.Status) {
	a := argumentsOf(b)
	h, known := hashes[a.number()]
	key, data := a.bytes(), a.rest()
	if !known || a.bad {
		return nil, abi.BadArgument
	}
	v.draw(4*fuelPerDigest + int64(len(key)+len(data))*h.perByte)
	v.settle()
	d := hmac.New(h.new, key)
	d.Write(data)
	v.scratch = d.Sum(v.scratch[:0])
	return v.scratch, abi.OK
}

// equalSecrets: their lengths are no secret.
func equalSecrets(v *vm, b []byte) ([]byte, abi.Status) {
	a := argumentsOf(b)
	one, other := a.bytes(), a.rest()
	if a.bad {
		return nil, abi.BadArgument
	}
	v.drawBytes(4 * len(b))
	return v.yes(subtle.ConstantTimeCompare(one, other) == 1)
}

// yes is a result of one byte.
func (v *vm) yes(b bool) ([]byte, abi.Status) {
	v.scratch = append(v.scratch[:0], byte(flag(b)))
	return v.scratch, abi.OK
}

func readKeys(v *vm, text []byte) ([]byte, abi.Status) {
	return v.made("keys", text, func(text []byte) (any, error) {
		keys, err := jose.ParseKeys(text)
		if err == nil {
			err = v.affords(keys)
		}
		return keys, err
	})
}

// affords refuses keys that a callback could not pay the use of: one that ran out of
// fuel would fail instead of saying no.
func (v *vm) affords(keys *jose.Keys) error {
	const message = 4 << 10
	fuel := keys.Nanoseconds(message) * fuelPerNanosecond
	return v.affordsFuel("to check a signature by one of the keys", fuel)
}

func (v *vm) affordsFuel(what string, fuel int64) error {
	if most := v.policy.fuel; fuel > most-most/8 {
		return fmt.Errorf("%s takes %d units of fuel, and a callback has %d: raise limits.fuel of the Plugin, or choose what costs less", what, fuel, most)
	}
	return nil
}

// fuelLeft is how much fuel the callback has.
func (v *vm) fuelLeft() int64 { return int64(v.tank.Get()) - v.owed }

// verifySignature says yes or no; that a key is not there is a no, too.
func verifySignature(v *vm, b []byte) ([]byte, abi.Status) {
	a := argumentsOf(b)
	keys, _, ok := objectOf[*jose.Keys](v, a.number())
	algorithm, id, signature, message := string(a.bytes()), string(a.bytes()), a.bytes(), a.rest()
	if !ok || a.bad || len(algorithm) > maxName || len(id) > maxName {
		return nil, abi.BadArgument
	}
	for _, key := range keys.For(algorithm, id) {
		if key.Nanoseconds(len(message))*fuelPerNanosecond > v.fuelLeft() {
			return nil, abi.InternalFailure // there is no telling
		}
		v.draw(key.Nanoseconds(len(message)) * fuelPerNanosecond)
		v.settle()
		if key.Verify(algorithm, message, signature) {
			return v.yes(true)
		}
	}
	return v.yes(false)
}
