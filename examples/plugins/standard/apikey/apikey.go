// Package apikey is a policy that lets a request pass which bears a known key, and
// tells the services behind whose key it is.
//
//	config:
//	  keys:
//	  - {consumer: alice, key: "opensesame"}
//	  - {consumer: bob, sha256: "2bb80d53…"}    # printf %s "$KEY" | sha256sum
//
// A key given as its SHA-256 cannot be read back from the configuration.
package apikey

import (
	sdk "github.com/weirmesh/weir/plugins-sdk"

	"github.com/weirmesh/weir/examples/plugins/standard/consumer"
)

// Plugin is the policy.
func Plugin() sdk.Plugin { return sdk.Define(newAPIKey) }

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
	place := c.place()
	return &apiKey{
		config:    c,
		ring:      ring,
		missing:   consumer.Unauthenticated("An API key is required", "Send your key in the "+place+"."),
		unknown:   consumer.Unauthenticated("The API key is not known", "The key in the "+place+" is wrong, or was revoked."),
		challenge: sdk.Field{Name: "www-authenticate", Value: c.challenge()},
	}, nil
}

func (a *apiKey) OnRequest(r *sdk.Request) sdk.Action {
	key, place := a.config.find(r)
	if place == nowhere {
		if a.config.Optional {
			return a.config.Anonymous(r)
		}
		return r.Refuse(a.missing, a.challenge)
	}
	name, ok := a.ring.consumer(key)
	if !ok {
		return r.Refuse(a.unknown, a.challenge)
	}
	// Known replaces what the client may have claimed about itself.
	a.config.Known(r, name)
	if a.config.Hide {
		a.config.hide(r, place)
	}
	return sdk.Continue
}
