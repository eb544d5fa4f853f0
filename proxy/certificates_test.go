package proxy_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// authority signs what tests need.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

var testAuthority = sync.OnceValue(func() *authority { return newAuthority("Test authority") })

func newAuthority(name string) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return &authority{certificate, key}
}

func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}))
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// issue signs a certificate. A name with a colon is a URI.
func (a *authority) issue(t testing.TB, key crypto.Signer, names ...string) tls.Certificate {
	t.Helper()
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, NotAfter: time.Now().Add(time.Hour)}
	for _, name := range names {
		if u, err := url.Parse(name); err == nil && u.Scheme != "" {
			template.URIs = append(template.URIs, u)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
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

func ecKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certificateWith declares one of the test's authority, as proxies get it.
func certificateWith(t testing.TB, name string, key crypto.Signer, hostnames ...string) *weirv1.Certificate {
	t.Helper()
	issued := testAuthority().issue(t, key, hostnames...)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &weirv1.Certificate{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.CertificateSpec{Hostnames: hostnames},
		Material: &weirv1.CertificateMaterial{Chain: issued.Certificate, Key: der}}
}

func certificate(t testing.TB, name string, hostnames ...string) *weirv1.Certificate {
	t.Helper()
	return certificateWith(t, name, ecKey(t), hostnames...)
}

// secureListener declares a listener on port 443.
func secureListener(name, hostname string, tls *weirv1.ListenerTLS, certificates ...string) *weirv1.Listener {
	if tls == nil {
		tls = &weirv1.ListenerTLS{}
	}
	for _, c := range certificates {
		tls.CertificateRefs = append(tls.CertificateRefs, &weirv1.CertificateRef{Name: c})
	}
	return &weirv1.Listener{Name: name, Port: 443, Protocol: weirv1.Listener_HTTPS, Hostname: hostname, Tls: tls}
}

// gateway declares the one that routes of tests are attached to.
func gateway(listeners ...*weirv1.Listener) *weirv1.Gateway {
	return &weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "public"}, Spec: &weirv1.GatewaySpec{Listeners: listeners}}
}

// echo is a service that answers with what it was asked.
func echo(t testing.TB) *weirv1.Service {
	return service("echo", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Seen-Proto", r.Header.Get("X-Forwarded-Proto"))
		w.Header().Set("Seen-Client", r.Header.Get("X-Forwarded-Client-Cert"))
		w.Write([]byte(r.Method + " " + r.Host + r.URL.RequestURI()))
	}))
}

// dialTLS shakes hands with the edge, as a client that wants HTTP/1.1 unless
// change says otherwise.
func (e *edge) dialTLS(serverName string, change ...func(*tls.Config)) (*tls.Conn, error) {
	e.t.Helper()
	config := &tls.Config{ServerName: serverName, RootCAs: testAuthority().pool(), NextProtos: []string{"http/1.1"}}
	for _, c := range change {
		c(config)
	}
	raw := dial(e.t, e.addr)
	c := tls.Client(raw.TCPConn, config)
	return c, c.Handshake()
}
