package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Founding is who a server is before there is a log, and so before there is an
// authority: servers that have the same keyring know each other by it.
//
// The founding authority is derived from the keyring, so that each founder has
// it by himself; the certificate's key is made anew at each start and stays in
// memory. It proves that the peer has the keyring, which is all that founders
// can know of each other. [Identity.Found] puts it to use, beside the real
// certificate once there is one.
type Founding struct {
	id          ID
	keyID       string
	certificate *tls.Certificate
	verifier    *Verifier
	// authority has the root of all founders with this key.
	authority *x509.CertPool
	rootName  []byte
}

// foundingPrefix begins the trust domain of founders; the name of their key
// follows.
const foundingPrefix = "founding-"

// Certificates of founders hold whatever the clocks say: nobody has set them
// yet, and who founds is the operator's decision, not the calendar's.
var (
	foundingFrom  = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	foundingUntil = time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC)
)

// NewFounding makes the identity of one founder.
func NewFounding(k *Keyring, name string) (*Founding, error) {
	f := &Founding{keyID: k.ID(), id: ID{TrustDomain: foundingPrefix + k.ID() + ".weir.internal", Role: RoleServer, Name: name}}
	if err := f.id.Validate(); err != nil {
		return nil, fmt.Errorf("found cluster: %w", err)
	}
	seed := k.Derive("founding authority")
	signer := ed25519.NewKeyFromSeed(seed[:])
	root, err := f.root(signer)
	if err != nil {
		return nil, fmt.Errorf("found cluster: %w", err)
	}
	if f.verifier, err = NewVerifier(f.id.TrustDomain, [][]byte{root.Raw}); err != nil {
		return nil, fmt.Errorf("found cluster: %w", err)
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("found cluster: %w", err)
	}
	leaf, err := sign(&x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    foundingFrom,
		NotAfter:     foundingUntil,
		URIs:         []*url.URL{f.id.URI()},
		DNSNames:     []string{ServerName(f.id.TrustDomain)},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},

		BasicConstraintsValid: true,
	}, root, public, signer)
	if err != nil {
		return nil, fmt.Errorf("found cluster: %w", err)
	}
	f.authority, f.rootName = x509.NewCertPool(), root.RawSubject
	f.authority.AddCert(root)
	f.certificate = &tls.Certificate{Certificate: [][]byte{leaf.Raw, root.Raw}, PrivateKey: key, Leaf: leaf}
	return f, nil
}

// root is the same at every founder.
func (f *Founding) root(signer ed25519.PrivateKey) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "Weir founders with key " + f.keyID},
		NotBefore:             foundingFrom,
		NotAfter:              foundingUntil,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: f.id.TrustDomain}},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	return sign(template, template, signer.Public(), signer)
}

// Founding tells whether it is a founder's, from before there is a cluster.
func (id ID) Founding() bool { return strings.HasPrefix(id.TrustDomain, foundingPrefix) }

// Why a founder does not believe a peer.
var (
	ErrOtherKey    = errors.New("the two servers have different cluster keys")
	ErrSameName    = errors.New("two servers want to found the cluster under the same name")
	ErrFoundedElse = errors.New("the peer belongs to a cluster that is there already")
)

// Verify says which founder presented a chain, and in words why it is none.
func (f *Founding) Verify(chain []*x509.Certificate) (ID, error) {
	if len(chain) == 0 {
		return ID{}, errors.New("verify founder: it presented no certificate")
	}
	// Until the chain is verified this is only what the peer says of itself. It
	// serves to say what is wrong.
	claimed, err := leafID(chain[0])
	switch {
	case err != nil:
		return ID{}, fmt.Errorf("verify founder: %w", err)
	case !claimed.Founding():
		return ID{}, fmt.Errorf("verify founder: %w, %s, as %s: have this server join it with a token, or clear that one's data directory",
			ErrFoundedElse, claimed.TrustDomain, claimed.Name)
	case claimed.TrustDomain != f.id.TrustDomain:
		return ID{}, fmt.Errorf("verify founder: this server has another cluster key than %s: here it is %s, there it is %s: %w",
			claimed.Name, f.keyID, foundingKeyID(claimed.TrustDomain), ErrOtherKey)
	}
	id, err := f.verifier.PeerOf(RoleServer, chain)
	if err != nil {
		return ID{}, err
	}
	if id.Name == f.id.Name && !chain[0].Equal(f.certificate.Leaf) {
		return ID{}, fmt.Errorf("verify founder %s: %w", id.Name, ErrSameName)
	}
	return id, nil
}

func foundingKeyID(trustDomain string) string {
	id, _, _ := strings.Cut(strings.TrimPrefix(trustDomain, foundingPrefix), ".")
	return id
}

// Found has the identity speak as a founder: to peers that do so too it shows
// the founding certificate and believes theirs. Its own certificate, once it
// has one, is shown to all others.
func (i *Identity) Found(f *Founding) { i.founding.Store(f) }

// Founded ends that, once every founder has a certificate of the cluster's (a
// record in [Registrar.Nodes]). What founders present is believed for a while
// longer, until the process ends: they may be a little behind.
func (i *Identity) Founded() { i.founded.Store(true) }

// believed tells whether a server that asks for a certificate believes founders: it
// names their authority. One that was started since the founding knows of none.
func (f *Founding) believed(asked *tls.CertificateRequestInfo) bool {
	return slices.ContainsFunc(asked.AcceptableCAs, func(name []byte) bool { return bytes.Equal(name, f.rootName) })
}

// presented is the certificate for a server that asks for one.
func (i *Identity) presented(asked *tls.CertificateRequestInfo, serverName string) (*tls.Certificate, error) {
	if f := i.speaksAsFounder(); f != nil && i.Joined() && !f.believed(asked) {
		return i.certificate()
	}
	return i.shown(serverName)
}

// speaksAsFounder returns the founding identity while it is what this node
// shows of itself.
func (i *Identity) speaksAsFounder() *Founding {
	if i.founded.Load() && i.Joined() {
		return nil
	}
	return i.founding.Load()
}
