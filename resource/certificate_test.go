package resource_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// pair makes a certificate for names and its key, both in PEM.
func pair(t testing.TB, key crypto.Signer, names ...string) (certificate, private string) {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]},
		NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), DNSNames: names}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestCertificate(t *testing.T) {
	certificate, key := pair(t, ecKey(t), "shop.example", "*.shop.example")
	other, _ := pair(t, ecKey(t), "other.example")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weakKey := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(weak)}))
	hash := resource.KeyHash([]byte("any"))
	spec := func(certificate, key string, hostnames ...string) *weirv1.CertificateSpec {
		return &weirv1.CertificateSpec{Hostnames: hostnames, Pem: &weirv1.PemCertificate{Certificate: certificate, PrivateKey: key}}
	}
	for name, c := range map[string]struct {
		spec *weirv1.CertificateSpec
		want []string
	}{
		"a certificate and its key":          {spec(certificate, key), nil},
		"names that the certificate is for":  {spec(certificate, key, "shop.example", "*.shop.example", "eu.shop.example"), nil},
		"the hash of a key":                  {spec(certificate, hash), nil},
		"no source":                          {&weirv1.CertificateSpec{}, []string{"spec: needs a source: selfSigned, pem or acme"}},
		"two sources":                        {&weirv1.CertificateSpec{SelfSigned: &weirv1.SelfSigned{}, Pem: &weirv1.PemCertificate{}}, []string{"spec.pem: stands beside selfSigned: give one source"}},
		"self-signed for nothing":            {&weirv1.CertificateSpec{SelfSigned: &weirv1.SelfSigned{}}, []string{"spec.hostnames: needs at least one hostname"}},
		"the cluster's authority":            {&weirv1.CertificateSpec{Authority: &weirv1.OwnAuthority{}}, []string{"spec.authority: is not offered yet"}},
		"no certificate":                     {spec("", key), []string{"spec.pem.certificate: is required"}},
		"no PEM":                             {spec("certificate", key), []string{"spec.pem.certificate: holds 0 certificates"}},
		"a key among the certificates":       {spec(certificate+key, key), []string{"spec.pem.certificate: holds a private key"}},
		"a chain in the wrong order":         {spec(certificate+other, key), []string{"spec.pem.certificate: is out of order: certificate 1"}},
		"no key":                             {spec(certificate, ""), []string{"spec.pem.privateKey: is required"}},
		"another certificate's key":          {spec(other, key), []string{"spec.pem.privateKey: is not the key of the certificate"}},
		"a key that is no key":               {spec(certificate, certificate), []string{"spec.pem.privateKey: holds no private key"}},
		"an encrypted key":                   {spec(certificate, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), []string{"spec.pem.privateKey: is encrypted"}},
		"a weak key":                         {spec(certificate, weakKey), []string{"spec.pem.privateKey: is an RSA key of 1024 bits"}},
		"a name that it is not for":          {spec(certificate, key, "other.example"), []string{`spec.hostnames[0]: "other.example" is not in the certificate, which is for shop.example, *.shop.example`}},
		"a wildcard that it does not bear":   {spec(certificate, key, "*.eu.shop.example"), []string{`spec.hostnames[0]: "*.eu.shop.example" is not in the certificate`}},
		"a hostname that is none":            {spec(certificate, key, "Shop.example"), []string{`spec.hostnames[0]: "Shop.example" must be lower case`}},
		"a hostname that is there two times": {spec(certificate, key, "shop.example", "shop.example"), []string{`spec.hostnames[1]: the hostname "shop.example" is there twice`}},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, resource.Wrap(&weirv1.Certificate{Metadata: &weirv1.Metadata{Name: "c"}, Spec: c.spec}), c.want...)
		})
	}
}

func TestACMECertificate(t *testing.T) {
	spec := func(a *weirv1.Acme, hostnames ...string) *weirv1.CertificateSpec {
		return &weirv1.CertificateSpec{Hostnames: hostnames, Acme: a}
	}
	hmac := "c2l4dGVlbiBieXRlcyBvciBtb3Jl"
	for name, c := range map[string]struct {
		spec *weirv1.CertificateSpec
		want []string
	}{
		"with all defaults": {spec(&weirv1.Acme{}, "shop.example"), nil},
		"with everything": {spec(&weirv1.Acme{Directory: "https://acme.example/dir", Email: "ops@shop.example", Profile: "short",
			Challenges: []weirv1.Acme_Challenge{weirv1.Acme_TLS_ALPN_01}, KeyType: weirv1.Acme_RSA_2048,
			ExternalAccount: &weirv1.ExternalAccount{KeyId: "k", HmacKey: hmac}}, "shop.example", "192.0.2.1"), nil},
		"a padded HMAC key":        {spec(&weirv1.Acme{ExternalAccount: &weirv1.ExternalAccount{KeyId: "k", HmacKey: "MDEyMzQ1Njc4OWFiY2RlZg=="}}, "shop.example"), nil},
		"for nothing":              {spec(&weirv1.Acme{}), []string{"spec.hostnames: needs at least one hostname"}},
		"a wildcard":               {spec(&weirv1.Acme{}, "*.shop.example"), []string{"spec.hostnames[0]: \"*.shop.example\": authorities give out wildcards"}},
		"a directory in the clear": {spec(&weirv1.Acme{Directory: "http://acme.example/dir"}, "shop.example"), []string{"spec.acme.directory:"}},
		"no e-mail address":        {spec(&weirv1.Acme{Email: "Ops <ops@shop.example>"}, "shop.example"), []string{"spec.acme.email:"}},
		"a challenge twice": {spec(&weirv1.Acme{Challenges: []weirv1.Acme_Challenge{weirv1.Acme_HTTP_01, weirv1.Acme_HTTP_01}}, "shop.example"),
			[]string{"spec.acme.challenges[1]: HTTP_01 stands there twice"}},
		"no authority":          {spec(&weirv1.Acme{CaCertificates: "none"}, "shop.example"), []string{"spec.acme.caCertificates:"}},
		"no name of the key":    {spec(&weirv1.Acme{ExternalAccount: &weirv1.ExternalAccount{HmacKey: hmac}}, "shop.example"), []string{"spec.acme.externalAccount.keyId:"}},
		"a HMAC key of nothing": {spec(&weirv1.Acme{ExternalAccount: &weirv1.ExternalAccount{KeyId: "k"}}, "shop.example"), []string{"spec.acme.externalAccount.hmacKey:"}},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, resource.Wrap(&weirv1.Certificate{Metadata: &weirv1.Metadata{Name: "c"}, Spec: c.spec}), c.want...)
		})
	}
}

func FuzzParseCertificate(f *testing.F) {
	certificate, key := pair(f, ecKey(f), "shop.example")
	f.Add(certificate, key)
	f.Add("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	f.Fuzz(func(t *testing.T, certificate, key string) {
		if chain, err := resource.ParseChain(certificate); err == nil && len(chain) == 0 {
			t.Error("a chain of nothing")
		}
		if k, err := resource.ParseKey(key); (k == nil) == (err == nil) {
			t.Errorf("key %v, error %v", k, err)
		}
	})
}
