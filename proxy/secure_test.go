package proxy_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
)

// ask sends one request by HTTP/1.1 and reads its answer.
func ask(t testing.TB, c net.Conn, host, more string) (*http.Response, string) {
	t.Helper()
	if _, err := fmt.Fprintf(c, "GET /path HTTP/1.1\r\nHost: %s\r\n%s\r\n", host, more); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func mustDialTLS(e *edge, serverName string, change ...func(*tls.Config)) *tls.Conn {
	e.t.Helper()
	c, err := e.dialTLS(serverName, change...)
	if err != nil {
		e.t.Fatal(err)
	}
	return c
}

func TestHTTPS(t *testing.T) {
	e := startEdge(t, gateway(secureListener("https", "", nil, "shop")), certificate(t, "shop", "shop.example"), echo(t), route("r", "/", "echo"))
	c := mustDialTLS(e, "shop.example")
	for range 3 {
		resp, body := ask(t, c, "shop.example", "X-Forwarded-Proto: http\r\n")
		if resp.StatusCode != 200 || body != "GET shop.example/path" || resp.Header.Get("Seen-Proto") != "https" {
			t.Errorf("got %s, %q, %v", resp.Status, body, resp.Header)
		}
	}
	if state := c.ConnectionState(); state.Version != tls.VersionTLS13 {
		t.Errorf("spoke %s", tls.VersionName(state.Version))
	}
}

func TestHTTPSAnswersPlainHTTP(t *testing.T) {
	e := startEdge(t, gateway(secureListener("https", "", nil, "shop")), certificate(t, "shop", "shop.example"))
	resp, body := dial(t, e.addr).exchange("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
	if resp.StatusCode != 400 || !strings.Contains(body, "HTTPS") {
		t.Errorf("got %s, %q", resp.Status, body)
	}
}

// A client is shown the certificate for the name that it asks for: the exact one
// before a wildcard, and of several the one that it can verify.
func TestCertificateByName(t *testing.T) {
	e := startEdge(t, gateway(secureListener("https", "", nil, "first", "wild", "exact", "old")),
		certificate(t, "first", "first.example"), certificate(t, "wild", "*.shop.example"), certificate(t, "exact", "eu.shop.example"),
		certificateWith(t, "old", rsaKey(t), "eu.shop.example"))
	onlyRSA := func(c *tls.Config) {
		c.MaxVersion = tls.VersionTLS12
		c.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	}
	for name, c := range map[string]struct {
		serverName string
		change     func(*tls.Config)
		want       string
		algorithm  x509.PublicKeyAlgorithm
	}{
		"exact":                  {"eu.shop.example", nil, "eu.shop.example", x509.ECDSA},
		"in any case":            {"EU.shop.example", nil, "eu.shop.example", x509.ECDSA},
		"wildcard":               {"us.shop.example", nil, "*.shop.example", x509.ECDSA},
		"the other kind of key":  {"eu.shop.example", onlyRSA, "eu.shop.example", x509.RSA},
		"none: the first":        {"elsewhere.example", nil, "first.example", x509.ECDSA},
		"below a wildcard's one": {"a.us.shop.example", nil, "first.example", x509.ECDSA},
		"no name: the first":     {"", nil, "first.example", x509.ECDSA},
	} {
		t.Run(name, func(t *testing.T) {
			conn := mustDialTLS(e, c.serverName, func(cfg *tls.Config) {
				cfg.InsecureSkipVerify = true // which one is shown is the question
				if c.change != nil {
					c.change(cfg)
				}
			})
			leaf := conn.ConnectionState().PeerCertificates[0]
			if leaf.DNSNames[0] != c.want || leaf.PublicKeyAlgorithm != c.algorithm {
				t.Errorf("got the certificate for %s, %s", leaf.DNSNames[0], leaf.PublicKeyAlgorithm)
			}
		})
	}
}

func TestListenerByName(t *testing.T) {
	e := startEdge(t, gateway(secureListener("a", "a.example", nil, "a"), secureListener("w", "*.w.example", nil, "w")),
		certificate(t, "a", "a.example"), certificate(t, "w", "*.w.example"), echo(t), route("r", "/", "echo"))
	t.Run("a name that nobody serves", func(t *testing.T) {
		_, err := e.dialTLS("b.example")
		if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("got %v", err)
		}
	})
	for _, c := range []struct {
		serverName, host string
		want             int
	}{
		{"a.example", "a.example", 200}, {"a.example", "A.example.:443", 200}, {"x.w.example", "x.w.example", 200}, {"x.w.example", "y.w.example", 200},
		{"a.example", "x.w.example", 421}, {"x.w.example", "a.example", 421}, {"a.example", "b.example", 421},
	} {
		t.Run(c.serverName+" asked for "+c.host, func(t *testing.T) {
			if resp, body := ask(t, mustDialTLS(e, c.serverName), c.host, ""); resp.StatusCode != c.want {
				t.Errorf("got %s, %s", resp.Status, body)
			}
		})
	}
}

func curve(id tls.CurveID) func(*tls.Config) {
	return func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{id} }
}

