package proxy

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/weirmesh/weir/mesh"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/http3"
	"github.com/weirmesh/weir/proxy/router"
	"github.com/weirmesh/weir/resource"
)

// secureSocket is a socket that speaks TLS: its listeners by their hostnames.
// Which one a client speaks to is decided by the name that it asks for, at the
// handshake; a request for the host of another one is misdirected.
type secureSocket struct {
	byName map[string]*secureListener // "shop.example", "*.example", "" for any
	first  *secureListener            // for clients that ask for no name
	quic   bool                       // one of them speaks HTTP/3
}

// secureListener is the listeners of one socket and hostname. The oldest one's
// settings count, the certificates of all.
type secureListener struct {
	terms   terms
	forward bool // tell services who the client is
	require bool // of clients that they prove who they are
	// passthrough: TLS ends at the service; there is no config.
	passthrough bool
	mesh        bool // it is a sidecar's, whose clients are proxies
	config      *tls.Config
	quic        *tls.Config // for HTTP/3; nil: it is not spoken
	shown       shownCertificates
	tickets     *tickets
	turn        int64 // whose keys it has; under tickets.mu
}

// terms is what a client has agreed to with its handshake. They are compared
// with those in force when it sends a request.
type terms struct {
	hostname string
	trust    [sha256.Size]byte // what client certificates are verified by
	mesh     bool              // by the mesh
}

// VerifiesPeers implements listener.Verifier.
func (t terms) VerifiesPeers() bool { return t.mesh }

// socketOf is the socket of a listener.
func socketOf(l *router.Listener) bindKey {
	k := bindKey{port: l.Port}
	if l.Address.IsValid() && l.Address != netip.IPv6Unspecified() {
		k.address = l.Address.String()
	}
	return k
}

// compileSecurity makes what a generation needs for TLS.
func (p *Proxy) compileSecurity(s *swapped, table *router.Table[*rule]) (err error) {
	if s.next.challenges, err = p.compileChallenges(); err != nil {
		return err
	}
	s.next.sockets, s.clash, err = p.compileSockets(table)
	s.next.clash = s.clash
	return err
}

// compileSockets makes the secure sockets of a table. A socket speaks one
// protocol, that of its oldest listener; those that disagree are not served
// there, and the second error says so, which holds back nothing.
func (p *Proxy) compileSockets(table *router.Table[*rule]) (sockets map[bindKey]*secureSocket, clash, err error) {
	oldest := map[bindKey]*router.Listener{}
	parsed := map[*weirv1.Certificate]*tls.Certificate{}
	var clashes []error
	for l := range table.Listeners() {
		k := socketOf(l)
		first := oldest[k]
		if first == nil {
			first, oldest[k] = l, l
		}
		if l.Protocol != first.Protocol {
			clashes = append(clashes, fmt.Errorf("open listener %s/%s: port %d speaks %s for %s/%s", l.Gateway.Name, l.Name, l.Port,
				first.Protocol, first.Gateway.Name, first.Name))
			continue
		}
		if l.Protocol != weirv1.Listener_HTTPS && l.Protocol != weirv1.Listener_TLS {
			continue
		}
		if sockets == nil {
			sockets = map[bindKey]*secureSocket{}
		}
		if sockets[k] == nil {
			sockets[k] = &secureSocket{byName: map[string]*secureListener{}}
		}
		if err := p.addSecure(sockets[k], l, parsed); err != nil {
			return nil, nil, fmt.Errorf("%s, listener %s: %w", l.Gateway, l.Name, err)
		}
	}
	p.parsed = parsed
	return sockets, errors.Join(clashes...), nil
}

func (p *Proxy) addSecure(socket *secureSocket, l *router.Listener, parsed map[*weirv1.Certificate]*tls.Certificate) error {
	spec := p.listenerSpec(l)
	if spec.GetTls().GetMode() == weirv1.ListenerTLS_PASSTHROUGH {
		if socket.byName[l.Hostname] == nil {
			socket.byName[l.Hostname] = &secureListener{passthrough: true}
		}
		return nil
	}
	if l.Gateway.Name == mesh.Inbound {
		return p.addMesh(socket)
	}
	certificates, names, err := p.certificates(l.Gateway.Tenant, spec.GetTls(), parsed)
	if err != nil {
		return err
	}
	there := socket.byName[l.Hostname]
	if there == nil {
		if there, err = p.newSecureListener(l, spec); err != nil {
			return err
		}
		socket.byName[l.Hostname] = there
		socket.quic = socket.quic || there.quic != nil
		if socket.first == nil {
			socket.first = there
		}
	}
	if there.passthrough {
		return nil // the older listener of that name
	}
	for i := range certificates {
		there.shown.add(certificates[i], names[i])
	}
	return nil
}

