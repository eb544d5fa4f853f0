package nodeapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func (c *cluster) token(role identity.Role) string {
	c.t.Helper()
	token, _, err := c.registrar.Tokens().CreateJoin(c.t.Context(), identity.JoinTokenConfig{Role: role, TTL: time.Hour})
	if err != nil {
		c.t.Fatal(err)
	}
	return token.String()
}

func join(t *testing.T, token, name string, servers ...string) (*identity.Identity, error) {
	t.Helper()
	node, err := identity.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return node, Join(ctx, node, JoinConfig{Servers: servers, Token: token, Role: identity.RoleEdge, Name: name, Logger: logger(t)})
}

func TestJoin(t *testing.T) {
	c := startCluster(t)
	node, err := join(t, c.token(identity.RoleEdge), "e1", c.address)
	if err != nil {
		t.Fatal(err)
	}
	if want := (identity.ID{TrustDomain: c.registrar.Authority().TrustDomain(), Role: identity.RoleEdge, Name: "e1"}); node.ID() != want {
		t.Fatalf("joined as %v, want %v", node.ID(), want)
	}
	// The identity is good for what comes next.
	startEdge(t, node, t.TempDir(), nil, c.address).next()
}

func TestJoinRefuses(t *testing.T) {
	c, other := startCluster(t), startCluster(t)
	good := c.token(identity.RoleEdge)
	parts := strings.Split(good, ".")
	foreign := strings.Split(other.token(identity.RoleEdge), ".")
	c.startEdge("taken", nil)
	c.await("taken", func(s *weirv1.ProxyStatus) bool { return s.GetConnected() })
	for name, tc := range map[string]struct{ token, node, want string }{
		"another cluster's token":            {strings.Join(foreign, "."), "e1", "not the one that made the token"},
		"a wrong secret":                     {strings.Join([]string{parts[0], parts[1], foreign[2], parts[3]}, "."), "e1", "not valid"},
		"an unknown id":                      {strings.Join([]string{parts[0], foreign[1], parts[2], parts[3]}, "."), "e1", "not valid"},
		"a damaged token":                    {good[:len(good)-1], "e1", "damaged"},
		"a server's token":                   {c.token(identity.RoleServer), "e1", "role server, this one is of role edge"},
		"a name that is none":                {good, "E 1", "not a DNS label"},
		"a token made for another authority": {strings.Join([]string{parts[0], parts[1], parts[2], foreign[3]}, "."), "e1", "not the one that made the token"},
	} {
		t.Run(name, func(t *testing.T) {
			node, err := join(t, tc.token, tc.node, c.address)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want an error with %q", err, tc.want)
			}
			if node.Joined() {
				t.Fatal("it has an identity all the same")
			}
		})
	}
	t.Run("a name in use", func(t *testing.T) {
		node, err := identity.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		csr, err := node.Request()
		if err != nil {
			t.Fatal(err)
		}
		token, err := identity.ParseToken(good)
		if err != nil {
			t.Fatal(err)
		}
		_, err = joinAt(t.Context(), c.dialer, c.address, token, &weirv1.JoinRequest{Token: good, Name: "taken", Csr: csr})
		if connect.CodeOf(err) != connect.CodeAlreadyExists {
			t.Fatalf("got %v", err)
		}
	})
}

// A server that is not there yet is waited for.
func TestJoinWaitsForAServer(t *testing.T) {
	c := startCluster(t)
	token, address := c.token(identity.RoleEdge), c.address
	c.stop()
	type result struct {
		node *identity.Identity
		err  error
	}
	joined := make(chan result, 1)
	go func() {
		node, err := join(t, token, "e1", address)
		joined <- result{node, err}
	}()
	c.start()
	if r := <-joined; r.err != nil || !r.node.Joined() {
		t.Fatal(r.err)
	}
}

