package node

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

// A certificate goes from its declaration to the edge's clients; its key lies
// open on no disk, and the edge has it still when it starts alone.
func TestHTTPS(t *testing.T) {
	serverDir, edgeDir := t.TempDir(), t.TempDir()
	address, gateway, upstream := freeport.Address(t), freeport.Address(t), newUpstream(t)
	server := run(t, serverConfig(t, serverDir, address)).ready()
	api := adminAPI(t, serverDir)
	edge := run(t, edgeConfig(edgeDir, address, joinToken(t, api))).ready()

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs := shop(t, gateway, upstream, "/books")
	listener := rs[0].GetGateway().Spec.Listeners[0]
	listener.Protocol = weirv1.Listener_HTTPS
	listener.Tls = &weirv1.ListenerTLS{CertificateRefs: []*weirv1.CertificateRef{{Name: "given"}, {Name: "made"}}}
	certificate := func(name string, spec *weirv1.CertificateSpec) *weirv1.Resource {
		return resource.Wrap(&weirv1.Certificate{Metadata: &weirv1.Metadata{Name: name}, Spec: spec})
	}
	apply(t, api, append(rs,
		certificate("given", &weirv1.CertificateSpec{Pem: pemOf(t, key, "given.example")}),
		certificate("made", &weirv1.CertificateSpec{Hostnames: []string{"made.example"}, SelfSigned: &weirv1.SelfSigned{}}))...)

	requireShown(t, api, gateway, "given")
	requireShown(t, api, gateway, "made")
	server.stop()
	edge.stop()
	secret, err := key.Bytes() // what must not be found
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{serverDir, edgeDir} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if bytes.Contains(data, secret) {
				t.Errorf("%s holds the private key in the clear", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	run(t, edgeConfig(edgeDir, address, "")).ready()
	if c, err := dialName(gateway, "given.example"); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

func pemOf(t *testing.T, key *ecdsa.PrivateKey, name string) *weirv1.PemCertificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &weirv1.PemCertificate{
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		PrivateKey:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}
}

func dialName(gateway, name string) (*tls.Conn, error) {
	return tls.Dial("tcp", gateway, &tls.Config{ServerName: name, NextProtos: []string{"h2"}, InsecureSkipVerify: true})
}

// requireShown: the edge shows the certificate whose fingerprint the API tells,
// and speaks HTTP/2.
func requireShown(t *testing.T, api weirv1connect.AdminServiceClient, gateway, name string) {
	t.Helper()
	got, err := api.Get(t.Context(), &weirv1.GetRequest{Ref: &weirv1.ResourceRef{Kind: "Certificate", Name: name}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := dialName(gateway, name+".example")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sum := sha256.Sum256(c.ConnectionState().PeerCertificates[0].Raw)
	if want := got.GetResource().GetCertificate().GetStatus().GetFingerprint(); hex.EncodeToString(sum[:]) != want || c.ConnectionState().NegotiatedProtocol != "h2" {
		t.Errorf("%s: shown %x by %q, declared %s", name, sum, c.ConnectionState().NegotiatedProtocol, want)
	}
}
