package proxy_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// challenged is a certificate whose names an authority asks about.
func challenged(t *testing.T, challenges ...*weirv1.AcmeChallenge) *weirv1.Certificate {
	c := certificate(t, "shop", "shop.example", "127.0.0.1")
	c.Material.Challenges = challenges
	return c
}

// The file of a challenge is there for whoever asks, on every listener, before
// any route; what is not asked for is the routes' as ever.
func TestHTTPChallenge(t *testing.T) {
	e := startEdge(t, gateway(&weirv1.Listener{Name: "http", Port: 80, Protocol: weirv1.Listener_HTTP}),
		challenged(t, &weirv1.AcmeChallenge{Type: weirv1.Acme_HTTP_01, Hostname: "shop.example", Token: "tok-1", KeyAuthorization: "tok-1.thumb"}),
		echo(t), route("r", "/", "echo"))
	for path, want := range map[string]string{
		"/.well-known/acme-challenge/tok-1": "tok-1.thumb",
		"/.well-known/acme-challenge/tok-2": "GET shop.example/.well-known/acme-challenge/tok-2",
		"/.well-known/acme-challenge/":      "GET shop.example/.well-known/acme-challenge/",
		"/path":                             "GET shop.example/path",
	} {
		resp, body := dial(t, e.addr).exchange("GET " + path + " HTTP/1.1\r\nHost: shop.example\r\n\r\n")
		if resp.StatusCode != 200 || body != want {
			t.Errorf("%s: %s, %q", path, resp.Status, body)
		}
	}
}

// A client that checks a name is shown its challenge's certificate; all others
// the listener's.
func TestTLSChallenge(t *testing.T) {
	e := startEdge(t, gateway(secureListener("https", "", nil, "shop")), challenged(t,
		&weirv1.AcmeChallenge{Type: weirv1.Acme_TLS_ALPN_01, Hostname: "shop.example", Token: "t", KeyAuthorization: "t.thumb"},
		&weirv1.AcmeChallenge{Type: weirv1.Acme_TLS_ALPN_01, Hostname: "127.0.0.1", Token: "t", KeyAuthorization: "t.thumb"}))
	identifier := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}
	for _, c := range []struct {
		name      string
		protocols []string
		challenge bool
		refused   string
	}{
		{name: "shop.example", protocols: []string{"acme-tls/1"}, challenge: true},
		{name: "1.0.0.127.in-addr.arpa", protocols: []string{"acme-tls/1"}, challenge: true},
		{name: "SHOP.example", protocols: []string{"acme-tls/1"}, challenge: true},
		{name: "shop.example", protocols: []string{"http/1.1"}},
		{name: "shop.example", protocols: []string{"acme-tls/1", "http/1.1"}},
		{name: "other.example", protocols: []string{"acme-tls/1"}, refused: "no application protocol"},
	} {
		conn, err := tls.Dial("tcp", e.addr, &tls.Config{ServerName: c.name, NextProtos: c.protocols, InsecureSkipVerify: true})
		if c.refused != "" {
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s by %q: %v", c.name, c.protocols, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s by %q: %v", c.name, c.protocols, err)
			continue
		}
		state := conn.ConnectionState()
		conn.Close()
		leaf := state.PeerCertificates[0]
		if has(leaf, identifier) != c.challenge || c.challenge && state.NegotiatedProtocol != "acme-tls/1" {
			t.Errorf("%s by %q: shown %s, speaks %q", c.name, c.protocols, leaf.Subject, state.NegotiatedProtocol)
		}
	}
}

func has(c *x509.Certificate, id asn1.ObjectIdentifier) bool {
	for _, extension := range c.Extensions {
		if extension.Id.Equal(id) && extension.Critical {
			return true
		}
	}
	return false
}