// A foreign certificate fails the handshake, and the node is told why.
func TestForeignCertificateIsRefused(t *testing.T) {
	c, other := startCluster(t), startCluster(t)
	foreign := other.enrol(identity.RoleEdge, "e1")
	// It believes anyone, so that it is the server who decides.
	trust := func(protocols ...string) *tls.Config {
		config := foreign.ClientTLS(protocols...)
		config.VerifyConnection = func(tls.ConnectionState) error { return nil }
		return config
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := dialLink(ctx, c.dialer, c.address, trust)
	if err == nil {
		// In TLS 1.3 the node is done before the server has judged it.
		defer l.Close()
		_, err = l.api.Renew(ctx, &weirv1.RenewRequest{})
	}
	if err == nil || !nodeport.WrongPeer(err) {
		t.Fatalf("got %v, want a failed handshake", err)
	}
	t.Logf("told: %v", err)
	if statuses, _ := c.server.Proxies().Statuses(); len(statuses) != 0 {
		t.Fatalf("it is listed: %v", statuses)
	}
}

func TestCallsWithoutACertificate(t *testing.T) {
	c := startCluster(t)
	token, err := identity.ParseToken(c.token(identity.RoleEdge))
	if err != nil {
		t.Fatal(err)
	}
	l := c.dial(func(protocols ...string) *tls.Config { return identity.JoinTLS(token, protocols...) })
	if _, err := l.api.Renew(t.Context(), &weirv1.RenewRequest{}); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("Renew: %v", err)
	}
	if _, err := download(t.Context(), l.api, c.source.putBlob([]byte("x"))); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("GetBlob: %v", err)
	}
	stream, err := l.api.StreamConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	_ = stream.SendHeaders()
	if _, err := stream.Receive(); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("StreamConfig: %v", err)
	}
}

func TestRenew(t *testing.T) {
	c := startCluster(t)
	e := c.startEdge("e1", nil)
	node := e.client.cfg.Identity
	csr, err := node.Request()
	if err != nil {
		t.Fatal(err)
	}
	issued, err := e.client.renew(t.Context(), csr)
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Install(issued); err != nil {
		t.Fatal(err)
	}
	stranger, err := identity.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if csr, err = stranger.Request(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.client.renew(t.Context(), csr); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Fatalf("a request by another key: %v", err)
	}
}