func TestVersionsOfTLS(t *testing.T) {
	old := func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }
	for name, c := range map[string]struct {
		tls    *weirv1.ListenerTLS
		change func(*tls.Config)
		ok     bool
	}{
		"1.2 by default":                 {&weirv1.ListenerTLS{}, old, true},
		"1.1 never":                      {&weirv1.ListenerTLS{}, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, false},
		"1.2 is not modern":              {&weirv1.ListenerTLS{Profile: weirv1.ListenerTLS_MODERN}, old, false},
		"1.3 at least, as was asked for": {&weirv1.ListenerTLS{MinVersion: weirv1.ListenerTLS_TLS_1_3}, old, false},
		"the hybrid":                     {&weirv1.ListenerTLS{Profile: weirv1.ListenerTLS_MODERN}, curve(tls.X25519MLKEM768), true},
		"X25519":                         {&weirv1.ListenerTLS{Profile: weirv1.ListenerTLS_MODERN}, curve(tls.X25519), true},
		"P-256":                          {&weirv1.ListenerTLS{}, curve(tls.CurveP256), true},
		"P-384":                          {&weirv1.ListenerTLS{}, curve(tls.CurveP384), true},
		"not P-521":                      {&weirv1.ListenerTLS{}, curve(tls.CurveP521), false},
		"no suite without forward secrecy": {&weirv1.ListenerTLS{}, func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			e := startEdge(t, gateway(secureListener("https", "", c.tls, "shop")), certificate(t, "shop", "shop.example"))
			if _, err := e.dialTLS("shop.example", c.change); (err == nil) != c.ok {
				t.Errorf("handshake: %v", err)
			}
		})
	}
}

// Another certificate is shown to those who connect from then on. Nobody who is
// connected notices.
func TestCertificateChangesUnderTraffic(t *testing.T) {
	e := startEdge(t, gateway(secureListener("https", "", nil, "shop")), certificate(t, "shop", "shop.example"), echo(t), route("r", "/", "echo"))
	before := mustDialTLS(e, "shop.example")
	ask(t, before, "shop.example", "")
	renewed := certificate(t, "shop", "shop.example")
	e.apply(renewed)
	if resp, _ := ask(t, before, "shop.example", ""); resp.StatusCode != 200 || resp.Close {
		t.Errorf("the connection from before: %s, close %v", resp.Status, resp.Close)
	}
	after := mustDialTLS(e, "shop.example")
	if got := after.ConnectionState().PeerCertificates[0]; string(got.Raw) != string(renewed.Material.Chain[0]) {
		t.Error("a new connection is shown the old certificate")
	}
}

func TestACertificateWithoutItsKeyIsRefused(t *testing.T) {
	e := startEdge(t, gateway(secureListener("https", "", nil, "shop")), certificate(t, "shop", "shop.example"), echo(t), route("r", "/", "echo"))
	broken := certificate(t, "shop", "shop.example")
	broken.Material.Key = nil
	if err := e.try(broken); err == nil || !strings.Contains(err.Error(), "Certificate shop: its key did not come with it") {
		t.Errorf("got %v", err)
	}
	if resp, _ := ask(t, mustDialTLS(e, "shop.example"), "shop.example", ""); resp.StatusCode != 200 {
		t.Errorf("the last good one is not in force: %s", resp.Status)
	}
}

// validating is a listener's TLS that asks clients who they are.
func validating(mode weirv1.ClientValidation_Mode, forward bool) *weirv1.ListenerTLS {
	return &weirv1.ListenerTLS{ClientValidation: &weirv1.ClientValidation{
		CaCertificates: testAuthority().pem(), Mode: mode, Forward: forward}}
}

func TestClientCertificates(t *testing.T) {
	mine := testAuthority().issue(t, ecKey(t), "client.example", "spiffe://weir.test/ns/default/svc/shop")
	foreign := newAuthority("Foreign").issue(t, ecKey(t), "client.example")
	with := func(c tls.Certificate) func(*tls.Config) {
		return func(cfg *tls.Config) {
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
		}
	}
	without := func(*tls.Config) {}
	const spoof = "X-Forwarded-Client-Cert: Hash=00;Subject=\"CN=root\"\r\n"
	for name, c := range map[string]struct {
		mode    weirv1.ClientValidation_Mode
		forward bool
		client  func(*tls.Config)
		ok      bool
		seen    string
	}{
		"required and shown":    {weirv1.ClientValidation_REQUIRE, true, with(mine), true, `Subject="CN=client.example";URI=spiffe://weir.test/ns/default/svc/shop;DNS=client.example`},
		"required, not shown":   {weirv1.ClientValidation_MODE_UNSPECIFIED, true, without, false, ""},
		"required, a bad one":   {weirv1.ClientValidation_REQUIRE, true, with(foreign), false, ""},
		"allowed and shown":     {weirv1.ClientValidation_ALLOW, true, with(mine), true, `Subject="CN=client.example"`},
		"allowed, not shown":    {weirv1.ClientValidation_ALLOW, true, without, true, ""},
		"allowed, a bad one":    {weirv1.ClientValidation_ALLOW, true, with(foreign), false, ""},
		"services are not told": {weirv1.ClientValidation_REQUIRE, false, with(mine), true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := startEdge(t, gateway(secureListener("https", "", validating(c.mode, c.forward), "shop")), certificate(t, "shop", "shop.example"), echo(t), route("r", "/", "echo"))
			conn, err := e.dialTLS("shop.example", c.client)
			if err == nil && !c.ok {
				_, err = conn.Read(make([]byte, 1)) // with TLS 1.3 the server's word comes after the handshake
			}
			if (err == nil) != c.ok {
				t.Fatalf("handshake: %v", err)
			}
			if !c.ok {
				return
			}
			resp, _ := ask(t, conn, "shop.example", spoof)
			if seen := resp.Header.Get("Seen-Client"); c.seen == "" && seen != "" || !strings.Contains(seen, c.seen) || strings.Contains(seen, "root") {
				t.Errorf("the service was told %q", seen)
			}
		})
	}
}

