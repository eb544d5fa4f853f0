package nodeapi

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// A server is given the cluster's keys as it joins; an edge is not.
func TestAServerIsGivenTheKeyring(t *testing.T) {
	c := startCluster(t)
	node, err := identity.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keyring")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = Join(ctx, node, JoinConfig{Servers: []string{c.address}, Token: c.token(identity.RoleServer), Role: identity.RoleServer,
		Name: "s2", Keyring: path, Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	keyring, err := identity.ReadKeyring(path)
	if err != nil || keyring.ID() != c.keyring.ID() {
		t.Fatalf("the keyring: %v", err)
	}
	request := request(t, c, identity.RoleEdge, "e1")
	request.Token = c.token(identity.RoleEdge)
	answer, err := c.server.Join(t.Context(), request)
	if err != nil || len(answer.GetKeyring()) != 0 {
		t.Fatalf("an edge was given %d bytes of keys, %v", len(answer.GetKeyring()), err)
	}
}

func request(t *testing.T, c *cluster, role identity.Role, name string) *weirv1.JoinRequest {
	t.Helper()
	node, err := identity.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	csr, err := node.Request()
	if err != nil {
		t.Fatal(err)
	}
	return &weirv1.JoinRequest{Name: name, Csr: csr, Role: string(role)}
}

// Who has a token's secret is told what became of it, and nobody else.
func TestWhatAJoiningNodeIsTold(t *testing.T) {
	c := startCluster(t)
	tokens := c.registrar.Tokens()
	single, _, err := tokens.CreateJoin(t.Context(), identity.JoinTokenConfig{Role: identity.RoleEdge, TTL: time.Hour, Uses: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := join(t, single.String(), "first", c.address); err != nil {
		t.Fatal(err)
	}
	revoked, _, err := tokens.CreateJoin(t.Context(), identity.JoinTokenConfig{Role: identity.RoleEdge, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := tokens.RevokeJoin(t.Context(), revoked.ID); err != nil {
		t.Fatal(err)
	}
	forged := single
	forged.Secret = revoked.Secret
	for name, test := range map[string]struct {
		token identity.Token
		want  string
	}{
		"used up": {single, "used up"},
		"revoked": {revoked, "revoked"},
		"forged":  {forged, "not valid, or no longer"},
	} {
		if _, err := join(t, test.token.String(), "second", c.address); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

// A certificate of a root that was given up is good for renewing alone, even
// before it has run out.
func TestNodeOfARootThatWasGivenUp(t *testing.T) {
	c := &caller{known: true, retired: true, expires: time.Now().Add(time.Hour)}
	ctx := context.WithValue(t.Context(), callerKey{}, c)
	if _, err := liveNode(ctx); connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "renew it first") {
		t.Errorf("got %v", err)
	}
	if _, err := anyNode(ctx); err != nil {
		t.Error(err)
	}
}
