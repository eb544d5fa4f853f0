package proxy

import (
	"crypto/tls"
	"strings"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// Secure implements listener.Security.
func (h *handler) Secure() bool { return h.socket(h.proxy.current.Load()) != nil }

func (h *handler) socket(g *generation) *secureSocket {
	if len(g.sockets) == 0 {
		return nil
	}
	return g.sockets[*h.key.Load()]
}

// Terms implements listener.Security. A client that asks for a name that nobody
// serves is told so (unrecognized_name), by a configuration without certificate.
func (h *handler) Terms(hello *tls.ClientHelloInfo) (*tls.Config, any) {
	generation := h.proxy.current.Load()
	if h.socket(generation) == nil {
		return &tls.Config{}, nil
	}
	if config := generation.challenges.certificateFor(hello); config != nil {
		return config, nil
	}
	l := h.asked(generation, hello)
	if l == nil {
		return &tls.Config{}, nil
	}
	return l.config, l.terms
}

// quicTerms is Terms for clients that speak HTTP/3.
func (h *handler) quicTerms(hello *tls.ClientHelloInfo) (*tls.Config, any) {
	l := h.asked(h.proxy.current.Load(), hello)
	if l == nil || l.quic == nil {
		return &tls.Config{}, nil
	}
	return l.quic, l.terms
}

// asked is the listener that a client asks for by its name; nil: there is none.
func (h *handler) asked(g *generation, hello *tls.ClientHelloInfo) *secureListener {
	socket := h.socket(g)
	if socket == nil {
		return nil
	}
	var buf [maxHost]byte
	l := socket.find(hostOf(&buf, []byte(hello.ServerName)))
	if l == nil && hello.ServerName == "" {
		l = socket.first
	}
	if l != nil {
		l.tickets.refresh(l, time.Now())
	}
	return l
}

// checkConnection: a request must have come by a connection that is secured on
// the terms of the listener that serves its host. Others would let a client
// reach a host without what that host asks for: encryption, or who it is. A
// browser that tries asks again on a connection of its own (RFC 9110, section
// 15.5.20).
func (s *session) checkConnection(x *exchange.Exchange) *Error {
	socket := s.socket(s.generation)
	if socket == nil {
		return nil
	}
	var buf [maxHost]byte
	l := socket.find(hostOf(&buf, x.Request.Authority))
	if l == nil || x.TLS == nil {
		return errMisdirected
	}
	if agreed, _ := x.TLS.Terms.(terms); agreed != l.terms {
		return errMisdirected
	}
	s.secured = l
	if l.mesh && x.Start.After(x.TLS.Peer.NotAfter) {
		return errExpired
	}
	return nil
}

var noteKeys = struct{ mtls, subject, uri, dns, hash, version, name []byte }{
	[]byte("connection\x00mtls"), []byte("connection\x00subject_peer_certificate"), []byte("connection\x00uri_san_peer_certificate"),
	[]byte("connection\x00dns_san_peer_certificate"), []byte("connection\x00sha256_peer_certificate_digest"),
	[]byte("connection\x00tls_version"), []byte("connection\x00requested_server_name"),
}

// noteConnection tells policies of the client's connection, under the names that
// Envoy's plugins ask for.
func noteConnection(x *exchange.Exchange) {
	note := func(key []byte, value string) {
		if value != "" {
			x.SetNote(key, []byte(value))
		}
	}
	note(noteKeys.version, x.TLS.Version)
	note(noteKeys.name, x.TLS.ServerName)
	peer := x.TLS.Peer
	if peer == nil {
		note(noteKeys.mtls, "\x00")
		return
	}
	note(noteKeys.mtls, "\x01")
	note(noteKeys.subject, peer.Subject)
	note(noteKeys.hash, peer.Hash)
	if len(peer.URIs) > 0 {
		note(noteKeys.uri, peer.URIs[0])
	}
	if len(peer.DNS) > 0 {
		note(noteKeys.dns, peer.DNS[0])
	}
}

var headerClientCert = []byte("X-Forwarded-Client-Cert")

// forwardClient tells the service who the client proved to be, in the form that
// Envoy has made common. What a client sends under that name is dropped, whether
// it is asked for or not.
func (s *session) forwardClient(x *exchange.Exchange) {
	if s.secured == nil || !s.secured.forward || x.TLS.Peer == nil {
		x.Request.Fields.Del("x-forwarded-client-cert")
		return
	}
	peer := x.TLS.Peer
	parts := []string{"Hash=" + peer.Hash, "Subject=" + quote(peer.Subject)}
	for _, uri := range peer.URIs {
		parts = append(parts, "URI="+quote(uri))
	}
	for _, name := range peer.DNS {
		parts = append(parts, "DNS="+quote(name))
	}
	x.Request.Fields.Set(headerClientCert, x.Copy(strings.Join(parts, ";")))
}

// quote keeps a value from being read as more than one.
func quote(s string) string {
	if !strings.ContainsAny(s, `,;="\`) {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
