package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/identity/identitytest"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

var noon = time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)

// issued is a certificate of 90 days that has so many left at noon.
func issued(t *testing.T, left int, names ...string) [][]byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	until := noon.Add(time.Duration(left) * 24 * time.Hour)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotBefore: until.Add(-90 * 24 * time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{der}
}

func declared(name, directory string, hostnames ...string) *weirv1.Certificate {
	return &weirv1.Certificate{Metadata: &weirv1.Metadata{Name: name, Tenant: "default"}, Spec: &weirv1.CertificateSpec{
		Hostnames: hostnames, Acme: &weirv1.Acme{Directory: directory}}, Material: &weirv1.CertificateMaterial{}}
}

func TestWhenACertificateIsOrdered(t *testing.T) {
	for name, c := range map[string]struct {
		material *weirv1.CertificateMaterial
		due      bool
	}{
		"nothing has come yet":           {&weirv1.CertificateMaterial{Chain: issued(t, 80, "shop.example")}, true},
		"fresh":                          {&weirv1.CertificateMaterial{AcmeDirectory: resource.LetsEncrypt, Chain: issued(t, 80, "shop.example")}, false},
		"more than a third left":         {&weirv1.CertificateMaterial{AcmeDirectory: resource.LetsEncrypt, Chain: issued(t, 31, "shop.example")}, false},
		"less than a third left":         {&weirv1.CertificateMaterial{AcmeDirectory: resource.LetsEncrypt, Chain: issued(t, 29, "shop.example")}, true},
		"run out":                        {&weirv1.CertificateMaterial{AcmeDirectory: resource.LetsEncrypt, Chain: issued(t, -1, "shop.example")}, true},
		"another authority's":            {&weirv1.CertificateMaterial{AcmeDirectory: "https://other.example/", Chain: issued(t, 80, "shop.example")}, true},
		"for another name":               {&weirv1.CertificateMaterial{AcmeDirectory: resource.LetsEncrypt, Chain: issued(t, 80, "other.example")}, true},
		"for one name more":              {&weirv1.CertificateMaterial{AcmeDirectory: resource.LetsEncrypt, Chain: issued(t, 80, "shop.example", "www.shop.example")}, true},
		"the name in the other spelling": {&weirv1.CertificateMaterial{AcmeDirectory: resource.LetsEncrypt, Chain: issued(t, 80, "Shop.Example")}, false},
		"what cannot be read":            {&weirv1.CertificateMaterial{AcmeDirectory: resource.LetsEncrypt, Chain: [][]byte{[]byte("no")}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			certificate := declared("shop", "", "shop.example")
			certificate.Material = c.material
			if got := noon.After(dueAt(certificate)); got != c.due {
				t.Errorf("due: %v", got)
			}
		})
	}
}

// shelf is certificates in memory.
type shelf struct {
	mu  sync.Mutex
	all map[resource.Ref]*weirv1.Certificate
	rev uint64
}

func shelve(cs ...*weirv1.Certificate) *shelf {
	s := &shelf{all: map[resource.Ref]*weirv1.Certificate{}}
	for _, c := range cs {
		s.all[refOf(c)] = c
	}
	return s
}

func (s *shelf) Ordered() (all []*weirv1.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.all {
		all = append(all, c)
	}
	return all
}

func (s *shelf) Get(ref resource.Ref) *weirv1.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[ref]
}

func (s *shelf) Put(_ context.Context, c *weirv1.Certificate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[refOf(c)].GetMetadata().GetRevision() != c.GetMetadata().GetRevision() {
		return ErrConflict
	}
	s.rev++
	c = proto.CloneOf(c)
	c.Metadata.Revision = s.rev
	s.all[refOf(c)] = c
	return nil
}

func (s *shelf) SealKey(_ resource.Ref, der []byte) []byte              { return der }
func (s *shelf) OpenHMAC(_ resource.Ref, sealed []byte) ([]byte, error) { return sealed, nil }

// A failure is told, leaves what is shown alone, and is tried again; whoever does
// not lead asks nobody.
func TestFailuresAreToldAndTriedAgain(t *testing.T) {
	var asked, leads atomic.Int32
	authority := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if leads.Load() == 0 {
			t.Error("asked by one that does not lead")
		}
		asked.Add(1)
		http.Error(w, "I am a teapot", http.StatusTeapot)
	}))
	defer authority.Close()
	c := declared("shop", authority.URL, "shop.example")
	c.Spec.Acme.CaCertificates = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate().Raw}))
	c.Material.Chain = issued(t, 10, "shop.example")
	s, ref := shelve(c), refOf(c)
	keyring, err := identity.CreateKeyring(filepath.Join(t.TempDir(), "keyring"))
	if err != nil {
		t.Fatal(err)
	}
	looks := make(chan struct{})
	i := New(Config{
		Store: s, Accounts: NewAccounts(identitytest.NewRecords(), keyring), Logger: slog.New(slog.DiscardHandler),
		Leads: func() bool {
			select {
			case looks <- struct{}{}:
			default:
			}
			return leads.Load() > 0
		},
		Spread: func(context.Context, uint64) {}, Every: time.Millisecond, First: time.Millisecond,
	})
	ctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = i.Run(ctx) }()
	for range 5 {
		<-looks
	}
	leads.Store(1)
	for limit := time.Now().Add(2 * time.Minute); asked.Load() < 3 || s.Get(ref).GetMaterial().GetAcmeProblem() == ""; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("asked %d times, told %q", asked.Load(), s.Get(ref).GetMaterial().GetAcmeProblem())
		}
	}
	end()
	<-done
	if c := s.Get(ref); len(c.GetMaterial().GetChain()) == 0 || c.GetStatus().GetConditions()[0].GetReason() != "OrderFailed" {
		t.Errorf("left %v", c)
	}
}
