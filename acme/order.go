package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// ErrConflict is what [Store.Put] says when a Certificate has changed.
var ErrConflict = errors.New("it has changed meanwhile")

// errWithdrawn ends an order that nobody wants any more.
var errWithdrawn = errors.New("the certificate was deleted or declared otherwise")

// order gets a certificate and stores it.
func (i *Issuer) order(ctx context.Context, ref resource.Ref, c *weirv1.Certificate) (*x509.Certificate, error) {
	spec := c.GetSpec()
	client, done, err := newClient(spec.GetAcme())
	if err != nil {
		return nil, err
	}
	defer done()
	var hmac []byte
	if spec.GetAcme().GetExternalAccount() != nil {
		if hmac, err = i.cfg.Store.OpenHMAC(ref, c.GetMaterial().GetSealedHmacKey()); err != nil {
			return nil, fmt.Errorf("open the key of the external account: %w", err)
		}
	}
	account, err := i.cfg.Accounts.account(ctx, client, spec.GetAcme(), hmac)
	if err != nil {
		return nil, fmt.Errorf("account at %s: %w", client.Directory, err)
	}
	key, err := newKey(spec.GetAcme().GetKeyType())
	if err != nil {
		return nil, err
	}
	csr, err := acmez.NewCSR(key, spec.GetHostnames())
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	params, err := acmez.OrderParametersFromCSR(account, csr)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	params.Profile = spec.GetAcme().GetProfile()
	s := &solver{issuer: i, ref: ref, ordered: c}
	orders := acmez.Client{Client: client, ChallengeSolvers: map[string]acmez.Solver{}}
	for _, challenge := range challengesOf(spec.GetAcme()) {
		orders.ChallengeSolvers[acmeNames[challenge]] = s
	}
	issued, err := orders.ObtainCertificate(ctx, params)
	if err != nil {
		i.cfg.Accounts.forgetIfGone(ctx, client, spec.GetAcme(), err)
		return nil, err
	}
	if len(issued) == 0 {
		return nil, errors.New("the authority sent no certificate")
	}
	return i.keep(ctx, ref, c, key, issued[0].ChainPEM)
}

