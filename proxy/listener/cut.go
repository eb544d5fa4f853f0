package listener

import (
	"crypto/tls"
	"crypto/x509"
)

// CutPeers breaks the connections of clients whose certificate is meant, of those that
// were verified by other means than crypto/tls's, and returns how many. One that comes
// meanwhile is judged by Config.Refuses, once it can be found here: one of the two sees it.
func (l *Listener) CutPeers(which func(*x509.Certificate) bool) (cut int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for t := range l.conns {
		c, ok := t.(*conn)
		if !ok {
			continue
		}
		if leaf := c.peer.Load(); leaf != nil && which(leaf) {
			c.departure.how.Store(left) // no exchange follows the one that is cut
			c.cut()
			cut++
		}
	}
	return cut
}

// CutPeers is Listener.CutPeers.
func (q *QUIC) CutPeers(which func(*x509.Certificate) bool) (cut int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for h, leaf := range q.conns {
		if leaf != nil && which(leaf) {
			h.Cut()
			cut++
		}
	}
	return cut
}

// verifiedPeer is the certificate of a client that the terms have verified; nil: they
// verify none.
func verifiedPeer(state tls.ConnectionState, terms any) *x509.Certificate {
	if v, ok := terms.(Verifier); ok && v.VerifiesPeers() && len(state.PeerCertificates) > 0 {
		return state.PeerCertificates[0]
	}
	return nil
}

func (c *Config) refuses(leaf *x509.Certificate) bool {
	return leaf != nil && c.Refuses != nil && c.Refuses(leaf)
}
