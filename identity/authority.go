package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

const (
	rootLifetime = 10 * 365 * 24 * time.Hour
	// LeafLifetime is how long a node's certificate is good for; it is renewed
	// at half of that.
	LeafLifetime = 24 * time.Hour
	// clockSkew is by how much a node's clock may be behind the authority's.
	clockSkew = 5 * time.Minute
)

// Authority signs certificates for one trust domain. It is safe for concurrent
// use and never changes.
type Authority struct {
	trustDomain string
	root        *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes an authority with a fresh root.
func NewAuthority(trustDomain string) (*Authority, error) {
	if !validHost(trustDomain) {
		return nil, fmt.Errorf("create authority: trust domain %q is not a host name in lower case", trustDomain)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: "Weir authority of " + trustDomain},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(rootLifetime),
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	return &Authority{trustDomain: trustDomain, root: root, key: key}, nil
}

// TrustDomain is what the authority speaks for.
func (a *Authority) TrustDomain() string { return a.trustDomain }

// Roots are the certificates by which its signatures are known, DER.
func (a *Authority) Roots() [][]byte { return [][]byte{a.root.Raw} }

// Fingerprint names the authority in a join token.
func (a *Authority) Fingerprint() string { return fingerprint(a.root) }

func fingerprint(root *x509.Certificate) string {
	sum := sha256.Sum256(root.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Names are where a node can be reached besides its identity. They come from
// the issuing side, never from a certificate request.
type Names struct {
	DNS []string
	IPs []net.IP
}

// ServerName is the DNS name that every server's certificate bears.
func ServerName(trustDomain string) string { return "server." + trustDomain }

// Issue signs a certificate for id and the key of a certificate request. The
// request must be signed by that key; what it asks for is ignored.
func (a *Authority) Issue(id ID, csr []byte, names Names) (*weirv1.Credentials, error) {
	if id.TrustDomain != a.trustDomain {
		return nil, fmt.Errorf("issue certificate: trust domain %q is not ours, %q", id.TrustDomain, a.trustDomain)
	}
	if err := id.Validate(); err != nil {
		return nil, fmt.Errorf("issue certificate: %w: %w", ErrRequest, err)
	}
	public, err := RequestKey(csr)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", id, err)
	}
	if id.Role == RoleServer {
		names.DNS = append([]string{ServerName(a.trustDomain)}, names.DNS...)
	}
	now := time.Now()
	expires := now.Add(LeafLifetime)
	if expires.After(a.root.NotAfter) {
		expires = a.root.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: id.Name},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     expires,
		URIs:         []*url.URL{id.URI()},
		DNSNames:     names.DNS,
		IPAddresses:  names.IPs,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		// An end entity, said aloud: it may sign nothing.
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", id, err)
	}
	return &weirv1.Credentials{
		Certificates: [][]byte{der},
		Roots:        a.Roots(),
		TrustDomain:  a.trustDomain,
		ExpireTime:   timestamppb.New(template.NotAfter),
	}, nil
}

// ErrRequest is the cause when what a node asks for is at fault: its name, or
// its certificate request.
var ErrRequest = errors.New("bad request")

// RequestKey returns the public key of a PKCS #10 request whose signature
// holds.
func RequestKey(csr []byte) (crypto.PublicKey, error) {
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w: %w", ErrRequest, err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check certificate request: %w: %w", ErrRequest, err)
	}
	switch key := request.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() {
			return key, nil
		}
	case ed25519.PublicKey:
		return key, nil
	}
	return nil, fmt.Errorf("check certificate request: %w: the key is none of ECDSA P-256, ECDSA P-384, Ed25519", ErrRequest)
}

func newSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f // positive, as RFC 5280 wants it
	b[15] |= 1   // and never zero
	return new(big.Int).SetBytes(b[:])
}

// sealedAuthority is what is stored of an authority, before it is sealed.
type sealedAuthority struct {
	TrustDomain string `json:"trustDomain"`
	Root        []byte `json:"root"` // DER
	Key         []byte `json:"key"`  // PKCS #8
}

const authorityPurpose = "authority"

// Seal encrypts the authority, key and all, for storage.
func (a *Authority) Seal(k *Keyring) ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, fmt.Errorf("seal authority: %w", err)
	}
	data, err := json.Marshal(sealedAuthority{TrustDomain: a.trustDomain, Root: a.root.Raw, Key: key})
	if err != nil {
		return nil, fmt.Errorf("seal authority: %w", err)
	}
	return k.Seal(authorityPurpose, data), nil
}

// OpenAuthority reads what Seal made.
func OpenAuthority(k *Keyring, sealed []byte) (*Authority, error) {
	data, err := k.Open(authorityPurpose, sealed)
	if err != nil {
		return nil, err
	}
	var s sealedAuthority
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	root, err := x509.ParseCertificate(s.Root)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(s.Key)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(root.PublicKey) {
		return nil, errors.New("open authority: the key is not the root's")
	}
	return &Authority{trustDomain: s.TrustDomain, root: root, key: key}, nil
}
