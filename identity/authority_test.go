package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirmesh/weir/identity/identitytest"
	"github.com/weirmesh/weir/identity/record"
)

func TestIssueTakesNothingFromTheRequest(t *testing.T) {
	r := newRegistrar(t)
	i := newIdentity(t)
	greedy, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "root"},
		DNSNames: []string{"admin.example"},
		URIs:     []*url.URL{{Scheme: "spiffe", Host: r.Authority().TrustDomain(), Path: "/node/server/evil"}},
	}, i.key)
	if err != nil {
		t.Fatal(err)
	}
	id := ID{TrustDomain: r.Authority().TrustDomain(), Role: RoleEdge, Name: "e1"}
	issued, err := r.Authority().Issue(id, greedy, Names{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(issued.Certificates[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != id.String() || len(leaf.DNSNames) != 0 || leaf.Subject.CommonName != "e1" || leaf.IsCA {
		t.Fatalf("issued URIs %v, DNS %v, subject %v, CA %v; want only %s", leaf.URIs, leaf.DNSNames, leaf.Subject, leaf.IsCA, id)
	}
	if life := time.Until(leaf.NotAfter); life > LeafLifetime || life < LeafLifetime-time.Minute {
		t.Fatalf("the certificate lives %s, want %s", life, LeafLifetime)
	}
}

func TestIssueRefuses(t *testing.T) {
	r := newRegistrar(t)
	own := r.Authority().TrustDomain()
	good := request(t, newIdentity(t))
	tampered := append([]byte{}, good...)
	tampered[len(tampered)-1] ^= 1
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaRequest, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		id   ID
		csr  []byte
		want string
	}{
		"a request not signed by its key": {ID{TrustDomain: own, Role: RoleEdge, Name: "e1"}, tampered, "bad request"},
		"no request":                      {ID{TrustDomain: own, Role: RoleEdge, Name: "e1"}, []byte("x"), "read certificate request"},
		"an RSA key":                      {ID{TrustDomain: own, Role: RoleEdge, Name: "e1"}, rsaRequest, "none of ECDSA"},
		"another trust domain":            {ID{TrustDomain: "other.example", Role: RoleEdge, Name: "e1"}, good, "not ours"},
		"no role":                         {ID{TrustDomain: own, Role: "king", Name: "e1"}, good, "none of server"},
		"a name with a slash":             {ID{TrustDomain: own, Role: RoleEdge, Name: "e1/../server"}, good, "not a DNS label"},
		"a sidecar of no service":         {ID{TrustDomain: own, Role: RoleSidecar, Name: "s1"}, good, "not a DNS label"},
		"no name":                         {ID{TrustDomain: own, Role: RoleEdge, Name: ""}, good, "not a DNS label"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := r.Authority().Issue(c.id, c.csr, Names{}, 0); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestPeer(t *testing.T) {
	ours, theirs := newRegistrar(t), newRegistrar(t)
	edge := enrolled(t, ours, RoleEdge, "e1")
	server := enrolled(t, ours, RoleServer, "s1")
	foreign := enrolled(t, theirs, RoleEdge, "e1")

	id, err := server.Verify(chainOf(t, edge))
	if want := (ID{TrustDomain: ours.Authority().TrustDomain(), Role: RoleEdge, Name: "e1"}); err != nil || id != want {
		t.Fatalf("verified %v, %v; want %v", id, err, want)
	}
	if _, err := server.Verify(chainOf(t, foreign)); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Fatalf("a foreign certificate gave %v", err)
	}
	if _, err := server.Verify(nil); err == nil {
		t.Fatal("no certificate passed")
	}
	verifier, err := NewVerifier(ours.Authority().TrustDomain(), ours.Authority().Roots())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifier.PeerOf(RoleServer, chainOf(t, edge)); err == nil || !strings.Contains(err.Error(), "it is no server") {
		t.Fatalf("an edge in a server's place gave %v", err)
	}
	elsewhere, err := NewVerifier("other.example", ours.Authority().Roots())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := elsewhere.Peer(chainOf(t, edge)); err == nil || !strings.Contains(err.Error(), "not ours") {
		t.Fatalf("another trust domain gave %v", err)
	}
}

// A leaf must not pass for an authority by signing another leaf.
func TestPeerRefusesWhatALeafSigned(t *testing.T) {
	r := newRegistrar(t)
	edge, server := enrolled(t, r, RoleEdge, "e1"), enrolled(t, r, RoleServer, "s1")
	victim := newIdentity(t)
	template := &x509.Certificate{
		SerialNumber: newSerial(), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{ID{TrustDomain: r.Authority().TrustDomain(), Role: RoleServer, Name: "evil"}.URI()},
	}
	signer := chainOf(t, edge)[0]
	der, err := x509.CreateCertificate(rand.Reader, template, signer, victim.key.Public(), edge.key)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := server.Verify(append([]*x509.Certificate{forged}, chainOf(t, edge)...)); err == nil {
		t.Fatalf("a certificate signed by a leaf passed as %v", id)
	}
}

func TestExpiredIsToldApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := newRegistrar(t), newRegistrar(t)
		server, edge := enrolled(t, ours, RoleServer, "s1"), enrolled(t, ours, RoleEdge, "e1")
		foreign := enrolled(t, theirs, RoleEdge, "e1")
		time.Sleep(LeafLifetime + time.Second)

		id, err := server.Verify(chainOf(t, edge))
		if !errors.Is(err, ErrExpired) || id != edge.ID() {
			t.Fatalf("an expired certificate gave %v, %v; want its ID and ErrExpired", id, err)
		}
		if id, err := server.Verify(chainOf(t, foreign)); err == nil || errors.Is(err, ErrExpired) || id != (ID{}) {
			t.Fatalf("an expired foreign certificate gave %v, %v", id, err)
		}
		// Off for a day and a bit: the identity opens, to renew.
		reopened, err := Open(edge.dir)
		if err != nil || reopened.ID() != edge.ID() {
			t.Fatalf("reopened as %v, %v", reopened.ID(), err)
		}
	})
}

func TestAuthorityIsKeptSealed(t *testing.T) {
	records, keyring := identitytest.NewRecords(), newKeyring(t)
	first, err := OpenRegistrar(t.Context(), records, keyring, 0)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenRegistrar(t.Context(), records, keyring, 0)
	if err != nil {
		t.Fatal(err)
	}
	if first.Authority().Fingerprint() != again.Authority().Fingerprint() {
		t.Fatal("the second opening made another authority")
	}
	if _, err := OpenRegistrar(t.Context(), records, newKeyring(t), 0); !errors.Is(err, ErrSealed) || !strings.Contains(err.Error(), "does not hold key") {
		t.Fatalf("another keyring gave %v", err)
	}
	stored, _ := records.Value(TableAuthority, authorityKey)
	flipped := bytes.Clone(stored)
	flipped[len(flipped)/2] ^= 1
	change := record.Change{Table: TableAuthority, Key: authorityKey, Was: stored, Is: flipped}
	if err := records.Change(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRegistrar(t.Context(), records, keyring, 0); !errors.Is(err, ErrSealed) {
		t.Fatalf("a flipped bit gave %v", err)
	}
}

func TestKeyring(t *testing.T) {
	path := t.TempDir() + "/keyring"
	k, err := OpenKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed := k.Seal("a", []byte("secret"))
	again, err := OpenKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := again.Open("a", sealed); err != nil || string(data) != "secret" {
		t.Fatalf("opened %q, %v", data, err)
	}
	if _, err := again.Open("b", sealed); !errors.Is(err, ErrSealed) {
		t.Fatalf("another purpose gave %v", err)
	}
	if k.Derive("x") != again.Derive("x") || k.Derive("x") == k.Derive("y") {
		t.Fatal("derived keys must depend on keyring and purpose, and on nothing else")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := OpenKeyring(t.TempDir() + "/keyring")
	if err != nil {
		t.Fatal(err)
	}
	otherText, err := os.ReadFile(other.path)
	if err != nil {
		t.Fatal(err)
	}
	// A rotated keyring: a new key in front, the old one behind.
	keys, err := parseKeyring(append(otherText, strings.TrimPrefix(string(text), keyringHead+"\n")...))
	if err != nil {
		t.Fatal(err)
	}
	rotated := new(Keyring)
	rotated.keys.Store(&keys)
	if data, err := rotated.Open("a", sealed); err != nil || string(data) != "secret" {
		t.Fatalf("after a rotation: opened %q, %v", data, err)
	}
	if _, err := k.Open("a", rotated.Seal("a", nil)); !errors.Is(err, ErrSealed) {
		t.Fatalf("the old keyring opened what the new key sealed: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeyring(path); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Fatalf("a keyring that all may read gave %v", err)
	}
}
