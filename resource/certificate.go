package resource

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Bounds of what a certificate is given as.
const (
	maxPEM   = 64 << 10
	maxChain = 8
	minRSA   = 2048
)

func (c *check) certificate(spec *weirv1.CertificateSpec) {
	const at = Path("spec")
	names := map[string]bool{}
	c.count(at.Field("hostnames"), len(spec.GetHostnames()), 0, maxEntries, "hostname")
	for i, name := range spec.GetHostnames() {
		at := at.Field("hostnames").Index(i)
		c.syntax(at, checkCertificateName(name))
		c.unique(names, at, name, "the hostname")
	}
	switch sources := sourcesOf(spec); {
	case len(sources) == 0:
		c.add(at, "needs a source: selfSigned, pem or acme")
	case len(sources) > 1:
		c.add(at.Field(sources[1]), "stands beside %s: give one source", sources[0])
	case sources[0] == "selfSigned" && len(spec.GetHostnames()) == 0:
		c.add(at.Field("hostnames"), "needs at least one hostname for a self-signed certificate")
	case sources[0] == "pem":
		c.pem(at, spec)
	case sources[0] == "acme":
		c.acme(at, spec)
	case sources[0] != "selfSigned":
		c.add(at.Field(sources[0]), "is not offered yet: give selfSigned, pem or acme")
	}
}

func sourcesOf(spec *weirv1.CertificateSpec) (set []string) {
	for _, source := range []struct {
		name string
		set  bool
	}{
		{"selfSigned", spec.GetSelfSigned() != nil},
		{"pem", spec.GetPem() != nil},
		{"acme", spec.GetAcme() != nil},
		{"authority", spec.GetAuthority() != nil},
	} {
		if source.set {
			set = append(set, source.name)
		}
	}
	return set
}

// pem: the certificate can be read, is for the hostnames, and the key is its
// own. A key that stands there as its hash is the admin API's to compare.
func (c *check) pem(at Path, spec *weirv1.CertificateSpec) {
	pem := at.Field("pem")
	chain, err := ParseChain(spec.GetPem().GetCertificate())
	if err != nil {
		c.add(pem.Field("certificate"), "%s", err)
		return
	}
	for i, name := range spec.GetHostnames() {
		if !certifies(chain[0], name) {
			c.add(at.Field("hostnames").Index(i), "%q is not in the certificate, which is for %s", name, orNothing(NamesOf(chain[0])))
		}
	}
	if IsKeyHash(spec.GetPem().GetPrivateKey()) {
		return
	}
	key, err := ParseKey(spec.GetPem().GetPrivateKey())
	if err != nil {
		c.add(pem.Field("privateKey"), "%s", err)
		return
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(chain[0].PublicKey) {
		c.add(pem.Field("privateKey"), "is not the key of the certificate")
	}
}

func orNothing(names []string) string {
	if len(names) == 0 {
		return "no name at all"
	}
	return strings.Join(names, ", ")
}

func checkCertificateName(s string) string {
	if address, err := netip.ParseAddr(s); err == nil && address.Zone() == "" {
		return ""
	}
	return checkHostname(s, true)
}

// certifies: the certificate is good for a hostname; for a wildcard, where it
// bears that very wildcard.
func certifies(leaf *x509.Certificate, name string) bool {
	if !strings.HasPrefix(name, "*.") {
		return leaf.VerifyHostname(name) == nil
	}
	for _, own := range leaf.DNSNames {
		if strings.EqualFold(own, name) {
			return true
		}
	}
	return false
}

// NamesOf lists what a certificate is for.
func NamesOf(leaf *x509.Certificate) []string {
	var names []string
	for _, name := range leaf.DNSNames {
		names = append(names, strings.ToLower(name))
	}
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

// ParseChain reads a server's certificates in PEM, its own first.
func ParseChain(text string) ([]*x509.Certificate, error) {
	chain, err := parseCertificates(text, maxChain, "certificates in PEM, the server's own first")
	if err != nil {
		return nil, err
	}
	return chain, chainsUp(chain)
}

// ParseAuthorities reads the certificates of authorities in PEM.
func ParseAuthorities(text string) ([]*x509.Certificate, error) {
	return parseCertificates(text, maxEntries, "the authorities' certificates in PEM")
}

func parseCertificates(text string, most int, what string) ([]*x509.Certificate, error) {
	if text == "" {
		return nil, errors.New("is required: " + what)
	}
	if len(text) > maxPEM {
		return nil, fmt.Errorf("is %d bytes long; it has at most %d", len(text), maxPEM)
	}
	var found []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, errors.New("holds a private key, which does not belong here")
		case block.Type != "CERTIFICATE":
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d cannot be read: %w", len(found)+1, err)
		}
		found = append(found, certificate)
	}
	if len(found) == 0 || len(found) > most {
		return nil, fmt.Errorf("holds %d certificates in PEM; 1 to %d are expected", len(found), most)
	}
	return found, nil
}

