package node

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/letsencrypt/challtestsrv"
	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"

	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

const hmacKey = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"

// pebble is a real ACME authority, which finds every name at 127.0.0.1 and asks
// for its challenges at the ports of a gateway.
type pebble struct {
	*httptest.Server
	accounts *db.MemoryStore
}

func startPebble(t *testing.T, httpGateway, httpsGateway string, requireExternal bool) *pebble {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_AUTHZREUSE", "0")
	names := freeport.Address(t)
	dns, err := challtestsrv.New(challtestsrv.Config{DNSAddrs: []string{names}, Log: stdlog.New(io.Discard, "", 0)})
	if err != nil {
		t.Fatal(err)
	}
	dns.SetDefaultDNSIPv4("127.0.0.1")
	dns.SetDefaultDNSIPv6("")
	go dns.Run()
	t.Cleanup(dns.Shutdown)
	log, store := stdlog.New(io.Discard, "", 0), db.NewMemoryStore()
	if err := store.AddExternalAccountKeyByID("kid-1", hmacKey); err != nil {
		t.Fatal(err)
	}
	authority := ca.New(log, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: 3600}, "short": {ValidityPeriod: 12}})
	checks := va.New(log, portOf(t, httpGateway), portOf(t, httpsGateway), true, names, store)
	front := wfe.New(log, store, checks, authority, []string{"pebble.example"}, true, requireExternal, 1, 1)
	server := httptest.NewTLSServer(front.Handler())
	t.Cleanup(server.Close)
	return &pebble{server, store}
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (p *pebble) source(challenges ...weirv1.Acme_Challenge) *weirv1.Acme {
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw})
	return &weirv1.Acme{Directory: p.URL + wfe.DirectoryPath, Email: "ops@shop.example", Challenges: challenges, CaCertificates: string(roots)}
}

// acmeSetup is a server, an edge with a listener for each scheme, and pebble.
type acmeSetup struct {
	t           *testing.T
	api         weirv1connect.AdminServiceClient
	http, https string
	pebble      *pebble
	rest        []*weirv1.Resource
}

func startACME(t *testing.T, requireExternal bool) *acmeSetup {
	dir, address := t.TempDir(), freeport.Address(t)
	s := &acmeSetup{t: t, http: freeport.Address(t), https: freeport.Address(t)}
	run(t, serverConfig(t, dir, address)).ready()
	s.api = adminAPI(t, dir)
	run(t, edgeConfig(t.TempDir(), address, joinToken(t, s.api))).ready()
	s.pebble = startPebble(t, s.http, s.https, requireExternal)
	s.rest = shop(t, s.http, newUpstream(t), "/books")
	gateway := s.rest[0].GetGateway()
	gateway.Spec.Listeners = append(gateway.Spec.Listeners, &weirv1.Listener{
		Name: "https", Port: uint32(portOf(t, s.https)), Address: "127.0.0.1", Protocol: weirv1.Listener_HTTPS,
		Tls: &weirv1.ListenerTLS{CertificateRefs: []*weirv1.CertificateRef{{Name: "shop"}}},
	})
	return s
}

func (s *acmeSetup) declare(acme *weirv1.Acme, hostnames ...string) {
	s.t.Helper()
	certificate := resource.Wrap(&weirv1.Certificate{Metadata: &weirv1.Metadata{Name: "shop"}, Spec: &weirv1.CertificateSpec{Hostnames: hostnames, Acme: acme}})
	apply(s.t, s.api, append(slices.Clone(s.rest), certificate)...)
}

// await waits until the certificate's condition has a reason.
func (s *acmeSetup) await(reason string) *weirv1.Certificate {
	s.t.Helper()
	var last string
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		got, err := s.api.Get(s.t.Context(), &weirv1.GetRequest{Ref: &weirv1.ResourceRef{Kind: "Certificate", Name: "shop"}})
		if err != nil {
			s.t.Fatal(err)
		}
		c := got.GetResource().GetCertificate()
		for _, condition := range c.GetStatus().GetConditions() {
			if condition.GetType() == "Issued" && condition.GetReason() == reason {
				return c
			}
			last = condition.String()
		}
	}
	s.t.Fatalf("the certificate does not become %s: %s", reason, last)
	return nil
}

