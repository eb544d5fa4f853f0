package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
)

// ServerTLS serves peers that are nodes of the cluster, or that have no
// certificate yet: whoever presents one must be of this cluster, and the
// handshake fails with the reason if not. A certificate that is good no more
// passes here, so that its node can renew; see [Identity.Verify] and [MayRenew].
func (i *Identity) ServerTLS(protocols ...string) *tls.Config {
	var founders *x509.CertPool
	if f := i.founding.Load(); f != nil {
		founders = f.authority
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     protocols,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return i.shown(hello.ServerName) },
		// Only named, so that founders know whom to be: VerifyConnection verifies.
		ClientCAs: founders,
		// Not VerifyClientCertIfGiven: that refuses an expired certificate
		// before anyone can tell who it was.
		ClientAuth: tls.RequestClientCert,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return nil
			}
			if _, err := i.Verify(state.PeerCertificates); !MayRenew(err) {
				return err
			}
			return nil
		},
		// A resumed session would outlive its certificate.
		SessionTicketsDisabled: true,
	}
}

// ClientTLS speaks to servers of the cluster and shows them who this node is.
func (i *Identity) ClientTLS(protocols ...string) *tls.Config {
	name := ServerName(i.TrustDomain())
	if f := i.speaksAsFounder(); f != nil {
		name = ServerName(f.id.TrustDomain)
	}
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           protocols,
		ServerName:           name,
		GetClientCertificate: func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.presented(asked, name) },
		// Addresses are many and change; who the peer is stands in its URI,
		// which VerifyConnection checks.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			id, err := i.Verify(state.PeerCertificates)
			if err == nil && id.Role != RoleServer {
				err = fmt.Errorf("verify peer %s: it is no server", id)
			}
			return err
		},
	}
}

// shown is the certificate for a peer that calls the server by a name: a
// founder's for founders, who know no other.
func (i *Identity) shown(serverName string) (*tls.Certificate, error) {
	if f := i.speaksAsFounder(); f != nil && (serverName == ServerName(f.id.TrustDomain) || !i.Joined()) {
		return f.certificate, nil
	}
	return i.certificate()
}

// WebTLS serves programs that verify by host name and the authority's roots,
// such as the CLI at the admin API.
func (i *Identity) WebTLS(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     protocols,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.certificate() },
	}
}

func (i *Identity) certificate() (*tls.Certificate, error) {
	if c := i.now.Load(); c != nil {
		return c.certificate, nil
	}
	return nil, errNotJoined
}

// JoinTLS speaks to a server before the node knows more of the cluster than
// the fingerprint in its join token.
func JoinTLS(token Token, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         protocols,
		ServerName:         "weir",
		InsecureSkipVerify: true, // VerifyConnection does it, by fingerprint
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyByFingerprint(token.Fingerprint, state.PeerCertificates)
		},
	}
}

func verifyByFingerprint(want string, chain []*x509.Certificate) error {
	for _, root := range chain {
		if fingerprint(root) != want {
			continue
		}
		if len(chain[0].URIs) != 1 {
			return fmt.Errorf("verify server: %w", errNoURI)
		}
		trustDomain := chain[0].URIs[0].Host
		v, err := NewVerifier(trustDomain, [][]byte{root.Raw})
		if err != nil {
			return fmt.Errorf("verify server: %w", err)
		}
		_, err = v.PeerOf(RoleServer, chain)
		return err
	}
	var seen []string
	for _, c := range chain {
		if c.IsCA {
			seen = append(seen, fingerprint(c))
		}
	}
	return fmt.Errorf("verify server: its authority is not the one that made the token (token's: %s, its own: %s)",
		want, strings.Join(seen, ", "))
}