// chainsUp: each certificate is signed by the one behind it, or clients would
// find no way to an authority that they know.
func chainsUp(chain []*x509.Certificate) error {
	for i := range len(chain) - 1 {
		if !bytes.Equal(chain[i].RawIssuer, chain[i+1].RawSubject) {
			return fmt.Errorf("is out of order: certificate %d is issued by %q, and certificate %d is %q",
				i+1, chain[i].Issuer, i+2, chain[i+1].Subject)
		}
	}
	return nil
}

// ParseKey reads a private key in PEM: PKCS #8, PKCS #1 or SEC 1.
func ParseKey(text string) (crypto.Signer, error) {
	if text == "" {
		return nil, errors.New("is required: the certificate's private key in PEM")
	}
	if len(text) > maxPEM {
		return nil, fmt.Errorf("is %d bytes long; a key has at most %d", len(text), maxPEM)
	}
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("holds no private key in PEM")
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if strings.HasPrefix(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "" {
			return nil, errors.New("is encrypted: decrypt it first; it is sealed where it is stored")
		}
		return parseKeyDER(block.Bytes)
	}
}

// parseKeyDER keeps what cannot be read out of its errors: it may be a key.
func parseKeyDER(der []byte) (crypto.Signer, error) {
	var key any
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		key = k
	} else if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		key = k
	} else if k, err := x509.ParseECPrivateKey(der); err == nil {
		key = k
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() < minRSA {
			return nil, fmt.Errorf("is an RSA key of %d bits; it needs at least %d", k.N.BitLen(), minRSA)
		}
		return k, nil
	case *ecdsa.PrivateKey:
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	}
	return nil, errors.New("is not a private key of a kind that is known here: RSA, ECDSA or Ed25519")
}

// IsKeyHash: a private key is given by its hash, as it is shown.
func IsKeyHash(s string) bool { return checkDigest(s) == "" }

// KeyHash is what is shown of a private key, given in PKCS #8.
func KeyHash(pkcs8 []byte) string {
	sum := sha256.Sum256(pkcs8)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// KeyType names the kind of a certificate's key.
func KeyType(leaf *x509.Certificate) string {
	switch k := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Params().Name
	}
	return leaf.PublicKeyAlgorithm.String()
}

// CertificateStatus says what a Certificate's material is.
func CertificateStatus(c *weirv1.Certificate) *weirv1.CertificateStatus {
	m := c.GetMaterial()
	if len(m.GetChain()) == 0 {
		return nil
	}
	leaf, err := x509.ParseCertificate(m.GetChain()[0])
	if err != nil {
		return nil // it was parsed before it was put there
	}
	sum := sha256.Sum256(leaf.Raw)
	status := &weirv1.CertificateStatus{
		Fingerprint: hex.EncodeToString(sum[:]), Issuer: leaf.Issuer.String(), KeyType: KeyType(leaf),
		NotBefore: timestamppb.New(leaf.NotBefore), NotAfter: timestamppb.New(leaf.NotAfter),
	}
	if c.GetSpec().GetAcme() != nil {
		status.Conditions = []*weirv1.Condition{issued(m)}
	}
	return status
}

// issued says how far the order of a certificate has come.
func issued(m *weirv1.CertificateMaterial) *weirv1.Condition {
	condition := &weirv1.Condition{Type: "Issued", Status: weirv1.Condition_TRUE, Reason: "Issued", Message: m.GetAcmeProblem()}
	if m.GetAcmeProblem() != "" {
		condition.Reason = "RenewalFailed"
	}
	if m.GetAcmeDirectory() == "" {
		condition.Status, condition.Reason = weirv1.Condition_FALSE, "Pending"
		if m.GetAcmeProblem() != "" {
			condition.Reason = "OrderFailed"
		}
	}
	return condition
}
