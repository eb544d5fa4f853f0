package proxy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/resource"
)

// challenges are what ACME authorities ask for at the moment. Every listener
// answers them, whatever it serves: an authority asks for a name, and who shows
// the certificate in the end is not its business.
type challenges struct {
	files        map[string]string           // by token: what the file says (RFC 8555, section 8.3)
	certificates map[string]*tls.Certificate // by name (RFC 8737)
}

const protocolACME = "acme-tls/1"

var challengePath = []byte("/.well-known/acme-challenge/")

// compileChallenges collects them; nil: none, as nearly always.
func (p *Proxy) compileChallenges() (*challenges, error) {
	var all *challenges
	for ref, r := range p.desired.resources {
		if ref.Kind != resource.KindCertificate {
			continue
		}
		for _, c := range r.GetCertificate().GetMaterial().GetChallenges() {
			if all == nil {
				all = &challenges{files: map[string]string{}, certificates: map[string]*tls.Certificate{}}
			}
			if err := all.add(c); err != nil {
				return nil, fmt.Errorf("%s: challenge for %s: %w", ref, c.GetHostname(), err)
			}
		}
	}
	return all, nil
}

func (a *challenges) add(c *weirv1.AcmeChallenge) (err error) {
	switch c.GetType() {
	case weirv1.Acme_HTTP_01:
		a.files[c.GetToken()] = c.GetKeyAuthorization()
	case weirv1.Acme_TLS_ALPN_01:
		a.certificates[c.GetHostname()], err = challengeCertificate(c)
	}
	return err
}

// answerChallenge answers a request for a challenge's file.
func (s *session) answerChallenge(x *exchange.Exchange) bool {
	token, ok := bytes.CutPrefix(x.Request.Path, challengePath)
	if !ok {
		return false
	}
	said, ok := s.generation.challenges.files[string(token)]
	if !ok {
		return false // perhaps a service has an authority of its own
	}
	x.Answer(200, []byte(said))
	x.Details = "acme_challenge"
	x.Response.Fields.Add([]byte("Content-Type"), []byte("text/plain"))
	return true
}

// certificateFor is what a client that checks a name is shown, nil where nobody
// has it checked.
func (a *challenges) certificateFor(hello *tls.ClientHelloInfo) *tls.Config {
	if a == nil || len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != protocolACME {
		return nil
	}
	name := reversedAddress(hello.ServerName)
	if name == "" {
		var buf [maxHost]byte
		name = string(hostOf(&buf, []byte(hello.ServerName)))
	}
	certificate := a.certificates[name]
	if certificate == nil {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{protocolACME}, Certificates: []tls.Certificate{*certificate}}
}

// idPeACMEIdentifier is the extension that proves that the client who ordered
// and the server that answers are one (RFC 8737, section 3).
var idPeACMEIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// challengeCertificate makes the certificate that answers for a name.
func challengeCertificate(c *weirv1.AcmeChallenge) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(c.GetKeyAuthorization()))
	value, err := asn1.Marshal(sum[:])
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ACME challenge"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(7 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		ExtraExtensions: []pkix.Extension{{Id: idPeACMEIdentifier, Critical: true, Value: value}},
	}
	if ip := net.ParseIP(c.GetHostname()); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{c.GetHostname()}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
