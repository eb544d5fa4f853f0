// Package jwt is a policy that asks for a JSON Web Token (RFC 7519, 6750, 8725).
//
//	config:
//	  keys: {keys: [{kty: EC, crv: P-256, kid: "1", x: …, y: …}]}   # a JWK, a set, or PEM as text
//	  jwks: {service: idp, url: https://issuer.example/keys}        # or where the issuer has them
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
	"strings"

	sdk "github.com/weirmesh/weir/plugins-sdk"

	"github.com/weirmesh/weir/examples/plugins/standard/bearer"
	"github.com/weirmesh/weir/examples/plugins/standard/consumer"
	"github.com/weirmesh/weir/examples/plugins/standard/jwks"
)

// Plugin is the policy.
func Plugin() sdk.Plugin { return sdk.Define(newTokens) }

type config struct {
	bearer.Config
	Keys       json.RawMessage `json:"keys" about:"a JWK or a JWK set, or PEM as text"`
	JWKS       jwks.Config     `json:"jwks" about:"instead of keys: where the issuer publishes them"`
	Algorithms []string        `json:"algorithms" about:"those allowed of what the keys can; empty: all"`
	Leeway     int64           `json:"leeway" about:"how many seconds clocks may differ"`
	Endless    bool            `json:"endless" about:"accepts tokens without exp"`
}

func (c *config) Default() {
	c.Config, c.JWKS, c.Leeway = bearer.Default(), jwks.Default(), 30
}

func (c *config) Validate() error {
	if err := c.Check(); err != nil {
		return err
	}
	switch {
	case len(c.Keys) == 0 && !c.JWKS.Asked():
		return errors.New("keys: missing: give a JWK, a JWK set, or PEM; or jwks, to have them fetched")
	case len(c.Keys) > 0 && c.JWKS.Asked():
		return errors.New("give either keys or jwks")
	case !c.JWKS.Asked():
		return nil
	}
	if c.JWKS.Issuer != "" && len(c.Issuers) == 0 {
		c.Issuers = []string{c.JWKS.Issuer}
	}
	if err := c.JWKS.Check(); err != nil {
		return fmt.Errorf("jwks: %w", err)
	}
	return nil
}

// tokens checks tokens by keys that never change.
type tokens struct {
	*bearer.Bearer
	config config
	rules  sdk.Tokens
}

// fetched checks them by those that the issuer has now.
type fetched struct {
	tokens
	source *jwks.Source
}

func newTokens(c config) (sdk.Handler, error) {
	t := tokens{Bearer: bearer.New(c.Config), config: c}
	if !c.JWKS.Asked() {
		keys := string(c.Keys)
		var text string
		if json.Unmarshal(c.Keys, &text) == nil {
			keys = text
		}
		if err := t.use(keys); err != nil {
			return nil, fmt.Errorf("keys or rules: %w", err)
		}
		return &t, nil
	}
	if err := t.use(probe); err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	f := &fetched{tokens: t}
	f.source = jwks.New(c.JWKS, f.use)
	return f, nil
}

// probe is a public key that signs nothing: rules are tried before there are keys.
const probe = `{"kty":"OKP","crv":"Ed25519","kid":"probe","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`

// use checks tokens by other keys from now on.
func (t *tokens) use(keys string) error {
	c := &t.config
	rules, err := sdk.NewTokens(sdk.TokenRules{
		Keys: keys, Public: c.JWKS.Asked(), Algorithms: c.Algorithms, Issuers: c.Issuers, Audiences: c.Audiences,
		Leeway: c.Leeway, Endless: c.Endless, Require: c.Require, Claims: t.Claims(),
	})
	if err != nil {
		return err
	}
	t.rules.Free()
	t.rules = rules
	return nil
}

func (t *tokens) OnRequest(r *sdk.Request) sdk.Action {
	token, err := t.Token(r)
	switch {
	case err != nil:
		return t.Confused(r, err)
	case token == "":
		return t.None(r)
	}
	return t.judge(r, token, nil)
}

// judge checks a token. One that is signed with an unknown key is given to unknown, if
// there is that.
func (t *tokens) judge(r *sdk.Request, token string, unknown func() sdk.Action) sdk.Action {
	claims, err := t.rules.Check(token)
	var refused *sdk.TokenError
	switch {
	case err == nil:
		return t.Accept(r, claims)
	case !errors.As(err, &refused):
		return consumer.Broken(r.Exchange, err)
	case refused.Insufficient:
		return t.Forbid(r, refused.Reason)
	case refused.UnknownKey && unknown != nil:
		return unknown()
	}
	return t.Refuse(r, refused.Reason)
}

// OnTick keeps the keys up.
func (f *fetched) OnTick() { f.source.Tick() }

// OnRequest shadows that of fixed keys.
func (f *fetched) OnRequest(r *sdk.Request) sdk.Action {
	token, err := f.Token(r)
	switch {
	case err != nil:
		return f.Confused(r, err)
	case token == "":
		return f.None(r)
	case f.source.Ready():
		return f.judge(r, token, func() sdk.Action { return f.renew(r, token) })
	}
	token = strings.Clone(token)
	return f.source.Await(r, func(ready bool) sdk.Action {
		if !ready {
			return f.Unavailable(r, "the issuer's keys are not there yet")
		}
		return f.judge(r, token, nil)
	})
}

func (f *fetched) renew(r *sdk.Request, token string) sdk.Action {
	return f.source.Renew(r, func(bool) sdk.Action { return f.judge(r, token, nil) })
}
