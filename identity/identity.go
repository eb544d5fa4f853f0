package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/internal/durable"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// The files of an identity, in its directory.
const (
	keyFile   = "key.pem"
	chainFile = "cert.pem"
	// RootsFile holds the authority's roots: what others need to verify this
	// node, and nothing secret.
	RootsFile = "ca.pem"
	// formerFile holds the roots that were given up, at a server.
	formerFile = "former.pem"
)

// Identity is a node's own: its key, and the newest certificate for it. The
// certificate is replaced while connections are made; what [Identity.TLS]
// builds always presents the one in force.
type Identity struct {
	dir string
	key *ecdsa.PrivateKey
	now atomic.Pointer[credentials]
	// soon is filled when Maintain is to renew before it is time.
	soon chan struct{}
	// founding is who the node is before, and shortly after, it has a certificate
	// as one of those that found the cluster (founding.go).
	founding atomic.Pointer[Founding]
	founded  atomic.Bool
	// shutOut are the keys of others that are not to be believed; nil: none.
	shutOut       atomic.Pointer[shutOut]
	shutOutDamage error
	shutOutUnkept bool // not all of them are on disk
}

// credentials are what Install replaces whole.
type credentials struct {
	id          ID
	certificate *tls.Certificate
	roots       [][]byte
	verifier    *Verifier
	// stale: the certificate is not of one of the roots, for a power cut came
	// between the two. It is good for renewing.
	stale bool
}

// Open reads the identity in a directory, and makes the key where there is
// none. An identity without a certificate has yet to join.
func Open(dir string) (*Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	key, err := openKey(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	i := &Identity{dir: dir, key: key, soon: make(chan struct{}, 1)}
	i.openShutOut()
	chain, err := readPEM(filepath.Join(dir, chainFile), "CERTIFICATE")
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	roots, err := readPEM(filepath.Join(dir, RootsFile), "CERTIFICATE")
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	former, err := readPEM(filepath.Join(dir, formerFile), "CERTIFICATE")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	c, err := i.check(chain, roots, former)
	var unknown x509.UnknownAuthorityError
	c.stale = errors.As(err, &unknown)
	// Off for longer than its certificate, cut off between two files, or without a
	// clock as yet: it can still renew, or will.
	if !MayRenew(err) && !c.stale && !errors.Is(err, ErrEarly) {
		return nil, fmt.Errorf("open identity in %s: %w", dir, err)
	}
	i.now.Store(c)
	return i, nil
}

func openKey(path string) (*ecdsa.PrivateKey, error) {
	blocks, err := readPEM(path, "PRIVATE KEY")
	if errors.Is(err, fs.ErrNotExist) {
		return createKey(path)
	}
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(blocks[0])
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read %s: not an ECDSA key", path)
	}
	return key, nil
}

func createKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(path, "PRIVATE KEY", [][]byte{der})
}

// Joined tells whether there is a certificate, good or expired.
func (i *Identity) Joined() bool { return i.now.Load() != nil }

// ID is who the node is; the zero ID until it has joined, unless it is a
// founder.
func (i *Identity) ID() ID {
	if c := i.now.Load(); c != nil {
		return c.id
	}
	if f := i.founding.Load(); f != nil {
		return f.id
	}
	return ID{}
}

// TrustDomain is the cluster's; empty until the node has joined, unless it is a
// founder.
func (i *Identity) TrustDomain() string { return i.ID().TrustDomain }

// NotAfter is when the certificate in force runs out.
func (i *Identity) NotAfter() time.Time {
	if c := i.now.Load(); c != nil {
		return c.certificate.Leaf.NotAfter
	}
	return time.Time{}
}

// RootsPath is the file that others may verify this node by.
func (i *Identity) RootsPath() string { return filepath.Join(i.dir, RootsFile) }

// Verify says who presented a chain, by the roots in force.
func (i *Identity) Verify(chain []*x509.Certificate) (ID, error) {
	if f := i.founding.Load(); f != nil && (!i.Joined() || foundersChain(chain)) {
		return f.Verify(chain)
	}
	c := i.now.Load()
	if c == nil {
		return ID{}, errNotJoined
	}
	return c.verifier.Peer(chain)
}

// foundersChain tells whether a chain claims to be a founder's.
func foundersChain(chain []*x509.Certificate) bool {
	if len(chain) == 0 {
		return false
	}
	id, err := leafID(chain[0])
	return err == nil && id.Founding()
}

var errNotJoined = errors.New("this node has no identity yet")

