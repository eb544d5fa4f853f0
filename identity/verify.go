package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Why a peer's certificate is not good today, though it was: the peer is proven
// to be a node of this cluster all the same, or was by a root that was given
// up. It may renew, and nothing else: see [MayRenew].
var (
	ErrExpired = errors.New("certificate has expired")
	ErrRetired = errors.New("certificate is of a root that was given up")
)

// ErrEarly is the cause when a certificate is not good yet by this clock.
var ErrEarly = errors.New("compare the clocks")

// MayRenew tells whether a peer whose verification gave err may renew its
// certificate: it is good, or was.
func MayRenew(err error) bool {
	return err == nil || errors.Is(err, ErrExpired) || errors.Is(err, ErrRetired)
}

// Verifier knows whom to believe. It is safe for concurrent use.
type Verifier struct {
	trustDomain string
	roots       *x509.CertPool
	former      *x509.CertPool // nil: none
}

// NewVerifier believes the roots (DER) for the trust domain.
func NewVerifier(trustDomain string, roots [][]byte) (*Verifier, error) {
	pool, err := newPool(roots)
	if err != nil {
		return nil, err
	}
	if len(roots) == 0 {
		return nil, errors.New("read root: there is none")
	}
	return &Verifier{trustDomain: trustDomain, roots: pool}, nil
}

// withFormer also knows roots that were given up.
func (v *Verifier) withFormer(former [][]byte) (*Verifier, error) {
	pool, err := newPool(former)
	if err != nil {
		return nil, err
	}
	return &Verifier{trustDomain: v.trustDomain, roots: v.roots, former: pool}, nil
}

func newPool(roots [][]byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for _, der := range roots {
		root, err := parseCA(der)
		if err != nil {
			return nil, err
		}
		pool.AddCert(root)
	}
	return pool, nil
}

// Peer says who presented a chain, leaf first. The error names what is wrong.
// When it wraps [ErrExpired] or [ErrRetired], the ID holds.
func (v *Verifier) Peer(chain []*x509.Certificate) (ID, error) {
	if len(chain) == 0 {
		return ID{}, errors.New("verify peer: it presented no certificate")
	}
	leaf, now := chain[0], time.Now()
	if now.Before(leaf.NotBefore) {
		return ID{}, fmt.Errorf("verify peer: its certificate is good from %s, and it is %s here: %w",
			leaf.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), ErrEarly)
	}
	retired, err := v.chain(chain)
	if err != nil {
		return ID{}, fmt.Errorf("verify peer: %w", err)
	}
	if leaf.IsCA {
		return ID{}, fmt.Errorf("verify peer: %w", errNoURI)
	}
	id, err := leafID(leaf)
	switch {
	case err != nil:
		return ID{}, fmt.Errorf("verify peer: %w", err)
	case id.TrustDomain != v.trustDomain:
		return ID{}, fmt.Errorf("verify peer %s: trust domain is not ours, %s", id, v.trustDomain)
	case retired:
		return id, fmt.Errorf("verify peer %s: %w", id, ErrRetired)
	case now.After(leaf.NotAfter):
		return id, fmt.Errorf("verify peer %s: %w on %s", id, ErrExpired, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return id, nil
}

// chain verifies a chain up to a root, and says whether only a former one is
// found. A leaf that has run out is judged as of its last moment, so that "too
// old" and "not ours" stay two answers.
func (v *Verifier) chain(chain []*x509.Certificate) (retired bool, err error) {
	at := time.Now()
	if at.After(chain[0].NotAfter) {
		at = chain[0].NotAfter
	}
	options := x509.VerifyOptions{
		Roots: v.roots, Intermediates: x509.NewCertPool(), CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err = chain[0].Verify(options)
	if err == nil || v.former == nil {
		return false, err
	}
	options.Roots = v.former
	if _, formerErr := chain[0].Verify(options); formerErr != nil {
		return false, err
	}
	return true, nil
}

// PeerOf is Peer, and refuses every role but the one wanted.
func (v *Verifier) PeerOf(want Role, chain []*x509.Certificate) (ID, error) {
	id, err := v.Peer(chain)
	if err != nil {
		return ID{}, err
	}
	if id.Role != want {
		return ID{}, fmt.Errorf("verify peer %s: it is no %s", id, want)
	}
	return id, nil
}
