package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
)

// TLS is how connections to an endpoint are secured. It is part of what pools go
// by, so what it holds is compared by value.
type TLS struct {
	On bool
	// ServerName is what the endpoint is asked for by (SNI) and, unless Names says
	// otherwise, what its certificate must be for. Empty: the host of the address.
	ServerName string
	// Authorities are the certificates, in DER and one behind the other, that the
	// endpoint's must lead to. Empty: those that the host trusts.
	Authorities string
	// SubjectNames: the certificate must be for one of these instead, separated by
	// spaces: DNS names, or URIs.
	SubjectNames string
	// Insecure: any certificate will do.
	Insecure bool
	// Chain (DER, the leaf first, one behind the other) and Key (PKCS #8) are what
	// the endpoint is shown, if it asks.
	Chain, Key string
	// SidecarsOf is the identity of the service whose sidecars are spoken to, by the
	// protocol Mesh or HTTP1, where all else is the mesh's: see [Registry.JoinMesh].
	SidecarsOf string
}

// String keeps the key out of what is printed.
func (t TLS) String() string {
	if !t.On {
		return "none"
	}
	return "TLS for " + t.ServerName
}

// protocols are what is offered by ALPN.
var protocols = map[Protocol][]string{HTTP1: {"http/1.1"}, HTTP2: {"h2"}, HTTP3: {"h3"}}

// Config is what a connection by that protocol to an address is made with; nil
// where it is not secured.
func (t TLS) Config(address string, p Protocol) (*tls.Config, error) {
	if !t.On {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{ServerName: host, NextProtos: protocols[p], MinVersion: tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(sessions)}
	if t.ServerName != "" {
		c.ServerName = t.ServerName
	}
	if t.Authorities != "" {
		authorities, err := x509.ParseCertificates([]byte(t.Authorities))
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		for _, a := range authorities {
			c.RootCAs.AddCert(a)
		}
	}
	if t.Chain != "" {
		if err := t.identify(c); err != nil {
			return nil, err
		}
	}
	switch {
	case t.Insecure:
		c.InsecureSkipVerify = true
	case t.SubjectNames != "":
		t.verifyNames(c)
	}
	return c, nil
}

// sessions is how many TLS sessions are kept to be resumed, per endpoint.
const sessions = 16

// identify gives the configuration what is shown to the endpoint.
func (t TLS) identify(c *tls.Config) error {
	chain, err := x509.ParseCertificates([]byte(t.Chain))
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey([]byte(t.Key))
	if err != nil {
		return errors.New("read certificate: its key cannot be read") // the cause may hold parts of it
	}
	shown := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, link := range chain {
		shown.Certificate = append(shown.Certificate, link.Raw)
	}
	c.Certificates = []tls.Certificate{shown}
	return nil
}

// verifyNames looks for other names in the certificate than the one that was
// asked for.
func (t TLS) verifyNames(c *tls.Config) {
	wanted := strings.Fields(t.SubjectNames)
	roots := c.RootCAs
	c.InsecureSkipVerify = true // what it would do is done below
	c.VerifyConnection = func(state tls.ConnectionState) error {
		leaf := state.PeerCertificates[0]
		opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, link := range state.PeerCertificates[1:] {
			opts.Intermediates.AddCert(link)
		}
		if _, err := leaf.Verify(opts); err != nil {
			return err
		}
		for _, name := range wanted {
			if certifies(leaf, name) {
				return nil
			}
		}
		return fmt.Errorf("its certificate is for none of %v", wanted)
	}
}

// secure puts TLS around a connection.
func (p *Pool) secure(ctx context.Context, c net.Conn) (net.Conn, error) {
	if p.security == nil {
		return c, nil
	}
	return Handshake(ctx, c, p.security)
}

// Handshake secures a connection as its client, with the protocol that is
// offered alone. On an error it is closed.
func Handshake(ctx context.Context, c net.Conn, config *tls.Config) (*tls.Conn, error) {
	secured := tls.Client(c, config)
	err := secured.HandshakeContext(ctx)
	if err == nil && secured.ConnectionState().NegotiatedProtocol == "" && config.NextProtos[0] != "http/1.1" {
		err = fmt.Errorf("it does not speak %s", config.NextProtos[0])
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secured, nil
}

// certifies reports whether a certificate is for a DNS name, an IP address or a
// URI.
func certifies(leaf *x509.Certificate, name string) bool {
	if !strings.Contains(name, "://") {
		return leaf.VerifyHostname(name) == nil
	}
	for _, uri := range leaf.URIs {
		if uri.String() == name {
			return true
		}
	}
	return false
}
