package proxy_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/weirmesh/weir/policy/access"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
)

// issueFor is issue for a time.
func (a *authority) issueFor(t testing.TB, life time.Duration, uri string) tls.Certificate {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	key := ecKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), URIs: []*url.URL{u}, NotAfter: time.Now().Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// A conversation in the mesh ends when a certificate of either side runs out, and not
// before: the caller's is looked at by the callee, and the callee's by the caller.
func TestConversationsEndWithTheirCertificates(t *testing.T) {
	const long, short = time.Hour, 3 * time.Second
	books := func(_, service string) string { return "spiffe://td/ns/default/svc/" + service }
	for name, life := range map[string]struct{ caller, callee time.Duration }{
		"the caller's": {short, long}, "the callee's": {long, short}, "neither's": {long, long},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAuthority("mesh")
			caller, callee := a.issueFor(t, life.caller, books("", "shop")), a.issueFor(t, life.callee, books("", "books"))
			inbound := startEdgeWith(t, func(c *proxy.Config) {
				c.Policies = access.NewHost()
				c.Mesh = &proxy.Mesh{Identity: books, Client: func(string) *tls.Config { return nil }, Server: func(protocols ...string) *tls.Config {
					return &tls.Config{Certificates: []tls.Certificate{callee}, ClientCAs: a.pool(), ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: protocols}
				}}
			})
			own := route("mesh.inbound", "/", "mesh.local")
			own.Spec.ParentRefs[0].Name = "mesh.inbound"
			inbound.apply(service("mesh.local", chat(t)), own, &weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "mesh.inbound"}, Spec: &weirv1.GatewaySpec{
				Listeners: []*weirv1.Listener{{Name: "mesh", Port: 7443, Protocol: weirv1.Listener_HTTPS}}}})
			outbound := startEdgeWith(t, func(c *proxy.Config) {
				c.Mesh = &proxy.Mesh{Identity: books, Client: func(string) *tls.Config {
					return &tls.Config{Certificates: []tls.Certificate{caller}, RootCAs: a.pool(), InsecureSkipVerify: true}
				}}
			}, service("books"), route("r", "/", "books"), &weirv1.Instance{Metadata: &weirv1.Metadata{Name: "books-1"},
				Spec: &weirv1.InstanceSpec{Service: "books", Node: "books-1", Address: inbound.addr}})
			c := dial(t, outbound.addr)
			c.send(upgrade)
			if resp := c.head("GET"); resp.StatusCode != 101 {
				t.Fatalf("got %s", resp.Status)
			}
			heard(t, c.in, "welcome ")
			c.send("hello")
			heard(t, c.in, "hello")
			if life.caller == life.callee {
				time.Sleep(short + time.Second)
				c.send("still here")
				heard(t, c.in, "still here")
				return
			}
			rest := make([]byte, 1)
			n, err := c.in.Read(rest)
			ends := caller.Leaf.NotAfter
			if life.callee == short {
				ends = callee.Leaf.NotAfter
			}
			if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || n > 0 || time.Now().Before(ends) {
				t.Errorf("at %v, which is to be %v, came %q, %v", time.Now(), ends, rest[:n], err)
			}
		})
	}
}
