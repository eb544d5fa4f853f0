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
	// LeafLifetime is how long a node's certificate is good for, at the most; it
	// is renewed at half of that. MinLeafLifetime is the least that it may be.
	LeafLifetime    = 24 * time.Hour
	MinLeafLifetime = time.Minute
	// clockSkew is by how much a node's clock may be behind the authority's; a
	// short-lived certificate has less room.
	clockSkew = time.Hour
)

// Authority signs certificates for one trust domain. It is safe for concurrent
// use and never changes: what changes is which one is in force (rotation.go).
type Authority struct {
	trustDomain string
	// epoch grows with every step of a rotation.
	epoch uint64
	phase Phase
	since time.Time
	// signer signs. next will (in phase ANNOUNCED), previous did (in SIGNING).
	signer   *root
	next     *root
	previous *x509.Certificate
	// bridges lead from a root to the one that came after it, newest first: the
	// newer one's key, signed by the older. former are roots given up.
	bridges []*x509.Certificate
	former  []formerRoot
}

type root struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

type formerRoot struct {
	cert    *x509.Certificate
	retired time.Time
}

// NewAuthority makes an authority with a fresh root.
func NewAuthority(trustDomain string) (*Authority, error) {
	if !validHost(trustDomain) {
		return nil, fmt.Errorf("create authority: trust domain %q is not a host name in lower case", trustDomain)
	}
	signer, err := newRoot(trustDomain)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	return &Authority{trustDomain: trustDomain, phase: PhaseSteady, since: time.Now().UTC(), signer: signer}, nil
}

func newRoot(trustDomain string) (*root, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now, serial := time.Now(), newSerial()
	template := &x509.Certificate{
		SerialNumber: serial,
		// Each root has a name of its own, or those who build chains would have to
		// try each of them.
		Subject:               pkix.Name{CommonName: "Weir authority of " + trustDomain, SerialNumber: serial.Text(16)},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(rootLifetime),
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, err := sign(template, template, key.Public(), key)
	return &root{cert: cert, key: key}, err
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// TrustDomain is what the authority speaks for.
func (a *Authority) TrustDomain() string { return a.trustDomain }

// Epoch tells one state of the authority from another.
func (a *Authority) Epoch() uint64 { return a.epoch }

// NotAfter is when the root that signs runs out.
func (a *Authority) NotAfter() time.Time { return a.signer.cert.NotAfter }

// Roots are the certificates by which its signatures are known, DER, that of
// the root that signs first.
func (a *Authority) Roots() [][]byte {
	roots := [][]byte{a.signer.cert.Raw}
	if a.next != nil {
		roots = append(roots, a.next.cert.Raw)
	}
	if a.previous != nil {
		roots = append(roots, a.previous.Raw)
	}
	return roots
}

// Fingerprint names the authority in a join token: by the root that signs.
func (a *Authority) Fingerprint() string { return fingerprint(a.signer.cert) }

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
// request must be signed by that key; what it asks for is ignored. A lifetime
// of 0 is [LeafLifetime].
func (a *Authority) Issue(id ID, csr []byte, names Names, lifetime time.Duration) (*weirv1.Credentials, error) {
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
	if lifetime == 0 {
		lifetime = LeafLifetime
	}
	expires := now.Add(lifetime)
	if expires.After(a.signer.cert.NotAfter) {
		expires = a.signer.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: id.Name},
		NotBefore:    now.Add(-min(clockSkew, lifetime/4)),
		NotAfter:     expires,
		URIs:         []*url.URL{id.URI()},
		DNSNames:     names.DNS,
		IPAddresses:  names.IPs,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		// An end entity, said aloud: it may sign nothing.
		BasicConstraintsValid: true,
	}
	leaf, err := sign(template, a.signer.cert, public, a.signer.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", id, err)
	}
	issued := &weirv1.Credentials{
		Certificates: append([][]byte{leaf.Raw}, a.path(now)...),
		Roots:        a.Roots(),
		TrustDomain:  a.trustDomain,
		ExpireTime:   timestamppb.New(template.NotAfter),
	}
	if id.Role == RoleServer {
		for _, f := range a.former {
			issued.FormerRoots = append(issued.FormerRoots, f.cert.Raw)
		}
	}
	return issued, nil
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
