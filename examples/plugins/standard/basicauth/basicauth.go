// Package basicauth is a policy that asks for a name and a password (RFC 7617).
//
//	config:
//	  realm: bookshop
//	  users:
//	  - {name: alice, bcrypt: "$2y$05$…"}        # htpasswd -nB alice
//	  - {name: robot, sha256: "2bb80d53…"}       # printf %s "$PASSWORD" | sha256sum
//
// bcrypt is for passwords that people choose: it makes guessing slow, and so it makes
// the first check of each password slow. The host remembers the ones that were right;
// a wrong one costs the whole time again, of one processor, and of no more than half
// of a machine's. A SHA-256 costs next to nothing, and guessing does, too: use it for
// long random passwords alone.
package basicauth

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	sdk "github.com/weirmesh/weir/plugins-sdk"

	"github.com/weirmesh/weir/examples/plugins/standard/consumer"
)

// Plugin is the policy.
func Plugin() sdk.Plugin { return sdk.Define(newBasic) }

type config struct {
	consumer.Config
	Realm string `json:"realm" about:"shown to people whom their browser asks for a password"`
	Hide  bool   `json:"hide" about:"keeps the password from the service"`
	Users []user `json:"users" about:"who has which password"`
}

// user has a password as what one hash function makes of it, or in the clear.
type user struct {
	Name     string `json:"name" about:"without colons"`
	Password string `json:"password" about:"the password in the clear"`
	SHA256   string `json:"sha256" about:"the SHA-256 of a long random password, in hexadecimal"`
	Bcrypt   string `json:"bcrypt" about:"the hash that bcrypt makes of the password"`
}

func (c *config) Default() { c.Config, c.Realm, c.Hide = consumer.Default(), "restricted", true }

func (c *config) Validate() error {
	if err := c.Check(); err != nil {
		return err
	}
	if strings.ContainsFunc(c.Realm, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		return errors.New("realm: must be printable ASCII without quotes and backslashes")
	}
	if len(c.Users) == 0 {
		return errors.New("users: there are none, so nobody could pass")
	}
	seen := map[string]bool{}
	for i, u := range c.Users {
		given := 0
		for _, way := range []string{u.Password, u.SHA256, u.Bcrypt} {
			if way != "" {
				given++
			}
		}
		switch {
		case u.Name == "" || strings.Contains(u.Name, ":") || !consumer.Sendable(u.Name):
			return fmt.Errorf("users[%d].name: want a name without colons", i)
		case seen[u.Name]:
			return fmt.Errorf("users[%d] (%s): is there twice", i, u.Name)
		case given != 1:
			return fmt.Errorf("users[%d] (%s): give one of bcrypt, sha256 and password", i, u.Name)
		}
		seen[u.Name] = true
	}
	return nil
}

type basic struct {
	config    config
	users     map[string]secret
	nobody    secret // whose check is done for names that nobody has
	missing   sdk.Problem
	wrong     sdk.Problem
	challenge sdk.Field
}

// secret is a digest, or a hash that the host checks.
type secret struct {
	digest []byte
	slow   *sdk.Password
}

func newBasic(c config) (sdk.Handler, error) {
	b := &basic{
		config:    c,
		users:     make(map[string]secret, len(c.Users)),
		missing:   consumer.Unauthenticated("A name and a password are required", "Send them by the Basic scheme (RFC 7617)."),
		wrong:     consumer.Unauthenticated("The name or the password is wrong", ""),
		challenge: sdk.Field{Name: "www-authenticate", Value: `Basic realm="` + c.Realm + `", charset="UTF-8"`},
	}
	for i, u := range c.Users {
		s, err := newSecret(u)
		if err != nil {
			return nil, fmt.Errorf("users[%d] (%s): %w", i, u.Name, err)
		}
		b.users[u.Name] = s
		if b.nobody.slow == nil {
			b.nobody = s // the dearest way there is
		}
	}
	return b, nil
}

func newSecret(u user) (secret, error) {
	switch {
	case u.Bcrypt != "":
		p, err := sdk.ParsePassword(u.Bcrypt)
		return secret{slow: &p}, err
	case u.SHA256 != "":
		digest, err := hex.DecodeString(u.SHA256)
		if err != nil || len(digest) != 32 {
			return secret{}, errors.New("sha256: want 64 hexadecimal digits")
		}
		return secret{digest: digest}, nil
	}
	digest, err := sdk.Digest(sdk.SHA256, []byte(u.Password))
	return secret{digest: digest}, err
}

func (s secret) is(password string) (bool, error) {
	if s.slow != nil {
		return s.slow.Check(password)
	}
	digest, err := sdk.Digest(sdk.SHA256, []byte(password))
	if err != nil {
		return false, err
	}
	differ := byte(0) // digests of secrets: how they differ tells nothing of them
	for i := range digest {
		differ |= digest[i] ^ s.digest[i]
	}
	return differ == 0, nil
}

func (b *basic) OnRequest(r *sdk.Request) sdk.Action {
	given := r.Header.Get("authorization")
	if given == "" && b.config.Optional {
		return b.config.Anonymous(r)
	}
	name, password, ok := parse(given)
	if !ok {
		return r.Refuse(b.missing, b.challenge)
	}
	s, known := b.users[name]
	if !known {
		s = b.nobody // so that the time tells nothing of who is known
	}
	right, err := s.is(password)
	switch {
	case err != nil:
		return consumer.Broken(r.Exchange, err)
	case !right || !known:
		return r.Refuse(b.wrong, b.challenge)
	}
	b.config.Known(r, name)
	if b.config.Hide {
		r.Header.Del("authorization")
	}
	return sdk.Continue
}

func parse(authorization string) (name, password string, ok bool) {
	scheme, encoded, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "basic") {
		return "", "", false
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(text), ":")
}
