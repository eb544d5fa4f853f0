package wasm

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/weirmesh/weir/policy/jose"
	"github.com/weirmesh/weir/policy/wasm/abi"
)

// verified remembers, for all VMs of a policy, what has been checked and found good,
// since it is shown again with every request: tokens and passwords, by their digest.
// There are two generations; when the young one is full it becomes the old one, and
// what was old is forgotten.
type verified struct {
	mu         sync.Mutex
	young, old map[verifiedKey]*jose.Claims
	bytes      int // of the young ones
}

// verifiedKey says by what something was checked, and what it was.
type verifiedKey struct {
	by     *object
	digest [sha256.Size]byte
}

const (
	maxVerified      = 1024 // of a generation
	maxVerifiedBytes = 256 << 10
	// verifiedBytes is what is kept of one, beside its claims.
	verifiedBytes = 160
)

func (c *verified) get(k verifiedKey) (*jose.Claims, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if claims, ok := c.young[k]; ok {
		return claims, true
	}
	claims, ok := c.old[k]
	if ok {
		c.put(k, claims)
	}
	return claims, ok
}

func (c *verified) add(k verifiedKey, claims *jose.Claims) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(k, claims)
}

// put is called with mu held.
func (c *verified) put(k verifiedKey, claims *jose.Claims) {
	size := verifiedBytes
	if claims != nil {
		for _, value := range claims.Values {
			size += len(value)
		}
	}
	if c.young == nil || len(c.young) >= maxVerified || c.bytes+size > maxVerifiedBytes {
		c.old, c.young, c.bytes = c.young, map[verifiedKey]*jose.Claims{}, 0
	}
	c.young[k] = claims
	c.bytes += size
}

func readTokenRules(v *vm, text []byte) ([]byte, abi.Status) {
	return v.made("jwt", text, func(text []byte) (any, error) {
		var rules jose.Rules
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.DisallowUnknownFields()
		if err := d.Decode(&rules); err != nil {
			return nil, fmt.Errorf("read rules: %w", err)
		}
		verifier, err := jose.NewVerifier(rules)
		if err == nil {
			err = v.affords(verifier.Keys())
		}
		return verifier, err
	})
}

// The first byte of what checkToken returns.
const (
	tokenGood = iota
	tokenRefused
	tokenInsufficient
	tokenOfUnknownKey
)

// noValue is the length of a claim that is not there.
const noValue = 1<<32 - 1

// checkToken returns a byte, and then the claims that the rules want, each after its
// length, or why the token is not accepted.
func checkToken(v *vm, b []byte) ([]byte, abi.Status) {
	a := argumentsOf(b)
	verifier, of, ok := objectOf[*jose.Verifier](v, a.number())
	token := a.rest()
	if !ok || a.bad {
		return nil, abi.BadArgument
	}
	claims, err := v.claimsOf(verifier, of, token)
	if err == nil {
		err = claims.At(v.policy.host.config.Clock())
	}
	v.scratch = v.scratch[:0]
	if err != nil {
		first := byte(tokenRefused)
		var refusal *jose.Refusal
		switch {
		case !errors.As(err, &refusal):
		case refusal.Insufficient:
			first = tokenInsufficient
		case refusal.UnknownKey:
			first = tokenOfUnknownKey
		}
		v.scratch = append(append(v.scratch, first), err.Error()...)
		return v.scratch, abi.OK
	}
	v.scratch = append(v.scratch, tokenGood)
	for _, value := range claims.Values {
		size := uint32(len(value))
		if value == nil {
			size = noValue
		}
		v.scratch = append(binary.LittleEndian.AppendUint32(v.scratch, size), value...)
	}
	return v.scratch, abi.OK
}

func (v *vm) claimsOf(verifier *jose.Verifier, of *object, token []byte) (*jose.Claims, error) {
	if len(token) > jose.MaxTokenBytes {
		_, err := verifier.Open(token)
		return nil, err
	}
	v.draw(fuelPerVerified + int64(len(token))*fuelPerDigestByte)
	v.settle()
	k := verifiedKey{of, sha256.Sum256(token)}
	if claims, ok := v.policy.verified.get(k); ok {
		return claims, nil
	}
	v.draw(fuelPerOpen + int64(len(token))*fuelPerOpenByte)
	v.settle()
	opened, err := verifier.Open(token)
	if err != nil {
		return nil, err
	}
	fuel := opened.Nanoseconds() * fuelPerNanosecond
	if fuel > v.fuelLeft() {
		return nil, &jose.Refusal{Reason: "there are too many keys that it might be signed with: it must say which"}
	}
	v.draw(fuel)
	v.settle()
	claims, err := opened.Verify()
	if err == nil {
		v.policy.verified.add(k, claims)
	}
	return claims, err
}

// password is a hash of one, made by bcrypt.
type password struct {
	hash []byte
	fuel int64
}

// readPassword takes a hash that a callback can pay the check of: a policy whose
// callbacks ran out of fuel would shut everybody out.
func readPassword(v *vm, text []byte) ([]byte, abi.Status) {
	return v.made("password", text, func(text []byte) (any, error) {
		cost, err := bcrypt.Cost(text)
		if err != nil {
			return nil, errors.New("it is no hash that bcrypt has made: want $2y$COST$…")
		}
		fuel := int64(fuelPerBcrypt) << cost
		return &password{text, fuel}, v.affordsFuel(fmt.Sprintf("to check a hash of cost %d", cost), fuel)
	})
}

// checkPassword remembers passwords that were right, so that the next request which
// bears one costs little.
func checkPassword(v *vm, b []byte) ([]byte, abi.Status) {
	const most = 72 // as bcrypt has it
	a := argumentsOf(b)
	p, of, ok := objectOf[*password](v, a.number())
	given := a.rest()
	if !ok || a.bad {
		return nil, abi.BadArgument
	}
	if len(given) > most {
		return v.yes(false)
	}
	v.draw(fuelPerVerified)
	v.settle()
	k := verifiedKey{of, sha256.Sum256(given)}
	if _, ok := v.policy.verified.get(k); ok {
		return v.yes(true)
	}
	v.draw(p.fuel)
	v.settle()
	h := v.policy.host
	h.hashing <- struct{}{} // the others are for exchanges
	err := bcrypt.CompareHashAndPassword(p.hash, given)
	<-h.hashing
	if err == nil {
		v.policy.verified.add(k, nil)
	}
	return v.yes(err == nil)
}
