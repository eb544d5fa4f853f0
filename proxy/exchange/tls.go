package exchange

import "time"

// TLS is what is known of a client whose connection is secured. It belongs to
// the connection and never changes.
type TLS struct {
	Version    string // "TLSv1.3"
	ServerName string // what the client asked for; "" when it did not say
	// Peer is the certificate that the client showed and that was verified; nil
	// when it showed none.
	Peer *Peer
	// Terms is what the handler agreed to at the handshake, for itself to read.
	Terms any
}

// Peer is who a client proved to be.
type Peer struct {
	Subject string   // as in RFC 2253
	Hash    string   // SHA-256 of the certificate, in hexadecimal
	URIs    []string // SPIFFE IDs are among them
	DNS     []string
	// NotAfter is when the certificate runs out, which the connection may outlive.
	NotAfter time.Time
}
