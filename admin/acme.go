package admin

import (
	"time"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// HMACPurpose is what the HMAC key of a Certificate's external account is sealed
// for.
func HMACPurpose(ref resource.Ref) string { return "acme hmac key " + ref.Tenant + "/" + ref.Name }

// fillAcme gives a Certificate that is to be ordered what is shown until it has
// come: what was shown before, or else one that is self-signed.
func (s *service) fillAcme(ref resource.Ref, c, stored *weirv1.Certificate) *Violation {
	was := stored.GetMaterial()
	switch {
	case stored.GetSpec().GetAcme() != nil:
		c.Material = proto.CloneOf(was)
	case len(was.GetChain()) > 0:
		c.Material = &weirv1.CertificateMaterial{Chain: was.GetChain(), SealedKey: was.GetSealedKey()}
	default:
		chain, key, err := selfSigned(c.GetSpec().GetHostnames(), time.Now())
		if err != nil {
			return &Violation{Ref: ref, Field: "spec.acme", Reason: ReasonInvalid, Message: "one to begin with cannot be made: " + err.Error()}
		}
		if problem := s.seal(ref, c, chain, key); problem != nil {
			return problem
		}
	}
	return s.sealHMACKey(ref, c, stored)
}

// sealHMACKey puts the key of an external account where nobody sees it. In the
// spec its hash takes its place.
func (s *service) sealHMACKey(ref resource.Ref, c, stored *weirv1.Certificate) *Violation {
	external := c.GetSpec().GetAcme().GetExternalAccount()
	if external == nil {
		c.Material.SealedHmacKey = nil
		return nil
	}
	given, known := external.GetHmacKey(), stored.GetSpec().GetAcme().GetExternalAccount().GetHmacKey()
	if resource.IsKeyHash(given) {
		if given != known {
			return &Violation{Ref: ref, Field: "spec.acme.externalAccount.hmacKey", Reason: ReasonInvalid,
				Message: "is the hash of a key that is not stored here: give the key itself"}
		}
		return nil
	}
	key, err := resource.ParseHMACKey(given)
	if err != nil {
		return &Violation{Ref: ref, Field: "spec.acme.externalAccount.hmacKey", Reason: ReasonInvalid, Message: "is not in base64url"}
	}
	external.HmacKey = resource.KeyHash(key)
	if external.HmacKey != known || len(c.Material.GetSealedHmacKey()) == 0 {
		c.Material.SealedHmacKey = s.Sealer.Seal(HMACPurpose(ref), key)
	}
	return nil
}