// shown waits until the edge shows a certificate that so says it is right.
func (s *acmeSetup) shown(name string, so func(*x509.Certificate) bool) {
	s.t.Helper()
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		c, err := tls.Dial("tcp", s.https, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err != nil {
			s.t.Fatal(err)
		}
		leaf := c.ConnectionState().PeerCertificates[0]
		c.Close()
		if so(leaf) {
			return
		}
	}
	s.t.Fatal("the edge does not show it")
}

func byPebble(c *x509.Certificate) bool { return strings.Contains(c.Issuer.CommonName, "Pebble") }

// A certificate is ordered by either challenge, and shown; until it comes the
// listener shows another one.
func TestACME(t *testing.T) {
	for name, challenge := range map[string]weirv1.Acme_Challenge{"HTTP-01": weirv1.Acme_HTTP_01, "TLS-ALPN-01": weirv1.Acme_TLS_ALPN_01} {
		t.Run(name, func(t *testing.T) {
			s := startACME(t, false)
			s.declare(s.pebble.source(challenge), "shop.example", "www.shop.example")
			s.shown("shop.example", func(*x509.Certificate) bool { return true })
			c := s.await("Issued")
			if c.GetMaterial() != nil {
				t.Error("the key leaves by the admin API")
			}
			s.shown("shop.example", byPebble)
			s.shown("www.shop.example", byPebble)
			// The challenge's answer is gone with the order.
			if status, _ := get(t, "http://"+s.http+"/.well-known/acme-challenge/x"); status != http.StatusNotFound {
				t.Errorf("an unknown challenge is answered %d", status)
			}
			// Applied again it is the same; for another name it is ordered again.
			before := c.GetStatus().GetFingerprint()
			s.declare(s.pebble.source(challenge), "shop.example", "www.shop.example")
			if again := s.await("Issued").GetStatus().GetFingerprint(); again != before {
				t.Error("applied again it was ordered again")
			}
			s.declare(s.pebble.source(challenge), "shop.example", "eu.shop.example")
			s.shown("eu.shop.example", func(c *x509.Certificate) bool { return c.VerifyHostname("eu.shop.example") == nil && byPebble(c) })
		})
	}
}

// What an authority does not want to do is told, and leaves what is shown alone.
func TestACMERefused(t *testing.T) {
	s := startACME(t, true)
	s.declare(s.pebble.source(), "shop.example") // without the external account that it asks for
	c := s.await("OrderFailed")
	if m := c.GetStatus().GetConditions()[0].GetMessage(); !strings.Contains(m, "xternal") {
		t.Errorf("it says %q", m)
	}
	s.shown("shop.example", func(c *x509.Certificate) bool { return !byPebble(c) })

	// Declared as it should be, it is tried at once.
	source := s.pebble.source()
	source.ExternalAccount = &weirv1.ExternalAccount{KeyId: "kid-1", HmacKey: hmacKey}
	s.declare(source, "shop.example")
	c = s.await("Issued")
	if shown := c.GetSpec().GetAcme().GetExternalAccount().GetHmacKey(); !resource.IsKeyHash(shown) {
		t.Errorf("the HMAC key is shown: %q", shown)
	}
	// What was read can be applied.
	s.declare(c.GetSpec().GetAcme(), "shop.example")
}

// A certificate of some seconds is renewed by itself.
func TestACMERenews(t *testing.T) {
	s := startACME(t, false)
	source := s.pebble.source()
	source.Profile = "short"
	s.declare(source, "shop.example")
	first := s.await("Issued").GetStatus().GetFingerprint()
	for limit := time.Now().Add(patience); s.await("Issued").GetStatus().GetFingerprint() == first; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it is not renewed")
		}
	}
}