// Request makes a certificate request, which proves possession of the key and
// asks for nothing.
func (i *Identity) Request() ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, i.key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return csr, nil
}

// Install checks credentials, stores them and puts them in force.
func (i *Identity) Install(m *weirv1.Credentials) error {
	c, err := i.check(m.GetCertificates(), m.GetRoots(), m.GetFormerRoots())
	if err != nil {
		return fmt.Errorf("install certificate: %w", err)
	}
	// Roots first: a certificate without its roots would be of no use, and the
	// other way round the old certificate still verifies by what overlaps.
	if len(m.GetFormerRoots()) > 0 {
		if err := writePEM(filepath.Join(i.dir, formerFile), "CERTIFICATE", m.GetFormerRoots()); err != nil {
			return fmt.Errorf("install certificate: %w", err)
		}
	}
	if err := writePEM(filepath.Join(i.dir, RootsFile), "CERTIFICATE", m.GetRoots()); err != nil {
		return fmt.Errorf("install certificate: %w", err)
	}
	if err := writePEM(filepath.Join(i.dir, chainFile), "CERTIFICATE", m.GetCertificates()); err != nil {
		return fmt.Errorf("install certificate: %w", err)
	}
	i.now.Store(c)
	return nil
}

// check makes credentials of what was received or read. When the error is that
// of the verification alone, they are whole otherwise; they are never nil.
func (i *Identity) check(chain, roots, former [][]byte) (*credentials, error) {
	none := new(credentials)
	var parsed []*x509.Certificate
	for _, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return none, fmt.Errorf("read certificate: %w", err)
		}
		parsed = append(parsed, cert)
	}
	if len(parsed) == 0 {
		return none, errors.New("read certificate: there is none")
	}
	if public, ok := parsed[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(i.key.Public()) {
		return none, errors.New("the certificate is for another key")
	}
	id, err := leafID(parsed[0])
	if err != nil {
		return none, err
	}
	verifier, err := NewVerifier(id.TrustDomain, roots)
	if err == nil && len(former) > 0 {
		verifier, err = verifier.withFormer(former)
	}
	if err != nil {
		return none, err
	}
	c := &credentials{id: id, roots: roots, verifier: verifier, certificate: &tls.Certificate{
		// The roots travel along, so that a node that knows but a fingerprint
		// finds the certificate that bears it.
		Certificate: append(append([][]byte{}, chain...), roots...),
		PrivateKey:  i.key,
		Leaf:        parsed[0],
	}}
	_, err = verifier.Peer(parsed)
	return c, err
}

func leafID(leaf *x509.Certificate) (ID, error) {
	if len(leaf.URIs) != 1 {
		return ID{}, errNoURI
	}
	return ParseURI(leaf.URIs[0], leaf.Subject.CommonName)
}

func (i *Identity) keyHash() []byte {
	hash, err := keyHash(i.key.Public())
	if err != nil {
		panic(err) // only for keys of a kind that Open does not take
	}
	return hash
}

func readPEM(path, kind string) ([][]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	blocks, err := parsePEM(data, kind)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return blocks, nil
}

func parsePEM(data []byte, kind string) ([][]byte, error) {
	var blocks [][]byte
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != kind {
			return nil, fmt.Errorf("holds a %s, want a %s", block.Type, kind)
		}
		blocks, data = append(blocks, block.Bytes), rest
	}
	if len(blocks) == 0 {
		return nil, fmt.Errorf("holds no %s", kind)
	}
	return blocks, nil
}

func writePEM(path, kind string, blocks [][]byte) error {
	var out bytes.Buffer
	for _, der := range blocks {
		if err := pem.Encode(&out, &pem.Block{Type: kind, Bytes: der}); err != nil {
			return err
		}
	}
	return durable.WriteFile(path, out.Bytes())
}

// CredentialsID says for whom credentials were issued.
func CredentialsID(m *weirv1.Credentials) (ID, error) {
	if len(m.GetCertificates()) == 0 {
		return ID{}, errors.New("read certificate: there is none")
	}
	leaf, err := x509.ParseCertificate(m.GetCertificates()[0])
	if err != nil {
		return ID{}, fmt.Errorf("read certificate: %w", err)
	}
	return leafID(leaf)
}

// Knows tells whether the authority that made a join token is the one that this
// node belongs to.
func (i *Identity) Knows(token Token) bool {
	c := i.now.Load()
	if c == nil {
		return false
	}
	for _, der := range c.roots {
		if root, err := x509.ParseCertificate(der); err == nil && fingerprint(root) == token.Fingerprint {
			return true
		}
	}
	return false
}