// listenerSpec finds what is declared of a listener.
func (p *Proxy) listenerSpec(l *router.Listener) *weirv1.Listener {
	for _, spec := range p.desired.resources[l.Gateway].GetGateway().GetSpec().GetListeners() {
		if spec.GetName() == l.Name {
			return spec
		}
	}
	return nil
}

func (p *Proxy) newSecureListener(l *router.Listener, declared *weirv1.Listener) (*secureListener, error) {
	spec := declared.GetTls()
	s := &secureListener{terms: terms{hostname: l.Hostname}, tickets: p.tickets}
	s.config = &tls.Config{
		MinVersion:       tls.VersionTLS12,
		CipherSuites:     intermediate,
		CurvePreferences: curves,
		NextProtos:       []string{"h2", "http/1.1"},
		GetCertificate:   s.shown.choose,
	}
	if spec.GetProfile() == weirv1.ListenerTLS_MODERN || spec.GetMinVersion() == weirv1.ListenerTLS_TLS_1_3 {
		s.config.MinVersion = tls.VersionTLS13
	}
	if v := spec.GetClientValidation(); v != nil {
		if err := s.verifyClients(v); err != nil {
			return nil, err
		}
	}
	if l.Protocol == weirv1.Listener_TLS {
		s.config.NextProtos = nil // the service's, whatever it speaks
	} else if (declared.Http3 == nil || declared.GetHttp3()) && declared.GetProxyProtocol() == nil {
		// What comes over UDP bears no PROXY protocol header: it would come past those
		// who are to say who the client is.
		s.quic = s.config.Clone()
		s.quic.MinVersion = tls.VersionTLS13
		s.quic.NextProtos = []string{http3.Protocol}
	}
	s.tickets.refresh(s, time.Now())
	return s, nil
}

// intermediate are the suites of TLS 1.2 with forward secrecy and authenticated
// encryption. Those of TLS 1.3 all have both.
var intermediate = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// curves are those of both profiles: of Mozilla's, which say nothing of the hybrid
// yet, against who records today what a quantum computer reads one day.
var curves = []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384}

func (s *secureListener) verifyClients(v *weirv1.ClientValidation) error {
	authorities, err := resource.ParseAuthorities(v.GetCaCertificates())
	if err != nil {
		return fmt.Errorf("clientValidation: caCertificates: %w", err)
	}
	s.config.ClientCAs = x509.NewCertPool()
	for _, c := range authorities {
		s.config.ClientCAs.AddCert(c)
	}
	s.forward, s.require = v.GetForward(), v.GetMode() != weirv1.ClientValidation_ALLOW
	s.config.ClientAuth = tls.VerifyClientCertIfGiven
	if s.require {
		s.config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	s.terms.trust = sha256.Sum256(fmt.Append(nil, s.require, v.GetCaCertificates()))
	return nil
}

// find is the listener that serves a host: by its name, the longest wildcard, or
// the one for any.
func (s *secureSocket) find(host []byte) *secureListener {
	if l := s.byName[string(host)]; l != nil && len(host) > 0 {
		return l
	}
	var buf [maxHost + 2]byte
	for from := 0; ; {
		dot := bytes.IndexByte(host[from:], '.')
		if dot < 0 {
			return s.byName[""]
		}
		at := from + dot
		from = at + 1
		wildcard := append(append(buf[:0], '*', '.'), host[from:]...)
		if l := s.byName[string(wildcard)]; l != nil && at > 0 {
			return l
		}
	}
}

const maxHost = 256

// hostOf takes the host out of an authority, in the form in which the router
// compares it.
func hostOf(buf *[maxHost]byte, authority []byte) []byte {
	host := authority
	if len(host) > 0 && host[0] == '[' {
		host, _, _ = bytes.Cut(host[1:], []byte{']'})
	} else {
		host, _, _ = bytes.Cut(host, []byte{':'})
	}
	host = bytes.TrimSuffix(host, []byte{'.'})
	if len(host) > maxHost {
		return nil
	}
	n := copy(buf[:], host)
	for i, c := range buf[:n] {
		if 'A' <= c && c <= 'Z' {
			buf[i] = c | 0x20
		}
	}
	return buf[:n]
}
