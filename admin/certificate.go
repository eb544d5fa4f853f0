package admin

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Sealer encrypts what must not lie open in the store. What is sealed opens for
// the same purpose alone.
type Sealer interface {
	Seal(purpose string, data []byte) []byte
}

// SealPurpose is what the key of a Certificate is sealed for.
func SealPurpose(ref resource.Ref) string { return "certificate key " + ref.Tenant + "/" + ref.Name }

// selfSignedFor is how long a self-signed certificate is good. Who uses one has
// told clients to trust that very certificate, so it had better not change.
const selfSignedFor = 10 * 365 * 24 * time.Hour

// fillMaterial gives every Certificate of a transaction what proxies need of it,
// with the key sealed. What is declared already and says the same keeps what it
// has: a self-signed certificate is made once, and the hash of a key stands for
// the key that is stored.
func (s *service) fillMaterial(puts []*weirv1.Resource, index func(resource.Ref) resource.Path) error {
	var violations []Violation
	for _, r := range puts {
		c := r.GetCertificate()
		if c == nil {
			continue
		}
		ref := resource.Of(r)
		if s.Sealer == nil {
			violations = append(violations, Violation{Ref: ref, Reason: ReasonInvalid, Message: "this server has nothing to seal keys with"})
			continue
		}
		c.Material, c.Status = nil, nil // Weir's to write, whatever was sent
		stored, _ := s.Store.View().Get(ref)
		if problem := s.fillCertificate(ref, c, stored.GetCertificate()); problem != nil {
			violations = append(violations, *problem)
			continue
		}
		c.Status = resource.CertificateStatus(c)
	}
	if len(violations) > 0 {
		return refusal(&Refused{Violations: violations}, index)
	}
	return nil
}

func (s *service) fillCertificate(ref resource.Ref, c, stored *weirv1.Certificate) *Violation {
	refuse := func(field, format string, args ...any) *Violation {
		return &Violation{Ref: ref, Field: field, Reason: ReasonInvalid, Message: fmt.Sprintf(format, args...)}
	}
	spec := c.GetSpec()
	if spec.GetAcme() != nil {
		return s.fillAcme(ref, c, stored)
	}
	if spec.GetSelfSigned() != nil {
		if stored.GetSpec().GetSelfSigned() != nil && slices.Equal(stored.GetSpec().GetHostnames(), spec.GetHostnames()) {
			c.Material = stored.GetMaterial()
			return nil
		}
		chain, key, err := selfSigned(spec.GetHostnames(), time.Now())
		if err != nil {
			return refuse("spec.selfSigned", "cannot be made: %s", err)
		}
		return s.seal(ref, c, chain, key)
	}
	chain, err := resource.ParseChain(spec.GetPem().GetCertificate())
	if err != nil {
		return refuse("spec.pem.certificate", "%s", err)
	}
	raw := make([][]byte, len(chain))
	for i := range chain {
		raw[i] = chain[i].Raw
	}
	if given := spec.GetPem().GetPrivateKey(); resource.IsKeyHash(given) {
		if given != stored.GetSpec().GetPem().GetPrivateKey() {
			return refuse("spec.pem.privateKey", "is the hash of a key that is not stored here: give the key itself")
		}
		if was := stored.GetMaterial().GetChain(); len(was) == 0 || !sameKey(was[0], chain[0]) {
			return refuse("spec.pem.privateKey", "stands for the stored key, which is not that of this certificate: give the key itself")
		}
		c.Material = &weirv1.CertificateMaterial{Chain: raw, SealedKey: stored.GetMaterial().GetSealedKey()}
		return nil
	}
	key, err := resource.ParseKey(spec.GetPem().GetPrivateKey())
	if err != nil {
		return refuse("spec.pem.privateKey", "%s", err)
	}
	return s.seal(ref, c, raw, key)
}

func sameKey(der []byte, other *x509.Certificate) bool {
	leaf, err := x509.ParseCertificate(der)
	return err == nil && bytes.Equal(leaf.RawSubjectPublicKeyInfo, other.RawSubjectPublicKeyInfo)
}

// seal puts a chain and its key into a Certificate. In its spec the key's hash
// takes the place of the key.
func (s *service) seal(ref resource.Ref, c *weirv1.Certificate, chain [][]byte, key crypto.Signer) *Violation {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return &Violation{Ref: ref, Field: "spec", Reason: ReasonInvalid, Message: "the key cannot be written: " + err.Error()}
	}
	if pem := c.GetSpec().GetPem(); pem != nil {
		pem.PrivateKey = resource.KeyHash(der)
	}
	c.Material = &weirv1.CertificateMaterial{Chain: chain, SealedKey: s.Sealer.Seal(SealPurpose(ref), der)}
	clear(der)
	return nil
}

// selfSigned makes a certificate for names, and its key.
func selfSigned(names []string, now time.Time) (chain [][]byte, key crypto.Signer, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: names[0], Organization: []string{"Weir, self-signed"}},
		NotBefore:    now.Add(-time.Hour), // clocks differ
		NotAfter:     now.Add(selfSignedFor),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		// No authority: some clients take none for a server's certificate.
		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	return [][]byte{der}, private, nil
}

// shown is a resource as callers see it: without what is between servers and
// proxies.
func shown(r *weirv1.Resource) *weirv1.Resource {
	if r.GetCertificate().GetMaterial() == nil {
		return r
	}
	r = proto.CloneOf(r) // the store's is everyone's
	r.GetCertificate().Material = nil
	return r
}
