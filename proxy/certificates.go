package proxy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// certificates finds and parses those that a listener shows, with the names that
// each is shown for.
func (p *Proxy) certificates(tenant string, spec *weirv1.ListenerTLS, parsed map[*weirv1.Certificate]*tls.Certificate) (
	certificates []*tls.Certificate, names [][]string, err error) {
	for _, ref := range spec.GetCertificateRefs() {
		ref := resource.Ref{Kind: resource.KindCertificate, Tenant: tenant, Name: ref.GetName()}
		declared := p.desired.resources[ref].GetCertificate()
		if declared == nil {
			return nil, nil, fmt.Errorf("%s is not there", ref)
		}
		c := p.parsed[declared]
		if c == nil {
			if c, err = parseCertificate(declared.GetMaterial()); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", ref, err)
			}
		}
		parsed[declared] = c
		shownFor := declared.GetSpec().GetHostnames()
		if len(shownFor) == 0 {
			shownFor = resource.NamesOf(c.Leaf)
		}
		certificates, names = append(certificates, c), append(names, shownFor)
	}
	if len(certificates) == 0 {
		return nil, nil, errors.New("it has no certificate")
	}
	return certificates, names, nil
}

func parseCertificate(m *weirv1.CertificateMaterial) (*tls.Certificate, error) {
	if len(m.GetChain()) == 0 || len(m.GetKey()) == 0 {
		return nil, errors.New("its key did not come with it: the servers could not open it")
	}
	leaf, err := x509.ParseCertificate(m.GetChain()[0])
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(m.GetKey())
	if err != nil {
		return nil, errors.New("its key cannot be read") // the cause may hold parts of it
	}
	return &tls.Certificate{Certificate: m.GetChain(), PrivateKey: key, Leaf: leaf}, nil
}

// shownCertificates are what a listener shows, by name and in the order of
// preference.
type shownCertificates struct {
	byName map[string][]*tls.Certificate
	all    []*tls.Certificate
}

func (s *shownCertificates) add(c *tls.Certificate, names []string) {
	if s.byName == nil {
		s.byName = map[string][]*tls.Certificate{}
	}
	for _, name := range names {
		s.byName[name] = insertCertificate(s.byName[name], c)
	}
	s.all = append(s.all, c)
}

// insertCertificate puts those that cost less to sign with before RSA.
func insertCertificate(list []*tls.Certificate, c *tls.Certificate) []*tls.Certificate {
	at := len(list)
	if c.Leaf.PublicKeyAlgorithm != x509.RSA {
		at = slices.IndexFunc(list, func(o *tls.Certificate) bool { return o.Leaf.PublicKeyAlgorithm == x509.RSA })
		if at < 0 {
			at = len(list)
		}
	}
	return slices.Insert(list, at, c)
}

// choose is the first certificate for the name that the client can verify. Where
// none is for the name, the client is shown one all the same, and says itself
// what it thinks of it.
func (s *shownCertificates) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	var buf [maxHost]byte
	name := hostOf(&buf, []byte(hello.ServerName))
	able := *hello
	able.ServerName = "" // whether the name fits is decided by what is declared
	for _, list := range [][]*tls.Certificate{s.byName[string(name)], s.byName[wildcardOf(name)], s.all} {
		for _, c := range list {
			if able.SupportsCertificate(c) == nil {
				return c, nil
			}
		}
	}
	return s.all[0], nil
}

// wildcardOf is the wildcard that covers a name: of its first label alone, as in
// certificates.
func wildcardOf(name []byte) string {
	_, rest, ok := bytes.Cut(name, []byte{'.'})
	if !ok {
		return ""
	}
	return "*." + string(rest)
}