// A connection that was made before clients had to prove who they are does not
// serve as a way around that.
func TestClientValidationBindsOlderConnections(t *testing.T) {
	e := startEdge(t, gateway(secureListener("https", "", nil, "shop")), certificate(t, "shop", "shop.example"), echo(t), route("r", "/", "echo"))
	cache := tls.NewLRUClientSessionCache(4)
	resuming := func(c *tls.Config) { c.ClientSessionCache = cache }
	before := mustDialTLS(e, "shop.example", resuming)
	ask(t, before, "shop.example", "")
	e.apply(gateway(secureListener("https", "", validating(weirv1.ClientValidation_REQUIRE, false), "shop")))
	if resp, _ := ask(t, before, "shop.example", ""); resp.StatusCode != 421 {
		t.Errorf("the older connection: %s", resp.Status)
	}
	conn, err := e.dialTLS("shop.example", resuming)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if err == nil || conn.ConnectionState().DidResume {
		t.Errorf("an older session is resumed: %v", err)
	}
}

func TestSessionsAreResumed(t *testing.T) {
	e := startEdge(t, gateway(secureListener("https", "", nil, "shop")), certificate(t, "shop", "shop.example"), echo(t), route("r", "/", "echo"))
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			cache := tls.NewLRUClientSessionCache(4)
			connect := func() *tls.Conn {
				c := mustDialTLS(e, "shop.example", func(c *tls.Config) { c.ClientSessionCache, c.MaxVersion = cache, version })
				ask(t, c, "shop.example", "") // and read the ticket with it
				return c
			}
			connect()
			e.apply(certificate(t, "other", "other.example")) // tickets outlive a generation
			if !connect().ConnectionState().DidResume {
				t.Error("the second handshake is a whole one")
			}
		})
	}
}

// A port may change from HTTP to HTTPS while it is in use.
func TestAPortIsSecured(t *testing.T) {
	open := &weirv1.Listener{Name: "http", Port: 443, Protocol: weirv1.Listener_HTTP}
	e := startEdge(t, gateway(open), certificate(t, "shop", "shop.example"), echo(t), route("r", "/", "echo"))
	plain := dial(t, e.addr)
	const request = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"
	if resp, _ := plain.exchange(request); resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	e.apply(gateway(secureListener("https", "", nil, "shop")))
	if resp, _ := plain.exchange(request); resp.StatusCode != 421 {
		t.Errorf("a connection in the clear: %s", resp.Status)
	}
	if resp, _ := ask(t, mustDialTLS(e, "shop.example"), "shop.example", ""); resp.StatusCode != 200 {
		t.Errorf("by TLS: %s", resp.Status)
	}
	e.apply(gateway(open))
	if resp, _ := dial(t, e.addr).exchange(request); resp.StatusCode != 200 {
		t.Errorf("in the clear again: %s", resp.Status)
	}
}

// A port speaks the protocol of the listener that has had it longest. The other
// gateway's is told, and holds up nobody.
func TestListenersThatDisagree(t *testing.T) {
	e := startEdge(t, gateway(secureListener("https", "", nil, "shop")), certificate(t, "shop", "shop.example"), echo(t), route("r", "/", "echo"))
	other := gateway(&weirv1.Listener{Name: "http", Port: 443, Protocol: weirv1.Listener_HTTP, Hostname: "other.example"})
	other.Metadata.Name = "zzz"
	if err := e.try(other); err == nil || !strings.Contains(err.Error(), "open listener zzz/http: port 443 speaks HTTPS for public/https") {
		t.Errorf("got %v", err)
	}
	if e.Revision() != e.revision {
		t.Error("it holds back the revision")
	}
	if resp, _ := ask(t, mustDialTLS(e, "shop.example"), "shop.example", ""); resp.StatusCode != 200 {
		t.Errorf("got %s", resp.Status)
	}
}

func TestASlowHandshakeIsGivenUp(t *testing.T) {
	e := startEdgeWith(t, func(c *proxy.Config) { c.ClientHead = 50 * time.Millisecond },
		gateway(secureListener("https", "", nil, "shop")), certificate(t, "shop", "shop.example"))
	c := dial(t, e.addr)
	c.send("\x16\x03\x01") // the beginning of a ClientHello
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Error(err)
	}
}