func TestBlob(t *testing.T) {
	c := startCluster(t)
	module := []byte(noise(1, 3*blobChunk+7))
	digest := c.source.putBlob(module)
	e := c.startEdge("e1", nil)
	e.next()
	get := func() ([]byte, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return e.client.Blob(ctx, digest)
	}
	if data, err := get(); err != nil || !bytes.Equal(data, module) {
		t.Fatalf("got %d bytes, %v", len(data), err)
	}
	path := filepath.Join(e.dir, "blobs", strings.TrimPrefix(digest, digestPrefix))
	if err := os.WriteFile(path, append([]byte("rot"), module[3:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := get(); err != nil || !bytes.Equal(data, module) {
		t.Fatalf("after the file rotted: %d bytes, %v", len(data), err)
	}
	c.stop()
	if data, err := get(); err != nil || !bytes.Equal(data, module) {
		t.Fatalf("with no server: %d bytes, %v", len(data), err)
	}
}

// A blob is read as it is sent: one that never ends begins all the same.
func TestBlobIsSentAsItIsRead(t *testing.T) {
	c := startCluster(t)
	c.source.endless = "sha256:" + strings.Repeat("0", 64)
	l := c.dial(c.enrol(identity.RoleEdge, "e1").ClientTLS)
	stream, err := l.api.GetBlob(t.Context(), &weirv1.GetBlobRequest{Digest: c.source.endless})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for range 3 {
		if m, err := stream.Receive(); err != nil || len(m.GetChunk()) != blobChunk {
			t.Fatalf("got %d bytes, %v", len(m.GetChunk()), err)
		}
	}
}

func TestBlobThatIsNotWhatItsDigestSays(t *testing.T) {
	c := startCluster(t)
	digest := c.source.putBlob([]byte("module"))
	c.source.blobs[digest] = []byte("something else")
	e := c.startEdge("e1", nil)
	if data, err := e.client.Blob(t.Context(), digest); err == nil || !strings.Contains(err.Error(), "its digest is") {
		t.Fatalf("got %q, %v", data, err)
	}
	if entries, err := os.ReadDir(filepath.Join(e.dir, "blobs")); err == nil && len(entries) > 0 {
		t.Fatalf("it was kept: %v", entries)
	}
	for _, bad := range []string{"", "sha256:", "sha256:../../etc/passwd", "md5:00", "sha256:" + strings.Repeat("AB", 32)} {
		if _, err := e.client.Blob(t.Context(), bad); err == nil {
			t.Errorf("%q passed for a digest", bad)
		}
	}
	unknown := "sha256:" + strings.Repeat("ab", 32)
	if _, err := e.client.Blob(t.Context(), unknown); err == nil || !strings.Contains(err.Error(), "there is no blob") {
		t.Errorf("an unknown digest: %v", err)
	}
}

// Blobs that no plugin in force refers to are removed.
func TestOldBlobsAreRemoved(t *testing.T) {
	c := startCluster(t)
	first, second := c.source.putBlob([]byte("one")), c.source.putBlob([]byte("two"))
	c.source.put(gateway("public", nil), attached("p", "stamp", onGateway("public")), plugin("stamp", first))
	e := c.startEdge("e1", nil)
	c.awaitAccepted("e1", 1)
	for _, digest := range []string{first, second} {
		if _, err := e.client.Blob(t.Context(), digest); err != nil {
			t.Fatal(err)
		}
	}
	c.source.put(plugin("stamp", second))
	c.awaitAccepted("e1", 2)
	e.stop()
	if data, err := e.client.blobs.get(first); data != nil || err != nil {
		t.Errorf("the old module is still there: %q, %v", data, err)
	}
	if data, err := e.client.blobs.get(second); data == nil || err != nil {
		t.Errorf("the new module is gone: %v", err)
	}
}

// A node whose certificate has run out may renew, and nothing else.
func TestExpiredNode(t *testing.T) {
	c := startCluster(t)
	node := c.enrol(identity.RoleEdge, "e1")
	csr, err := node.Request()
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.RequestKey(csr)
	if err != nil {
		t.Fatal(err)
	}
	expired := &caller{known: true, id: node.ID(), key: key, expires: time.Now().Add(-time.Hour)}
	ctx := context.WithValue(t.Context(), callerKey{}, expired)
	if _, err := c.server.Renew(ctx, &weirv1.RenewRequest{Csr: csr}); err != nil {
		t.Errorf("Renew: %v", err)
	}
	if _, err := liveNode(ctx); connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "renew it first") {
		t.Errorf("anything else: %v", err)
	}
}

func TestNodeThatWasShutOut(t *testing.T) {
	c := startCluster(t)
	first := c.enrol(identity.RoleEdge, "e1")
	c.enrol(identity.RoleEdge, "e1") // another machine has taken the name
	f := &follower{client: newEdge(t, first, t.TempDir(), nil, c.address).client, held: newHeld()}
	_, err := f.session(t.Context(), t.Context(), c.dial(first.ClientTLS))
	if connect.CodeOf(err) != connect.CodePermissionDenied || !strings.Contains(err.Error(), "another node has joined") {
		t.Fatalf("got %v", err)
	}
}

var _ Registrar = (*identity.Registrar)(nil)

func TestClientNeedsAServer(t *testing.T) {
	if _, err := NewClient(ClientConfig{}); err == nil {
		t.Fatal("a client without servers was made")
	}
	node, err := identity.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := Join(t.Context(), node, JoinConfig{Token: "nonsense"}); err == nil || errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}
