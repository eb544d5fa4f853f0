package listener

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/wire"
)

// Security decides how a listener's connections are secured. It may change its
// mind at any time, for connections that are accepted from then on.
type Security interface {
	// Secure: a connection that is accepted now begins with a TLS handshake.
	Secure() bool
	// Terms is what a client is offered, and what the handler wants to find
	// again in the exchanges of its connection.
	Terms(*tls.ClientHelloInfo) (config *tls.Config, terms any)
}

// Verifier is met by terms under which no handshake ends well unless the client's
// certificate was verified, by other means than those of crypto/tls.
type Verifier interface{ VerifiesPeers() bool }

// secured is a connection's TLS.
type secured struct {
	*tls.Conn
	socket net.Conn
	terms  any
	facts  *exchange.TLS
}

// secure puts TLS around a socket. The handshake is yet to come.
func (l *Listener) secure(nc net.Conn) *secured {
	s := &secured{socket: nc}
	s.Conn = tls.Server(nc, &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (config *tls.Config, _ error) {
			config, s.terms = l.cfg.Security.Terms(hello)
			return config, nil
		},
	})
	return s
}

// handshake secures a connection. How many are under way at once is bounded: they
// are what costs most, and need no proof of who asks for them.
func (c *conn) handshake() bool {
	l := c.listener
	until := time.Now().Add(l.cfg.Handshake)
	if !l.takePlace(until) {
		l.unsecured.Add(1)
		return false
	}
	defer func() { <-l.handshakes }()
	s := c.secured
	_ = s.SetDeadline(until) // fails only on a closed connection, as the handshake then does
	if c.state.Load() == gone {
		return false // closed before there was a deadline to bring forward
	}
	if err := s.Handshake(); err != nil {
		l.unsecured.Add(1)
		tellPlainClient(err)
		return false
	}
	_ = s.SetDeadline(time.Time{})
	s.facts = factsOf(s.ConnectionState(), s.terms)
	leaf := verifiedPeer(s.ConnectionState(), s.terms)
	c.peer.Store(leaf) // before it is judged
	return !l.cfg.refuses(leaf)
}

// takePlace waits for a place among those that shake hands.
func (l *Listener) takePlace(until time.Time) bool {
	select {
	case l.handshakes <- struct{}{}:
		return true
	default:
	}
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	select {
	case l.handshakes <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// tellPlainClient answers one that speaks HTTP/1.1 where TLS is spoken: people
// forget the "s".
func tellPlainClient(err error) {
	var record tls.RecordHeaderError
	if !errors.As(err, &record) || record.Conn == nil {
		return
	}
	switch string(record.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		_, _ = io.WriteString(record.Conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"+
			"This port speaks HTTPS.\n") // who cannot read it has asked for nothing better
	}
}

func factsOf(state tls.ConnectionState, terms any) *exchange.TLS {
	facts := &exchange.TLS{Version: "TLSv1.3", ServerName: state.ServerName, Terms: terms}
	if state.Version == tls.VersionTLS12 {
		facts.Version = "TLSv1.2"
	}
	verifier, _ := terms.(Verifier)
	if len(state.VerifiedChains) > 0 || verifier != nil && verifier.VerifiesPeers() && len(state.PeerCertificates) > 0 {
		leaf := state.PeerCertificates[0]
		sum := sha256.Sum256(leaf.Raw)
		facts.Peer = &exchange.Peer{Subject: leaf.Subject.String(), Hash: hex.EncodeToString(sum[:]), DNS: leaf.DNSNames, NotAfter: leaf.NotAfter}
		for _, uri := range leaf.URIs {
			facts.Peer.URIs = append(facts.Peer.URIs, uri.String())
		}
	}
	return facts
}

// newConn makes a connection of a socket.
func newConn(e entry) *conn {
	l, nc := e.listener, e.socket
	c := &conn{entry: e, scheme: schemeHTTP}
	if l.cfg.Security != nil && l.cfg.Security.Secure() {
		c.secured, c.scheme = l.secure(nc), schemeHTTPS
		nc = c.secured.Conn
	}
	c.wire = wire.New(nc)
	return c
}

var (
	schemeHTTP  = []byte("http")
	schemeHTTPS = []byte("https")
)

// closeNow closes a connection without a word, so that nobody waits. What was
// being sent breaks off.
func (c *conn) closeNow() {
	if c.secured != nil {
		if t, ok := c.secured.socket.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = c.secured.socket.Close()
	}
	c.wire.CloseBroken()
}
