package admin_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/admin/admintest"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// selfMade is a certificate that someone has made elsewhere, and its key.
func selfMade(t *testing.T, name string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))
}

func certificate(name string, spec *weirv1.CertificateSpec) *weirv1.Resource {
	return resource.Wrap(&weirv1.Certificate{Metadata: &weirv1.Metadata{Name: name}, Spec: spec})
}

func selfSigned(hostnames ...string) *weirv1.CertificateSpec {
	return &weirv1.CertificateSpec{Hostnames: hostnames, SelfSigned: &weirv1.SelfSigned{}}
}

// stored is a Certificate as it is in the store.
func (a *api) stored(t *testing.T, name string) *weirv1.Certificate {
	t.Helper()
	r, ok := a.cluster.View().Get(resource.Ref{Kind: "Certificate", Tenant: "default", Name: name})
	if !ok {
		t.Fatalf("no Certificate %s is stored", name)
	}
	return r.GetCertificate()
}

func TestSelfSignedIsMadeOnce(t *testing.T) {
	a := start(t, nil)
	apply := func(spec *weirv1.CertificateSpec) *weirv1.ApplyResult {
		t.Helper()
		done, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{certificate("shop", spec)}})
		if err != nil {
			t.Fatal(err)
		}
		return done.GetResults()[0]
	}
	first := apply(selfSigned("shop.example", "127.0.0.1"))
	made := a.stored(t, "shop").GetMaterial()
	leaf, err := x509.ParseCertificate(made.GetChain()[0])
	if err != nil || leaf.VerifyHostname("shop.example") != nil || leaf.VerifyHostname("127.0.0.1") != nil {
		t.Fatalf("it is not for what it is declared for: %v", err)
	}
	if status := first.GetResource().GetCertificate().GetStatus(); status.GetKeyType() != "ECDSA P-256" || !status.GetNotAfter().AsTime().Equal(leaf.NotAfter) {
		t.Errorf("its status is %v", status)
	}
	if again := apply(selfSigned("shop.example", "127.0.0.1")); again.GetOutcome() != weirv1.ApplyResult_UNCHANGED {
		t.Errorf("applied again it is %s", again.GetOutcome())
	}
	labelled := certificate("shop", selfSigned("shop.example", "127.0.0.1"))
	labelled.GetCertificate().Metadata.Labels = map[string]string{"team": "a"}
	if _, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{labelled}}); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(made, a.stored(t, "shop").GetMaterial()) {
		t.Error("a label makes it another certificate")
	}
	if apply(selfSigned("other.example")); bytes.Equal(made.GetChain()[0], a.stored(t, "shop").GetMaterial().GetChain()[0]) {
		t.Error("another name leaves the certificate as it was")
	}
}

func TestAPrivateKeyIsNeverShown(t *testing.T) {
	a := start(t, nil)
	chain, key := selfMade(t, "shop.example")
	spec := &weirv1.CertificateSpec{Pem: &weirv1.PemCertificate{Certificate: chain, PrivateKey: key}}
	done, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{certificate("shop", spec)}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.Get(t.Context(), &weirv1.GetRequest{Ref: &weirv1.ResourceRef{Kind: "certificate", Name: "shop"}})
	if err != nil {
		t.Fatal(err)
	}
	listed, err := a.List(t.Context(), &weirv1.ListRequest{Kind: "certificates"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	watch, err := a.Watch(ctx, &weirv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var put *weirv1.Resource
	for put == nil {
		m, err := watch.Receive()
		if err != nil {
			t.Fatal(err)
		}
		put = m.GetResource()
	}
	for where, r := range map[string]*weirv1.Resource{
		"apply": done.GetResults()[0].GetResource(), "get": got.GetResource(), "list": listed.GetResources()[0], "watch": put,
	} {
		c := r.GetCertificate()
		if c.GetMaterial() != nil || !resource.IsKeyHash(c.GetSpec().GetPem().GetPrivateKey()) {
			t.Errorf("%s shows %s", where, protojson.Format(r))
		}
	}

	stored := a.stored(t, "shop")
	secret, err := resource.ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	if want := (admintest.Sealer{}).Seal(admin.SealPurpose(resource.Ref{Tenant: "default", Name: "shop"}), der); !bytes.Equal(stored.GetMaterial().GetSealedKey(), want) {
		t.Error("what is stored is not the sealed key")
	}
	whole, err := proto.Marshal(stored)
	if err != nil || bytes.Contains(whole, der) || bytes.Contains(whole, []byte("PRIVATE KEY")) {
		t.Error("the store holds the key in the clear", err)
	}

	t.Run("the hash may be applied again", func(t *testing.T) {
		r := got.GetResource()
		r.GetCertificate().Metadata.Labels = map[string]string{"team": "a"}
		if _, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{r}}); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(stored.GetMaterial(), a.stored(t, "shop").GetMaterial()) {
			t.Error("the key is another one")
		}
	})
	t.Run("the key itself changes nothing", func(t *testing.T) {
		spec := &weirv1.CertificateSpec{Pem: &weirv1.PemCertificate{Certificate: chain, PrivateKey: key}}
		r := certificate("shop", spec)
		r.GetCertificate().Metadata.Labels = map[string]string{"team": "a"}
		done, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{r}})
		if err != nil || done.GetResults()[0].GetOutcome() != weirv1.ApplyResult_UNCHANGED {
			t.Error(done, err)
		}
	})
	t.Run("a hash of something else is refused", func(t *testing.T) {
		spec := &weirv1.CertificateSpec{Pem: &weirv1.PemCertificate{Certificate: chain, PrivateKey: resource.KeyHash(nil)}}
		_, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{certificate("shop", spec)}})
		if err == nil || !strings.Contains(err.Error(), "is the hash of a key that is not stored here") {
			t.Error(err)
		}
	})
	t.Run("the hash does not fit another certificate", func(t *testing.T) {
		other, _ := selfMade(t, "shop.example")
		spec := proto.CloneOf(got.GetResource().GetCertificate().GetSpec())
		spec.Pem.Certificate = other
		_, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{certificate("shop", spec)}})
		if err == nil || !strings.Contains(err.Error(), "which is not that of this certificate") {
			t.Error(err)
		}
	})
	t.Run("material that is sent does not count", func(t *testing.T) {
		r := certificate("own", selfSigned("own.example"))
		r.GetCertificate().Material = &weirv1.CertificateMaterial{Key: []byte("mine"), Chain: [][]byte{{1}}}
		if _, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{r}}); err != nil {
			t.Fatal(err)
		}
		if m := a.stored(t, "own").GetMaterial(); m.GetKey() != nil || len(m.GetChain()[0]) < 100 {
			t.Error(m)
		}
	})
}

func TestWithoutASealerNoCertificate(t *testing.T) {
	a := start(t, func(c *admin.Config) { c.Sealer = nil })
	_, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{certificate("shop", selfSigned("shop.example"))}})
	if err == nil || !strings.Contains(err.Error(), "nothing to seal keys with") {
		t.Error(err)
	}
}
