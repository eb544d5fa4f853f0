package jose

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

// Rules are what a token must be to be accepted. They are JSON for the sake of
// those who hand them to a host.
type Rules struct {
	// Keys is what ParseKeys reads: a JWK, a JWK set or PEM.
	Keys string `json:"keys"`
	// Public: secrets among the keys are passed over. Keys that were fetched from where
	// everybody may read them are no secrets.
	Public bool `json:"public"`
	// Algorithms are those allowed; empty: all that the keys can.
	Algorithms []string `json:"algorithms"`
	// Issuers and Audiences: the token's must be one of them. Empty: anyone's.
	Issuers   []string `json:"issuers"`
	Audiences []string `json:"audiences"`
	// Leeway is how many seconds clocks may differ.
	Leeway int64 `json:"leeway"`
	// Endless tokens have no "exp", and are accepted.
	Endless bool `json:"endless"`
	// Require names claims which must have one of the values: the claim is the
	// value, an array with it, or words of which it is one. No value: the claim must
	// be there.
	Require map[string][]string `json:"require"`
	// Claims are those that are wanted, in this order. A name that begins with a
	// slash is a JSON pointer (RFC 6901), "" all of the claims.
	Claims []string `json:"claims"`
}

// Verifier checks tokens.
type Verifier struct {
	keys  *Keys
	rules Rules
}

// NewVerifier reads the keys and checks the rules.
func NewVerifier(r Rules) (*Verifier, error) {
	keys, err := ParseKeys([]byte(r.Keys))
	if err != nil {
		return nil, err
	}
	if r.Public {
		if keys = keys.public(); len(keys.list) == 0 {
			return nil, errors.New("no key can be used: secrets are not taken from where everybody may read them")
		}
	}
	for _, name := range r.Algorithms {
		if !Known(name) {
			return nil, fmt.Errorf("algorithm %q is not known", name)
		}
	}
	if r.Leeway < 0 || r.Leeway > 3600 {
		return nil, errors.New("leeway must be between 0 and 3600 seconds")
	}
	return &Verifier{keys: keys, rules: r}, nil
}

// Keys are those that tokens are checked with.
func (v *Verifier) Keys() *Keys { return v.keys }

// Refusal says why a token is not accepted.
type Refusal struct {
	// Insufficient: the token is good, its bearer may not do this.
	Insufficient bool
	// UnknownKey: newer keys might have the one that the token is signed with.
	UnknownKey bool
	Reason     string
}

func (r *Refusal) Error() string { return r.Reason }

func refuse(format string, args ...any) error { return &Refusal{Reason: fmt.Sprintf(format, args...)} }

// Opened is a token that has a known form, and of which nothing is true yet.
type Opened struct {
	verifier  *Verifier
	algorithm string
	named     bool // it says which key
	keys      []*Key
	message   []byte // what is signed
	payload   []byte
	signature []byte
}

// header is a token's, as far as it is looked at.
type header struct {
	Algorithm string          `json:"alg"`
	KeyID     string          `json:"kid"`
	Critical  json.RawMessage `json:"crit"`
}

// Open takes a token apart.
func (v *Verifier) Open(token []byte) (*Opened, error) {
	if len(token) > MaxTokenBytes {
		return nil, refuse("the token is longer than %d KiB", MaxTokenBytes>>10)
	}
	last := bytes.LastIndexByte(token, '.')
	if last < 0 || bytes.Count(token, []byte(".")) != 2 {
		return nil, refuse("the token is not of the form header.claims.signature")
	}
	first, second, _ := bytes.Cut(token[:last], []byte("."))
	head, err := part(first)
	if err != nil {
		return nil, refuse("the token's header is not base64url")
	}
	var h header
	if json.Unmarshal(head, &h) != nil {
		return nil, refuse("the token's header is not JSON")
	}
	o := &Opened{verifier: v, algorithm: h.Algorithm, named: h.KeyID != "", message: token[:last]}
	if o.payload, err = part(second); err != nil {
		return nil, refuse("the token's claims are not base64url")
	}
	if o.signature, err = part(token[last+1:]); err != nil {
		return nil, refuse("the token's signature is not base64url")
	}
	switch {
	case h.Critical != nil:
		return nil, refuse("the token has critical extensions, of which none is understood")
	case !Known(h.Algorithm) || len(v.rules.Algorithms) > 0 && !slices.Contains(v.rules.Algorithms, h.Algorithm):
		return nil, refuse("the token's algorithm is not allowed")
	}
	if o.keys = v.keys.For(h.Algorithm, h.KeyID); len(o.keys) == 0 {
		return nil, &Refusal{UnknownKey: true, Reason: "the token is signed with a key that is not known"}
	}
	return o, nil
}

// part decodes without forgiving: what has two encodings has two digests, too.
func part(text []byte) ([]byte, error) {
	return base64.RawURLEncoding.Strict().AppendDecode(nil, text)
}

