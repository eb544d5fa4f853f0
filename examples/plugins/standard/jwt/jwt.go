// Package jwt is a policy that asks for a JSON Web Token (RFC 7519, 6750, 8725).
//
//	config:
//	  keys: {keys: [{kty: EC, crv: P-256, kid: "1", x: …, y: …}]}   # a JWK, a set, or PEM as text
//	  issuers: [https://issuer.example]
//	  audiences: [bookshop]
//	  require: {scope: [orders]}
//	  headers: {x-email: email, x-roles: /realm_access/roles}
//
// The keys decide which algorithms there are. Where a token says that it is by another
// one, by none, or has extensions that must be understood, it is refused.
package jwt

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	sdk "github.com/weirmesh/weir/plugins-sdk"

	"github.com/weirmesh/weir/examples/plugins/standard/consumer"
)

// Plugin is the policy.
func Plugin() sdk.Plugin { return sdk.Define(newTokens) }

type config struct {
	consumer.Config
	Keys       json.RawMessage     `json:"keys" about:"a JWK or a JWK set, or PEM as text"`
	Algorithms []string            `json:"algorithms" about:"those allowed of what the keys can; empty: all"`
	Issuers    []string            `json:"issuers" about:"one of these must have issued the token; empty: anyone"`
	Audiences  []string            `json:"audiences" about:"the token must be for one of these; empty: for anyone"`
	Leeway     int64               `json:"leeway" about:"how many seconds clocks may differ"`
	Endless    bool                `json:"endless" about:"accepts tokens without exp"`
	Require    map[string][]string `json:"require" about:"claims which must have one of the values"`
	Header     string              `json:"header" about:"bears the token; authorization after the word Bearer"`
	Cookie     string              `json:"cookie" about:"bears the token where there is none in the header"`
	Hide       bool                `json:"hide" about:"keeps the header with the token from the service"`
	Consumer   string              `json:"consumer" about:"the claim that says who calls"`
	Headers    map[string]string   `json:"headers" about:"tell the service claims, by name or JSON pointer"`
	Realm      string              `json:"realm" about:"in the challenge of a refusal"`
}

func (c *config) Default() {
	c.Config, c.Leeway, c.Header, c.Consumer, c.Realm = consumer.Default(), 30, "authorization", "sub", "restricted"
}

func (c *config) Validate() error {
	if err := c.Check(); err != nil {
		return err
	}
	if len(c.Keys) == 0 {
		return errors.New("keys: missing: give a JWK, a JWK set, or PEM")
	}
	if err := consumer.CheckHeader(c.Header); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	for name, claim := range c.Headers {
		if err := consumer.CheckHeader(name); err != nil {
			return fmt.Errorf("headers: %w", err)
		}
		if strings.EqualFold(name, c.ConsumerHeader) || strings.EqualFold(name, c.Header) || claim == "" {
			return fmt.Errorf("headers: %s: want a claim, in a header that is not used otherwise", name)
		}
	}
	if c.Consumer == "" {
		return errors.New("consumer: must not be empty")
	}
	if strings.ContainsFunc(c.Realm, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		return errors.New("realm: must be printable ASCII without quotes and backslashes")
	}
	return nil
}

type tokens struct {
	config config
	rules  sdk.Tokens
	// headers are for the claims behind the first, which says who calls.
	headers []string
	missing sdk.Problem
}

func newTokens(c config) (sdk.Handler, error) {
	keys := string(c.Keys)
	var text string
	if json.Unmarshal(c.Keys, &text) == nil {
		keys = text
	}
	headers := slices.Sorted(maps.Keys(c.Headers))
	claims := []string{c.Consumer}
	for _, name := range headers {
		claims = append(claims, c.Headers[name])
	}
	rules, err := sdk.NewTokens(sdk.TokenRules{
		Keys: keys, Algorithms: c.Algorithms, Issuers: c.Issuers, Audiences: c.Audiences,
		Leeway: c.Leeway, Endless: c.Endless, Require: c.Require, Claims: claims,
	})
	if err != nil {
		return nil, fmt.Errorf("keys or rules: %w", err)
	}
	for i := range headers {
		headers[i] = strings.ToLower(headers[i])
	}
	return &tokens{
		config: c, rules: rules, headers: headers,
		missing: consumer.Unauthenticated("A token is required", "Send it in the header "+c.Header+"."),
	}, nil
}

func (t *tokens) OnRequest(r *sdk.Request) sdk.Action {
	token := t.find(r)
	if token == "" {
		return t.none(r)
	}
	claims, err := t.rules.Check(token)
	if err != nil {
		return t.refuse(r, err)
	}
	t.config.Known(r, claims[0].Text)
	for i, name := range t.headers {
		if value := claims[i+1].Text; consumer.Sendable(value) {
			r.Header.Set(name, value)
		} else {
			r.Header.Del(name)
		}
	}
	if t.config.Hide {
		t.hide(r)
	}
	return sdk.Continue
}

// find returns the token of a request, "" where there is none.
func (t *tokens) find(r *sdk.Request) string {
	value := r.Header.Get(t.config.Header)
	if !strings.EqualFold(t.config.Header, "authorization") {
		if value != "" {
			return value
		}
	} else if scheme, token, _ := strings.Cut(value, " "); strings.EqualFold(scheme, "bearer") {
		return strings.TrimSpace(token)
	}
	if t.config.Cookie == "" {
		return ""
	}
	for name, line := range r.Header.All() {
		if !strings.EqualFold(name, "cookie") {
			continue
		}
		for part := range strings.SplitSeq(line, ";") {
			if key, value, _ := strings.Cut(strings.TrimSpace(part), "="); key == t.config.Cookie {
				return value
			}
		}
	}
	return ""
}

func (t *tokens) hide(r *sdk.Request) { r.Header.Del(t.config.Header) }

// none: RFC 6750, section 3.1, says nothing of an error to who has sent no token.
func (t *tokens) none(r *sdk.Request) sdk.Action {
	if !t.config.Optional {
		return r.Refuse(t.missing, sdk.Field{Name: "www-authenticate", Value: `Bearer realm="` + t.config.Realm + `"`})
	}
	for _, name := range t.headers {
		r.Header.Del(name)
	}
	return t.config.Anonymous(r)
}

func (t *tokens) refuse(r *sdk.Request, err error) sdk.Action {
	var refused *sdk.TokenError
	if !errors.As(err, &refused) {
		return consumer.Broken(r.Exchange, err)
	}
	problem, word := consumer.Unauthenticated("The token is not accepted", ""), "invalid_token"
	if refused.Insufficient {
		problem, word = consumer.Forbidden("The token does not allow this", ""), "insufficient_scope"
	}
	problem.Detail = strings.ToUpper(refused.Reason[:1]) + refused.Reason[1:] + "."
	return r.Refuse(problem, sdk.Field{Name: "www-authenticate",
		Value: `Bearer realm="` + t.config.Realm + `", error="` + word + `", error_description="` + plain(refused.Reason) + `"`})
}

// plain leaves of a text what may stand in quotes there.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '_'
		}
		return r
	}, text)
}
