package identity

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// sealedAuthority is what is stored of an authority, before it is sealed.
// Certificates are DER, keys PKCS #8.
type sealedAuthority struct {
	TrustDomain string    `json:"trustDomain"`
	Root        []byte    `json:"root"`
	Key         []byte    `json:"key"`
	Epoch       uint64    `json:"epoch,omitempty"`
	Phase       Phase     `json:"phase,omitempty"`
	Since       time.Time `json:"since,omitzero"`

	NextRoot []byte         `json:"nextRoot,omitempty"`
	NextKey  []byte         `json:"nextKey,omitempty"`
	Previous []byte         `json:"previous,omitempty"`
	Bridges  [][]byte       `json:"bridges,omitempty"`
	Former   []sealedFormer `json:"former,omitempty"`
}

type sealedFormer struct {
	Root    []byte    `json:"root"`
	Retired time.Time `json:"retired"`
}

const authorityPurpose = "authority"

// Seal encrypts the authority, keys and all, for storage.
func (a *Authority) Seal(k *Keyring) ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.signer.key)
	if err != nil {
		return nil, fmt.Errorf("seal authority: %w", err)
	}
	s := sealedAuthority{
		TrustDomain: a.trustDomain, Root: a.signer.cert.Raw, Key: key, Epoch: a.epoch, Phase: a.phase, Since: a.since,
	}
	if a.next != nil {
		s.NextRoot = a.next.cert.Raw
		if s.NextKey, err = x509.MarshalPKCS8PrivateKey(a.next.key); err != nil {
			return nil, fmt.Errorf("seal authority: %w", err)
		}
	}
	if a.previous != nil {
		s.Previous = a.previous.Raw
	}
	for _, c := range a.bridges {
		s.Bridges = append(s.Bridges, c.Raw)
	}
	for _, f := range a.former {
		s.Former = append(s.Former, sealedFormer{Root: f.cert.Raw, Retired: f.retired})
	}
	data, err := json.Marshal(s)
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
	a, err := parseAuthority(data)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	return a, nil
}

func parseAuthority(data []byte) (*Authority, error) {
	var s sealedAuthority
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	if !validHost(s.TrustDomain) {
		return nil, fmt.Errorf("trust domain %q is not a host name in lower case", s.TrustDomain)
	}
	a := &Authority{trustDomain: s.TrustDomain, epoch: s.Epoch, phase: s.Phase, since: s.Since}
	if a.phase == "" {
		a.phase = PhaseSteady
	}
	var err error
	if a.signer, err = parseRoot(s.Root, s.Key); err != nil {
		return nil, err
	}
	if s.NextRoot != nil {
		if a.next, err = parseRoot(s.NextRoot, s.NextKey); err != nil {
			return nil, err
		}
	}
	if s.Previous != nil {
		if a.previous, err = parseCA(s.Previous); err != nil {
			return nil, err
		}
	}
	for _, der := range s.Bridges {
		bridge, err := parseCA(der)
		if err != nil {
			return nil, err
		}
		a.bridges = append(a.bridges, bridge)
	}
	for _, f := range s.Former {
		cert, err := parseCA(f.Root)
		if err != nil {
			return nil, err
		}
		a.former = append(a.former, formerRoot{cert, f.Retired})
	}
	return a, a.check()
}

// check holds a phase to what it must have.
func (a *Authority) check() error {
	switch {
	case a.phase == PhaseSteady && a.next == nil && a.previous == nil,
		a.phase == PhaseAnnounced && a.next != nil && a.previous == nil,
		a.phase == PhaseSigning && a.next == nil && a.previous != nil:
		return nil
	}
	return fmt.Errorf("its roots are not those of phase %q", a.phase)
}

func parseCA(der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read root: %w", err)
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("read root: %q is no authority", cert.Subject.CommonName)
	}
	return cert, nil
}

func parseRoot(der, pkcs8 []byte) (*root, error) {
	cert, err := parseCA(der)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, fmt.Errorf("read root's key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the key is not the root's")
	}
	return &root{cert: cert, key: key}, nil
}