// keep stores what was issued, after a look at whether it is what was ordered.
func (i *Issuer) keep(ctx context.Context, ref resource.Ref, ordered *weirv1.Certificate, key crypto.Signer, chainPEM []byte) (*x509.Certificate, error) {
	var chain []*x509.Certificate
	var raw [][]byte
	for block, rest := pem.Decode(chainPEM); block != nil; block, rest = pem.Decode(rest) {
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read what was issued: %w", err)
		}
		chain, raw = append(chain, parsed), append(raw, block.Bytes)
	}
	if len(chain) == 0 {
		return nil, errors.New("what was issued holds no certificate")
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(chain[0].PublicKey) {
		return nil, errors.New("what was issued is for another key")
	}
	if names := resource.NamesOf(chain[0]); !sameNames(names, ordered.GetSpec().GetHostnames()) {
		return nil, fmt.Errorf("what was issued is for %q", names)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return chain[0], i.change(ctx, ref, ordered, func(m *weirv1.CertificateMaterial) {
		m.Chain, m.SealedKey = raw, i.cfg.Store.SealKey(ref, der)
		m.AcmeDirectory = directoryOf(ordered.GetSpec().GetAcme())
		m.AcmeProblem, m.Challenges = "", nil
	})
}

// maxTries bounds how often a change begins anew because of another one.
const maxTries = 100

// change changes the material of a Certificate that is still declared as it was
// when it was ordered.
func (i *Issuer) change(ctx context.Context, ref resource.Ref, ordered *weirv1.Certificate, edit func(*weirv1.CertificateMaterial)) error {
	for range maxTries {
		now := i.cfg.Store.Get(ref)
		if now == nil || digestOf(now) != digestOf(ordered) {
			return errWithdrawn
		}
		next := proto.CloneOf(now)
		edit(next.GetMaterial())
		if proto.Equal(next.GetMaterial(), now.GetMaterial()) {
			return nil
		}
		next.Status = resource.CertificateStatus(next)
		if err := i.cfg.Store.Put(ctx, next); !errors.Is(err, ErrConflict) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return ErrConflict
}

var acmeNames = map[weirv1.Acme_Challenge]string{
	weirv1.Acme_HTTP_01: acme.ChallengeTypeHTTP01, weirv1.Acme_TLS_ALPN_01: acme.ChallengeTypeTLSALPN01,
}

func challengesOf(a *weirv1.Acme) []weirv1.Acme_Challenge {
	if len(a.GetChallenges()) == 0 {
		return []weirv1.Acme_Challenge{weirv1.Acme_HTTP_01, weirv1.Acme_TLS_ALPN_01}
	}
	return a.GetChallenges()
}

// solver hands challenges to the proxies, by way of the Certificate.
type solver struct {
	issuer  *Issuer
	ref     resource.Ref
	ordered *weirv1.Certificate
}

var (
	_ acmez.Solver = (*solver)(nil)
	_ acmez.Waiter = (*solver)(nil)
)

func (s *solver) Present(ctx context.Context, c acme.Challenge) error {
	is := challengeOf(c)
	if is.GetType() == weirv1.Acme_CHALLENGE_UNSPECIFIED {
		return fmt.Errorf("a challenge of type %q cannot be answered", c.Type)
	}
	return s.issuer.change(ctx, s.ref, s.ordered, func(m *weirv1.CertificateMaterial) {
		m.Challenges = append(without(m.GetChallenges(), is), is)
	})
}

// Wait waits for the proxies.
func (s *solver) Wait(ctx context.Context, _ acme.Challenge) error {
	c := s.issuer.cfg.Store.Get(s.ref)
	if c == nil {
		return errWithdrawn
	}
	bounded, cancel := context.WithTimeout(ctx, spreadTime)
	defer cancel()
	s.issuer.cfg.Spread(bounded, c.GetMetadata().GetRevision())
	return ctx.Err()
}

func (s *solver) CleanUp(ctx context.Context, c acme.Challenge) error {
	// The order may have been broken off: the challenge is taken back all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), spreadTime)
	defer cancel()
	is := challengeOf(c)
	err := s.issuer.change(ctx, s.ref, s.ordered, func(m *weirv1.CertificateMaterial) { m.Challenges = without(m.GetChallenges(), is) })
	if errors.Is(err, errWithdrawn) {
		return nil
	}
	return err
}

func challengeOf(c acme.Challenge) *weirv1.AcmeChallenge {
	is := &weirv1.AcmeChallenge{Hostname: c.Identifier.Value, Token: c.Token, KeyAuthorization: c.KeyAuthorization}
	for challenge, name := range acmeNames {
		if name == c.Type {
			is.Type = challenge
		}
	}
	return is
}

func without(all []*weirv1.AcmeChallenge, one *weirv1.AcmeChallenge) []*weirv1.AcmeChallenge {
	return slices.DeleteFunc(all, func(c *weirv1.AcmeChallenge) bool {
		return c.GetType() == one.GetType() && c.GetToken() == one.GetToken() && c.GetHostname() == one.GetHostname()
	})
}

// newClient speaks to an authority; done closes its connections.
func newClient(a *weirv1.Acme) (client *acme.Client, done func(), err error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.GetCaCertificates() != "" {
		authorities, err := resource.ParseAuthorities(a.GetCaCertificates())
		if err != nil {
			return nil, nil, fmt.Errorf("caCertificates: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		for _, c := range authorities {
			config.RootCAs.AddCert(c)
		}
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 30 * time.Second, ResponseHeaderTimeout: time.Minute,
	}
	client = &acme.Client{
		Directory: directoryOf(a), UserAgent: "weir", PollTimeout: orderTimeout,
		HTTPClient: &http.Client{Transport: transport, Timeout: time.Minute},
	}
	return client, transport.CloseIdleConnections, nil
}

func newKey(kind weirv1.Acme_KeyType) (crypto.Signer, error) {
	switch kind {
	case weirv1.Acme_ECDSA_P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case weirv1.Acme_RSA_2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}
