package listener_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy/listener"
)

// always secures every connection with one certificate.
type always struct{ certificate tls.Certificate }

func (a always) Secure() bool { return true }

func (a always) Terms(*tls.ClientHelloInfo) (*tls.Config, any) {
	return &tls.Config{Certificates: []tls.Certificate{a.certificate}}, nil
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Those who do not come to an end with their handshake keep a place, and others
// wait for one; a listener that is closed waits for none of them.
func TestHandshakesAtOnce(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := listener.Serve(socket, listener.Config{Handler: &refusing{}, Security: always{selfSigned(t)}, Handshakes: 1,
		Handshake: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", socket.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	silent := dial()
	for _, accepted := l.Connections(); accepted < 1; _, accepted = l.Connections() {
		time.Sleep(time.Millisecond)
	}
	done := make(chan error, 1)
	go func() {
		done <- tls.Client(dial(), &tls.Config{InsecureSkipVerify: true}).Handshake()
	}()
	silent.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(30 * time.Second); l.Unsecured() != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d handshakes failed", l.Unsecured())
		}
	}
	dial() // says nothing
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
