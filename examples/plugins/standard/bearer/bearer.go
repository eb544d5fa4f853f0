// Package bearer is what the policies that ask for a bearer token (RFC 6750) have in
// common: where it is, who is told what it says, and how a refusal reads.
//
// The service gets the token that was looked at, and no other beside it.
package bearer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	sdk "github.com/weirmesh/weir/plugins-sdk"

	"github.com/weirmesh/weir/examples/plugins/standard/consumer"
)

// Config is a part of their configurations.
type Config struct {
	consumer.Config
	Issuers   []string            `json:"issuers" about:"one of these must have issued the token; empty: anyone"`
	Audiences []string            `json:"audiences" about:"the token must be for one of these; empty: for anyone"`
	Require   map[string][]string `json:"require" about:"claims which must have one of the values"`
	Header    string              `json:"header" about:"bears the token; authorization after the word Bearer"`
	Cookie    string              `json:"cookie" about:"bears the token where there is none in the header"`
	Hide      bool                `json:"hide" about:"keeps the header with the token from the service"`
	Consumer  string              `json:"consumer" about:"the claim that says who calls"`
	Headers   map[string]string   `json:"headers" about:"tell the service claims, by name or JSON pointer"`
	Realm     string              `json:"realm" about:"in the challenge of a refusal"`
}

// Default is a token in the header authorization, whose subject calls.
func Default() Config {
	return Config{Config: consumer.Default(), Header: "authorization", Consumer: "sub", Realm: "restricted"}
}

// Check says what is wrong with it.
func (c *Config) Check() error {
	if err := c.Config.Check(); err != nil {
		return err
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
	if strings.ContainsFunc(c.Realm, isUnquotable) {
		return errors.New("realm: must be printable ASCII without quotes and backslashes")
	}
	return nil
}

// Bearer finds tokens, and tells what they say.
type Bearer struct {
	config Config
	// names are those of the headers for the claims behind the first, which says who
	// calls.
	names   []string
	claims  []string
	missing sdk.Problem
}

// New makes one of a configuration that was checked.
func New(c Config) *Bearer {
	b := &Bearer{config: c, claims: []string{c.Consumer}, missing: consumer.Unauthenticated("A token is required", "Send it in the header "+c.Header+".")}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		b.claims = append(b.claims, c.Headers[name])
		b.names = append(b.names, strings.ToLower(name))
	}
	return b
}

// Claims are those that Accept is to be told, in their order.
func (b *Bearer) Claims() []string { return b.claims }

// errTwice says that a request bears more than one token.
var errTwice = errors.New("there is more than one token")

// Token returns the token of a request, "" where there is none.
func (b *Bearer) Token(r *sdk.Request) (string, error) {
	token := r.Header.Get(b.config.Header)
	if strings.EqualFold(b.config.Header, "authorization") {
		token = afterBearer(token)
	}
	if token != "" || b.config.Cookie == "" {
		return token, nil
	}
	for name, line := range r.Header.All() {
		if !strings.EqualFold(name, "cookie") {
			continue
		}
		for part := range strings.SplitSeq(line, ";") {
			key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			if key != b.config.Cookie {
				continue
			}
			if token != "" && token != value {
				return "", errTwice
			}
			token = value
		}
	}
	return token, nil
}

func afterBearer(value string) string {
	scheme, token, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// Accept tells the service who calls and what else it is to know.
func (b *Bearer) Accept(r *sdk.Request, claims []sdk.Value) sdk.Action {
	b.config.Known(r, claims[0].Text)
	for i, name := range b.names {
		if value := claims[i+1].Text; consumer.Sendable(value) {
			r.Header.Set(name, value)
		} else {
			r.Header.Del(name)
		}
	}
	if b.config.Hide {
		r.Header.Del(b.config.Header)
	} else if value := r.Header.Get(b.config.Header); value != "" {
		r.Header.Set(b.config.Header, value) // and no other beside it
	}
	return sdk.Continue
}

// None is what becomes of a request without a token. RFC 6750, section 3.1, says
// nothing of an error to who has sent none.
func (b *Bearer) None(r *sdk.Request) sdk.Action {
	if !b.config.Optional {
		return r.Refuse(b.missing, sdk.Field{Name: "www-authenticate", Value: `Bearer realm="` + b.config.Realm + `"`})
	}
	for _, name := range b.names {
		r.Header.Del(name)
	}
	return b.config.Anonymous(r)
}

// Refuse refuses a token.
func (b *Bearer) Refuse(r *sdk.Request, reason string) sdk.Action {
	return b.refuse(r, consumer.Unauthenticated("The token is not accepted", ""), "invalid_token", reason, "")
}

// Forbid refuses a token that is good, and does not allow this.
func (b *Bearer) Forbid(r *sdk.Request, reason string) sdk.Action {
	scope := ""
	if wanted := b.config.Require["scope"]; len(wanted) > 0 {
		scope = `, scope="` + plain(strings.Join(wanted, " ")) + `"`
	}
	return b.refuse(r, consumer.Forbidden("The token does not allow this", ""), "insufficient_scope", reason, scope)
}

// Confused refuses a request that bears more than one token.
func (b *Bearer) Confused(r *sdk.Request, err error) sdk.Action {
	return b.refuse(r, sdk.Problem{Status: 400, Type: "urn:weir:problem:invalid-request", Title: "The request has two tokens"}, "invalid_request", err.Error(), "")
}

// Unavailable refuses a request whose token cannot be checked now.
func (b *Bearer) Unavailable(r *sdk.Request, reason string) sdk.Action {
	return r.Refuse(sdk.Problem{
		Status: 503, Type: "urn:weir:problem:unavailable", Title: "The token cannot be checked now", Detail: sentence(reason),
	}, sdk.Field{Name: "retry-after", Value: "1"})
}

func (b *Bearer) refuse(r *sdk.Request, p sdk.Problem, word, reason, more string) sdk.Action {
	p.Detail = sentence(reason)
	return r.Refuse(p, sdk.Field{Name: "www-authenticate",
		Value: `Bearer realm="` + b.config.Realm + `", error="` + word + `", error_description="` + plain(reason) + `"` + more})
}

func sentence(reason string) string {
	if reason == "" {
		return ""
	}
	return strings.ToUpper(reason[:1]) + reason[1:] + "."
}

// plain leaves of a text what may stand in quotes there.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if isUnquotable(r) {
			return '_'
		}
		return r
	}, text)
}

func isUnquotable(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }
