package identity

import (
	"crypto/x509"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weirmesh/weir/identity/identitytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newKeyring(t *testing.T) *Keyring {
	t.Helper()
	k, err := OpenKeyring(filepath.Join(t.TempDir(), "keyring"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newRegistrar(t *testing.T) *Registrar {
	t.Helper()
	r, err := OpenRegistrar(t.Context(), identitytest.NewRecords(), newKeyring(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newIdentity(t *testing.T) *Identity {
	t.Helper()
	i, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// enrolled is an identity that has joined r's cluster.
func enrolled(t *testing.T, r *Registrar, role Role, name string) *Identity {
	t.Helper()
	i := newIdentity(t)
	issued, err := r.Enrol(t.Context(), role, name, request(t, i), Names{})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Install(issued); err != nil {
		t.Fatal(err)
	}
	return i
}

func request(t *testing.T, i *Identity) []byte {
	t.Helper()
	csr, err := i.Request()
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func chainOf(t *testing.T, i *Identity) []*x509.Certificate {
	t.Helper()
	c, err := i.certificate()
	if err != nil {
		t.Fatal(err)
	}
	var chain []*x509.Certificate
	for _, der := range c.Certificate {
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, parsed)
	}
	return chain
}

func createJoin(t *testing.T, r *Registrar, c JoinTokenConfig) Token {
	t.Helper()
	token, _, err := r.Tokens().CreateJoin(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func edgeToken(t *testing.T, r *Registrar) Token {
	t.Helper()
	return createJoin(t, r, JoinTokenConfig{Role: RoleEdge, TTL: time.Hour})
}

// join asks to be let in, while nobody else is connected.
func join(t *testing.T, r *Registrar, token Token, name string, i *Identity) (*Admission, error) {
	t.Helper()
	return r.Join(t.Context(), JoinRequest{Token: token.String(), Name: name, CSR: request(t, i)}, nobody)
}

func nobody(ID) bool { return false }
