// Package signature is a policy that asks for signed requests: HTTP Message Signatures
// (RFC 9421), by a shared secret or a public key.
//
//	config:
//	  keys:
//	  - {id: till-1, consumer: till, algorithm: hmac-sha256, secret: "base64 of 32 bytes or more"}
//	  - {id: bank-7, consumer: bank, algorithm: ed25519, key: "-----BEGIN PUBLIC KEY-----…"}
//
// A request passes whose signature is by one of these keys, covers what is required,
// and is not older than maxAge. A body must be covered by a Content-Digest (RFC 9530),
// and is compared with it before the service is asked. With once, or with nonces, a
// signature is accepted a single time: see memory.
//
// Kong's hmac-auth follows a draft of 2014 that this standard has replaced; what it
// signs cannot be told apart from what it does not.
package signature

import (
	"errors"
	"fmt"
	"slices"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"

	"github.com/weirmesh/weir/examples/plugins/standard/consumer"
)

// Plugin is the policy.
func Plugin() sdk.Plugin { return sdk.Define(newSigned) }

type config struct {
	consumer.Config
	Keys         []keyConfig `json:"keys" about:"whose signatures are accepted"`
	Components   []string    `json:"components" about:"what a signature must cover"`
	MaxAge       int64       `json:"maxAge" about:"how many seconds old a signature may be"`
	Leeway       int64       `json:"leeway" about:"how many seconds clocks may differ"`
	Tag          string      `json:"tag" about:"what a signature is to be made for"`
	BodyUnsigned bool        `json:"bodyUnsigned" about:"lets bodies pass that no Content-Digest covers"`
	MaxBytes     int         `json:"maxBytes" about:"how large a body may be to be compared with its digest"`
	Once         bool        `json:"once" about:"accepts a signature, or a nonce of a key, only once"`
	Nonce        bool        `json:"nonce" about:"asks for a nonce, which is accepted only once"`
	Remember     int         `json:"remember" about:"how many of those that are not too old are remembered"`
}

type keyConfig struct {
	ID        string `json:"id" about:"the signature's keyid"`
	Consumer  string `json:"consumer" about:"whose key it is"`
	Algorithm string `json:"algorithm" oneof:"hmac-sha256,rsa-v1_5-sha256,rsa-pss-sha512,ecdsa-p256-sha256,ecdsa-p384-sha384,ed25519"`
	Secret    string `json:"secret" about:"base64, for hmac-sha256"`
	Key       string `json:"key" about:"a JWK or PEM, for the others"`
}

// algorithms are those of RFC 9421, section 3.3, by what RFC 7518 calls them.
var algorithms = map[string]string{
	"hmac-sha256": "HS256", "rsa-v1_5-sha256": "RS256", "rsa-pss-sha512": "PS512",
	"ecdsa-p256-sha256": "ES256", "ecdsa-p384-sha384": "ES384", "ed25519": "EdDSA",
}

func (c *config) Default() {
	c.Config, c.MaxAge, c.Leeway, c.MaxBytes = consumer.Default(), 300, 30, 1<<20
	c.Remember = 16 << 10
	c.Components = []string{"@method", "@authority", "@path", "@query"}
}

func (c *config) Validate() error {
	if err := c.Check(); err != nil {
		return err
	}
	const held = 1 << 20
	switch {
	case len(c.Keys) == 0:
		return errors.New("keys: there are none, so nobody could pass")
	case c.MaxAge <= 0 || c.Leeway < 0 || c.Leeway > 3600:
		return errors.New("maxAge must be more than 0, leeway between 0 and 3600")
	case c.Remember < 256 || c.Remember > 128<<10:
		return errors.New("remember: want 256 to 131072")
	case c.MaxBytes <= 0 || c.MaxBytes > held:
		return errors.New("maxBytes: want 1 to 1048576, which is as much of a body as is held back")
	}
	for i, component := range c.Components {
		if !derived[component] && consumer.CheckHeader(component) != nil {
			return fmt.Errorf("components[%d]: %q is neither a field nor one of @method, @authority, @scheme, @target-uri, @request-target, @path, @query", i, component)
		}
	}
	seen := map[string]bool{}
	for i, k := range c.Keys {
		switch {
		case k.ID == "" || k.Consumer == "":
			return fmt.Errorf("keys[%d]: id and consumer must not be empty", i)
		case seen[k.ID]:
			return fmt.Errorf("keys[%d] (%s): is there twice", i, k.ID)
		case algorithms[k.Algorithm] == "":
			return fmt.Errorf("keys[%d] (%s): algorithm %q is not one of hmac-sha256, rsa-v1_5-sha256, rsa-pss-sha512, ecdsa-p256-sha256, ecdsa-p384-sha384, ed25519", i, k.ID, k.Algorithm)
		case (k.Algorithm == "hmac-sha256") != (k.Secret != "") || (k.Secret == "") == (k.Key == ""):
			return fmt.Errorf("keys[%d] (%s): give a secret for hmac-sha256, a key for the others", i, k.ID)
		}
		seen[k.ID] = true
	}
	return nil
}

type signed struct {
	config    config
	keys      map[string]key
	missing   sdk.Problem
	challenge sdk.Field
	memory    *memory // nil: a signature may come again
}

type key struct {
	keyConfig
	material sdk.Keys
}

