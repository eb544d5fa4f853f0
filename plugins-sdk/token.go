package sdk

import (
	"encoding/json"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// TokenRules are what a JSON Web Token must be to be accepted.
type TokenRules struct {
	// Keys is a JWK, a JWK set or PEM. They decide which algorithms there are; there
	// is no "none".
	Keys string `json:"-"`
	// Public: secrets among the keys are passed over. It is for keys that were fetched
	// from where everybody may read them.
	Public bool `json:"public,omitempty"`
	// Algorithms are those allowed of them; empty: all.
	Algorithms []string `json:"algorithms,omitempty"`
	// Issuers and Audiences: the token's must be one of these. Empty: anyone's.
	Issuers   []string `json:"issuers,omitempty"`
	Audiences []string `json:"audiences,omitempty"`
	// Leeway is how many seconds clocks may differ.
	Leeway int64 `json:"leeway,omitempty"`
	// Endless tokens, which have no "exp", are accepted.
	Endless bool `json:"endless,omitempty"`
	// Require names claims which must have one of the values; without values, which
	// must be there.
	Require map[string][]string `json:"require,omitempty"`
	// Claims are those that Check returns. A name that begins with a slash is a JSON
	// pointer; "" is all of them.
	Claims []string `json:"claims,omitempty"`
}

// Tokens checks tokens by rules.
type Tokens struct {
	handle uint32
	claims int
}

// NewTokens reads the keys and checks the rules.
func NewTokens(r TokenRules) (Tokens, error) {
	rules, err := json.Marshal(r)
	if err != nil {
		return Tokens{}, err
	}
	text := make([]byte, 0, len(r.Keys)+len(r.Keys)/4+len(rules)+16)
	text = appendMember(append(text, '{'), "keys", r.Keys) // encoding/json is slow, and they are long
	if len(rules) > len("{}") {
		text = append(text, ',')
	}
	h, err := made("weir.jwt", append(text, rules[1:]...))
	return Tokens{h, len(r.Claims)}, err
}

// Free gives the rules up; they must not be used any more. Those of a handler that
// never makes others need not be freed.
func (t Tokens) Free() {
	if t.handle != 0 {
		_, _ = Foreign("weir.free", number(nil, t.handle)) // there is nothing to be done about it
	}
}

// TokenError says why a token is not accepted.
type TokenError struct {
	// Insufficient: the token is good, but lacks what the rules require.
	Insufficient bool
	// UnknownKey: it may be good, by a key that is newer than those of the rules.
	UnknownKey bool
	Reason     string
}

func (e *TokenError) Error() string { return e.Reason }

// Check returns the claims that the rules name, as text: a string as it is, an array
// of strings with commas between, anything else as JSON. The error is a [TokenError] when the
// token is not accepted. The host remembers tokens that were good.
func (t Tokens) Check(token string) ([]Value, error) {
	message = append(number(message[:0], t.handle), token...)
	result, err := Foreign("weir.jwt_check", message)
	switch {
	case err != nil:
		return nil, err
	case len(result) == 0:
		return nil, errCut
	case result[0] != 0:
		return nil, &TokenError{Insufficient: result[0] == 2, UnknownKey: result[0] == 3, Reason: abi.Text(result[1:])}
	}
	claims := make([]Value, t.claims)
	err = values(result[1:], func(i int, value string, there bool) {
		if i < len(claims) {
			claims[i] = Value{value, there}
		}
	})
	return claims, err
}
