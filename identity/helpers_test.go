package identity

import (
	"context"
	"crypto/x509"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory keeps records in a map.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
}

func newMemory() *memory { return &memory{values: map[string][]byte{}} }

func (m *memory) Get(_ context.Context, table, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[table+"/"+key], nil
}

func (m *memory) Put(_ context.Context, table, key string, value []byte, create bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.values[table+"/"+key]; ok && create {
		return ErrExists
	}
	m.values[table+"/"+key] = value
	return nil
}

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
	r, err := OpenRegistrar(t.Context(), newMemory(), newKeyring(t))
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
