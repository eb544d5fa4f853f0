package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// ErrExpired is the cause when a peer's certificate was good once. Its ID is
// proven all the same: the peer may renew, and nothing else.
var ErrExpired = errors.New("certificate has expired")

// Verifier knows whom to believe. It is safe for concurrent use.
type Verifier struct {
	trustDomain string
	roots       *x509.CertPool
}

// NewVerifier believes the roots (DER) for the trust domain.
func NewVerifier(trustDomain string, roots [][]byte) (*Verifier, error) {
	pool := x509.NewCertPool()
	for _, der := range roots {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read root: %w", err)
		}
		if !root.IsCA {
			return nil, fmt.Errorf("read root: %q is no authority", root.Subject.CommonName)
		}
		pool.AddCert(root)
	}
	if len(roots) == 0 {
		return nil, errors.New("read root: there is none")
	}
	return &Verifier{trustDomain: trustDomain, roots: pool}, nil
}

// Peer says who presented a chain, leaf first. The error, which names what is
// wrong, wraps [ErrExpired] when that is all that is; the ID then holds.
func (v *Verifier) Peer(chain []*x509.Certificate) (ID, error) {
	if len(chain) == 0 {
		return ID{}, errors.New("verify peer: it presented no certificate")
	}
	leaf := chain[0]
	// A leaf that has run out is judged as of its last moment, so that "too
	// old" and "not ours" stay two answers.
	at, expired := time.Now(), false
	if at.After(leaf.NotAfter) {
		at, expired = leaf.NotAfter, true
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: v.roots, Intermediates: intermediates, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return ID{}, fmt.Errorf("verify peer: %w", err)
	}
	if leaf.IsCA || len(leaf.URIs) != 1 {
		return ID{}, fmt.Errorf("verify peer: %w", errNoURI)
	}
	id, err := ParseURI(leaf.URIs[0])
	if err != nil {
		return ID{}, fmt.Errorf("verify peer: %w", err)
	}
	if id.TrustDomain != v.trustDomain {
		return ID{}, fmt.Errorf("verify peer %s: trust domain is not ours, %s", id, v.trustDomain)
	}
	if expired {
		return id, fmt.Errorf("verify peer %s: %w on %s", id, ErrExpired, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return id, nil
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
