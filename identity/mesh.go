package identity

import (
	"crypto/tls"
	"fmt"
)

// MeshServerTLS serves the mesh: whoever calls must show, today, that it is an edge
// or a sidecar of this cluster. What is refused is told with the reason, which the
// caller does not see.
func (i *Identity) MeshServerTLS(refused func(error), protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     protocols,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.certificate() },
		// Only asked for: VerifyConnection verifies, by the roots that are in force then, and
		// lets nobody in who shows none.
		ClientAuth: tls.RequestClientCert,
		VerifyConnection: func(state tls.ConnectionState) error {
			err := i.verifyMesh(state)
			if err != nil {
				refused(err)
			}
			return err
		},
		// A resumed session would outlive its certificate.
		SessionTicketsDisabled: true,
	}
}

// verifyMesh says why a peer may not call.
func (i *Identity) verifyMesh(state tls.ConnectionState) error {
	id, err := i.verifyProxy(state.PeerCertificates)
	if err == nil && id.Role == RoleServer {
		err = fmt.Errorf("verify peer %s: it is no proxy", id)
	}
	return err
}

// MeshClientTLS speaks to the sidecars of one service, given by the URI of
// [ServiceURI], and to nobody else.
func (i *Identity) MeshClientTLS(service string, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           protocols,
		ServerName:           "mesh." + i.TrustDomain(),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.certificate() },
		// Who the peer is stands in its URI, not in its address.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			id, err := i.verifyProxy(state.PeerCertificates)
			if err == nil && id.String() != service {
				err = fmt.Errorf("verify peer: it is %s, not %s", id, service)
			}
			return err
		},
	}
}
