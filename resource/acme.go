package resource

import (
	"encoding/base64"
	"net/mail"
	"net/url"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// LetsEncrypt is the directory of the ACME authority that is asked where none
// is declared.
const LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// maxACMENames is how many names an authority puts into a certificate.
const maxACMENames = 100

func (c *check) acme(at Path, spec *weirv1.CertificateSpec) {
	acme := spec.GetAcme()
	if len(spec.GetHostnames()) == 0 {
		c.add(at.Field("hostnames"), "needs at least one hostname to order a certificate for")
	}
	c.count(at.Field("hostnames"), len(spec.GetHostnames()), 0, maxACMENames, "hostname")
	for i, name := range spec.GetHostnames() {
		if strings.HasPrefix(name, "*.") {
			c.add(at.Field("hostnames").Index(i), "%q: authorities give out wildcards for a change in the DNS alone, which is not offered", name)
		}
	}
	at = at.Field("acme")
	if acme.GetDirectory() != "" {
		if u, err := url.Parse(acme.GetDirectory()); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
			c.add(at.Field("directory"), "%q is not an https:// URL", acme.GetDirectory())
		}
	}
	if email := acme.GetEmail(); email != "" {
		if parsed, err := mail.ParseAddress(email); err != nil || parsed.Address != email {
			c.add(at.Field("email"), "%q is not an e-mail address", email)
		}
	}
	seen := map[weirv1.Acme_Challenge]bool{}
	for i, challenge := range acme.GetChallenges() {
		at := at.Field("challenges").Index(i)
		switch {
		case challenge == weirv1.Acme_CHALLENGE_UNSPECIFIED || weirv1.Acme_Challenge_name[int32(challenge)] == "":
			c.add(at, "is none of HTTP_01 and TLS_ALPN_01")
		case seen[challenge]:
			c.add(at, "%s stands there twice", challenge)
		}
		seen[challenge] = true
	}
	if weirv1.Acme_KeyType_name[int32(acme.GetKeyType())] == "" {
		c.add(at.Field("keyType"), "is none of ECDSA_P256, ECDSA_P384 and RSA_2048")
	}
	if authorities := acme.GetCaCertificates(); authorities != "" {
		if _, err := ParseAuthorities(authorities); err != nil {
			c.add(at.Field("caCertificates"), "%s", err)
		}
	}
	if external := acme.GetExternalAccount(); external != nil {
		at := at.Field("externalAccount")
		if external.GetKeyId() == "" {
			c.add(at.Field("keyId"), "is required: the key's name at the authority")
		}
		if key := external.GetHmacKey(); !IsKeyHash(key) {
			if raw, err := ParseHMACKey(key); err != nil || len(raw) < 16 {
				c.add(at.Field("hmacKey"), "is not a key of at least 16 bytes in base64url") // and is not repeated
			}
		}
	}
}

// ParseHMACKey reads the key of an external account: base64url, padded or not.
func ParseHMACKey(text string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
}