// Nanoseconds is about what Verify takes.
func (o *Opened) Nanoseconds() (n int64) {
	for _, key := range o.keys {
		n += key.Nanoseconds(len(o.message))
	}
	const perByte = 30 // of JSON
	return n + int64(len(o.payload))*perByte
}

// Claims are those of a token whose signature is good and which keeps all the
// rules that do not depend on the time.
type Claims struct {
	// Values are those that the rules want, as text: a string as it is, an array of
	// strings with commas between, anything else as JSON. nil: the claim is not there.
	Values             [][]byte
	notBefore, expires float64 // seconds since 1970
	leeway             float64
}

// Verify checks the signature and the claims.
func (o *Opened) Verify() (*Claims, error) {
	good := slices.ContainsFunc(o.keys, func(k *Key) bool { return k.Verify(o.algorithm, o.message, o.signature) })
	if !good {
		return nil, &Refusal{UnknownKey: !o.named, Reason: "the token's signature is wrong"}
	}
	var all map[string]json.RawMessage
	if json.Unmarshal(o.payload, &all) != nil || all == nil {
		return nil, refuse("the token's claims are not a JSON object")
	}
	r := &o.verifier.rules
	c := &Claims{expires: math.Inf(1), notBefore: math.Inf(-1), leeway: float64(r.Leeway)}
	if err := c.read(all, r); err != nil {
		return nil, err
	}
	for name, values := range r.Require {
		if !satisfies(claim(all, o.payload, name), values) {
			return nil, &Refusal{Insufficient: true, Reason: fmt.Sprintf("the token's %s does not allow this", name)}
		}
	}
	for _, name := range r.Claims {
		c.Values = append(c.Values, plain(claim(all, o.payload, name)))
	}
	return c, nil
}

// read looks at the registered claims.
func (c *Claims) read(all map[string]json.RawMessage, r *Rules) error {
	if len(r.Issuers) > 0 && !slices.Contains(r.Issuers, textOf(all["iss"])) {
		return refuse("the token's issuer is not one that is trusted here")
	}
	if len(r.Audiences) > 0 && !slices.ContainsFunc(words(all["aud"]), func(a string) bool { return slices.Contains(r.Audiences, a) }) {
		return refuse("the token is for another audience")
	}
	for name, into := range map[string]*float64{"exp": &c.expires, "nbf": &c.notBefore} {
		value, there := all[name]
		if !there {
			continue
		}
		if json.Unmarshal(value, into) != nil || string(value) == "null" || math.Abs(*into) > 1<<53 {
			return refuse("the token's %s is not a time", name)
		}
	}
	if _, there := all["exp"]; !there && !r.Endless {
		return refuse("the token has no exp: it would never end")
	}
	return nil
}

// At checks the times that the token is good between.
func (c *Claims) At(now time.Time) error {
	seconds := float64(now.UnixNano()) / 1e9
	switch {
	case seconds >= c.expires+c.leeway:
		return refuse("the token has expired")
	case seconds < c.notBefore-c.leeway:
		return refuse("the token is not valid yet")
	}
	return nil
}

// claim finds one by its name or its pointer; nil: it is not there.
func claim(all map[string]json.RawMessage, payload []byte, name string) json.RawMessage {
	if name == "" {
		return payload
	}
	if !strings.HasPrefix(name, "/") {
		return all[name]
	}
	var at json.RawMessage
	for i, step := range strings.Split(name[1:], "/") {
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		if i > 0 {
			all = nil
			if json.Unmarshal(at, &all) != nil {
				return nil
			}
		}
		if at = all[step]; at == nil {
			return nil
		}
	}
	return at
}

// textOf is a string's text, "" of anything else.
func textOf(value json.RawMessage) string {
	var s string
	_ = json.Unmarshal(value, &s)
	return s
}

// words is an array of strings, or the string that stands for one.
func words(value json.RawMessage) []string {
	var list []string
	if json.Unmarshal(value, &list) == nil && list != nil {
		return list
	}
	if s := textOf(value); s != "" {
		return []string{s}
	}
	return nil
}

// plain is a claim as text.
func plain(value json.RawMessage) []byte {
	if value == nil {
		return nil
	}
	if value[0] == '"' {
		return []byte(textOf(value))
	}
	var list []string
	if value[0] == '[' && json.Unmarshal(value, &list) == nil {
		return []byte(strings.Join(list, ","))
	}
	return append([]byte{}, value...)
}

// satisfies reports whether a claim has one of the values.
func satisfies(value json.RawMessage, values []string) bool {
	if value == nil || len(values) == 0 {
		return value != nil
	}
	has := words(value)
	if len(has) == 1 {
		has = append(has, strings.Fields(has[0])...)
	}
	if len(has) == 0 {
		has = []string{string(value)} // a number, true or false
	}
	return slices.ContainsFunc(values, func(v string) bool { return slices.Contains(has, v) })
}
