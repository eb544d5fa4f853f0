// Command apikey is a plugin that lets a request pass which bears a known key,
// and tells the services behind whose key it is.
//
//	config:
//	  keys:
//	  - {consumer: alice, key: "opensesame"}
//	  - {consumer: bob, sha256: "2bb80d53…"}    # printf %s "$KEY" | sha256sum
//
// A key given as its SHA-256 cannot be read back from the configuration.
package main

import (
	sdk "github.com/weirmesh/weir/plugins-sdk"
)

func init() { sdk.Register(newAPIKey) }

func main() {}

type apiKey struct {
	config  config
	ring    keyring
	missing sdk.Problem
	unknown sdk.Problem
	// challenge goes with every refusal (RFC 9110, section 11.6.1).
	challenge sdk.Field
}

func newAPIKey(c config) (sdk.Handler, error) {
	ring, err := newKeyring(c.Keys)
	if err != nil {
		return nil, err
	}
	problem := sdk.Problem{Status: 401, Type: "urn:weir:problem:unauthenticated"}
	missing, unknown := problem, problem
	missing.Title = "An API key is required"
	missing.Detail = "Send your key in the header " + c.Header + "."
	unknown.Title = "The API key is not known"
	unknown.Detail = "The key in the header " + c.Header + " is wrong, or was revoked."
	return &apiKey{
		config:    c,
		ring:      ring,
		missing:   missing,
		unknown:   unknown,
		challenge: sdk.Field{Name: "www-authenticate", Value: `ApiKey header="` + c.Header + `"`},
	}, nil
}

func (a *apiKey) OnRequest(r *sdk.Request) sdk.Action {
	key := r.Header.Get(a.config.Header)
	if key == "" {
		return r.Refuse(a.missing, a.challenge)
	}
	consumer, ok := a.ring.consumer(key)
	if !ok {
		return r.Refuse(a.unknown, a.challenge)
	}
	// Set replaces what the client may have claimed about itself.
	r.Header.Set(a.config.ConsumerHeader, consumer)
	if a.config.Hide {
		r.Header.Del(a.config.Header)
	}
	return sdk.Continue
}