func newSigned(c config) (sdk.Handler, error) {
	s := &signed{config: c, keys: map[string]key{},
		missing:   consumer.Unauthenticated("A signature is required", "Sign the request as RFC 9421 says."),
		challenge: sdk.Field{Name: "accept-signature", Value: accepted(c)},
	}
	if c.Once || c.Nonce {
		policy, _ := sdk.Property("plugin_name")
		s.memory = newMemory("weir.signature/"+policy, c.Remember)
	}
	for i, k := range c.Keys {
		text := k.Key
		if k.Secret != "" {
			var err error
			if text, err = secretKey(k.Secret); err != nil {
				return nil, fmt.Errorf("keys[%d] (%s): %w", i, k.ID, err)
			}
		}
		material, err := sdk.ParseKeys(text)
		if err != nil {
			return nil, fmt.Errorf("keys[%d] (%s): %w", i, k.ID, err)
		}
		s.keys[k.ID] = key{k, material}
	}
	return s, nil
}

// unverified is what is still to be compared with the body.
type unverified struct{ digest digest }

func (s *signed) OnRequest(r *sdk.Request) sdk.Action {
	input, value := joined(r.Header, "signature-input"), joined(r.Header, "signature")
	if input == "" && value == "" {
		if s.config.Optional {
			return s.config.Anonymous(r)
		}
		return r.Refuse(s.missing, s.challenge)
	}
	k, covered, err := s.verify(r, input, value)
	var wrong refusal
	switch {
	case errors.As(err, &wrong):
		return s.refuse(r, wrong)
	case errors.Is(err, errFull):
		sdk.Errorf("a request is refused: %v (remember)", err)
		return r.Refuse(sdk.Problem{Status: 503, Type: "urn:weir:problem:unavailable", Title: "Too many signatures are in use"},
			sdk.Field{Name: "retry-after", Value: "10"})
	case err != nil:
		return consumer.Broken(r.Exchange, err)
	}
	s.config.Known(r, k.Consumer)
	if r.End || !slices.Contains(covered, "content-digest") {
		return sdk.Continue
	}
	d, err := parseDigest(joined(r.Header, "content-digest"))
	if err != nil {
		return s.refuse(r, refusal(err.Error()))
	}
	r.State = &unverified{d}
	return sdk.Hold
}

func (s *signed) OnRequestBody(r *sdk.Request) sdk.Action {
	u, ok := r.State.(*unverified)
	if !ok {
		return sdk.Continue
	}
	if r.Body.Len() > s.config.MaxBytes {
		return r.Refuse(sdk.Problem{Status: 413, Type: "urn:weir:problem:content-too-large", Title: "The request is too large to be verified"})
	}
	if !r.End {
		return sdk.Hold
	}
	r.State = nil
	same, err := u.digest.of(r.Body.Bytes())
	switch {
	case err != nil:
		return consumer.Broken(r.Exchange, err)
	case !same:
		return s.refuse(r, "the body is not that of the Content-Digest")
	}
	return sdk.Continue
}

// refusal says what is wrong with a request.
type refusal string

func (r refusal) Error() string { return string(r) }

func (s *signed) refuse(r *sdk.Request, why refusal) sdk.Action {
	return r.Refuse(consumer.Unauthenticated("The signature is not accepted", "It cannot be accepted: "+string(why)+"."), s.challenge)
}

// verify finds the signature by a known key, and returns what it covers. One that is
// by others' keys is others' affair.
func (s *signed) verify(r *sdk.Request, input, value string) (key, []string, error) {
	inputs, err := parseInputs(input)
	if err != nil {
		return key{}, nil, err
	}
	signatures, err := parseSignatures(value)
	if err != nil {
		return key{}, nil, err
	}
	for _, in := range inputs {
		k, known := s.keys[in.keyID]
		if !known || s.config.Tag != "" && in.tag != s.config.Tag {
			continue
		}
		signature, there := signatures[in.label]
		if !there {
			return key{}, nil, refusal("there is no signature " + in.label)
		}
		if err := s.check(r, &in, k); err != nil {
			return key{}, nil, err
		}
		base, err := in.base(r)
		if err != nil {
			return key{}, nil, err
		}
		good, err := k.material.Verify(algorithms[k.Algorithm], "", base, signature)
		if err == nil && !good {
			err = refusal("the signature is wrong")
		}
		if err == nil {
			err = s.once(&in, signature)
		}
		return k, in.covered, err
	}
	return key{}, nil, refusal("there is no signature by a key that is known")
}

// check looks at what does not need the key.
func (s *signed) check(r *sdk.Request, in *input, k key) error {
	now := sdk.NowNanos() / int64(time.Second)
	switch {
	case in.algorithm != "" && in.algorithm != k.Algorithm:
		return refusal("its algorithm is not the key's")
	case s.config.Nonce && in.nonce == "":
		return refusal("it has no nonce")
	case in.created == 0:
		return refusal("it does not say when it was created")
	case in.created > now+s.config.Leeway:
		return refusal("it was created in the future")
	case in.created+s.config.MaxAge+s.config.Leeway < now:
		return refusal("it is too old")
	case in.expires != 0 && in.expires+s.config.Leeway <= now:
		return refusal("it has expired")
	}
	for _, component := range s.config.Components {
		if !slices.Contains(in.covered, component) {
			return refusal("it does not cover " + component)
		}
	}
	if !r.End && !s.config.BodyUnsigned && !slices.Contains(in.covered, "content-digest") {
		return refusal("it does not cover content-digest, and there is a body")
	}
	return nil
}
