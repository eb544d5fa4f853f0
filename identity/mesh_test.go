package identity

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// joined is a node that has joined by a token.
func joined(t *testing.T, r *Registrar, c JoinTokenConfig, name string) *Identity {
	t.Helper()
	node := newIdentity(t)
	c.TTL = time.Hour
	admitted, err := join(t, r, createJoin(t, r, c), name, node)
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Install(admitted.Credentials); err != nil {
		t.Fatal(err)
	}
	return node
}

func sidecarOf(service string) JoinTokenConfig {
	return JoinTokenConfig{Role: RoleSidecar, Tenant: "default", Service: service}
}

// A sidecar's certificate names its service, and tells it apart from the others.
func TestSidecarsBearTheirService(t *testing.T) {
	r := newRegistrar(t)
	one, two := joined(t, r, sidecarOf("books"), "books-1"), joined(t, r, sidecarOf("books"), "books-2")
	if got, want := one.ID().String(), "spiffe://"+one.TrustDomain()+"/ns/default/svc/books"; got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
	if one.ID().Name != "books-1" || two.ID().Name != "books-2" || one.ID().Service != "books" {
		t.Errorf("they are %+v and %+v", one.ID(), two.ID())
	}
	again, err := Open(one.dir)
	if err != nil || again.ID() != one.ID() {
		t.Errorf("after a restart it is %+v: %v", again.ID(), err)
	}
	csr, _ := one.Request()
	fresh, err := r.Renew(t.Context(), one.ID(), one.key.Public(), csr)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := CredentialsID(fresh); err != nil || id != one.ID() {
		t.Errorf("renewed it is %+v: %v", id, err)
	}
}

func TestASidecarIsOfNoOtherService(t *testing.T) {
	r := newRegistrar(t)
	books := joined(t, r, sidecarOf("books"), "books-1")
	csr, _ := books.Request()
	posing := books.ID()
	posing.Service = "shop"
	if _, err := r.Renew(t.Context(), posing, books.key.Public(), csr); !errors.Is(err, ErrSuperseded) {
		t.Errorf("renewed as another service: %v", err)
	}
	token := createJoin(t, r, JoinTokenConfig{Role: RoleSidecar, Tenant: "default", Service: "shop", TTL: time.Hour})
	_, err := r.Join(t.Context(), JoinRequest{Token: token.String(), Name: "books-1", CSR: csr}, nobody)
	if !errors.Is(err, ErrInUse) {
		t.Errorf("another service took the name: %v", err)
	}
	if _, err := join(t, r, edgeToken(t, r), "books-1", newIdentity(t)); !errors.Is(err, ErrInUse) {
		t.Errorf("an edge took the name: %v", err)
	}
	for _, c := range []JoinTokenConfig{
		{Role: RoleSidecar, TTL: time.Hour}, {Role: RoleSidecar, TTL: time.Hour, Tenant: "default", Service: "a/b"},
		{Role: RoleEdge, TTL: time.Hour, Service: "books", Tenant: "default"},
	} {
		if _, _, err := r.Tokens().CreateJoin(t.Context(), c); err == nil {
			t.Errorf("a token was made for %+v", c)
		}
	}
}

// Who may speak to whom in the mesh, as both sides see it.
func TestMeshTLS(t *testing.T) {
	r, foreign := newRegistrar(t), newRegistrar(t)
	books := joined(t, r, sidecarOf("books"), "books-1")
	want := books.ID().String()
	removed, wary := joined(t, r, sidecarOf("shop"), "shop-3"), joined(t, r, sidecarOf("shop"), "shop-4")
	for at, who := range map[*Identity]*Identity{books: removed, wary: books} {
		if _, err := at.TakeShutOut(&weirv1.ShutOut{Keys: []*weirv1.ShutOutKey{{Sha256: who.keyHash(), Until: timestamppb.New(time.Now().Add(time.Hour))}}}, true); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		client *tls.Config
		served bool
		why    string // as the side that refuses knows it
	}{
		{"a sidecar", joined(t, r, sidecarOf("shop"), "shop-1").MeshClientTLS(want, "h2"), true, ""},
		{"an edge", joined(t, r, JoinTokenConfig{Role: RoleEdge}, "e1").MeshClientTLS(want, "h2"), true, ""},
		{"a server", joined(t, r, JoinTokenConfig{Role: RoleServer, Uses: 1}, "a").MeshClientTLS(want, "h2"), false, "it is no proxy"},
		{"nobody", &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}, false, "it presented no certificate"},
		{"a foreign one", posing(joined(t, foreign, sidecarOf("shop"), "shop-1")), false, "unknown authority"},
		{"one that was removed", removed.MeshClientTLS(want, "h2"), false, "shop-3 of"},
		{"one that was told so of whom it calls", wary.MeshClientTLS(want, "h2"), false, "books-1 of " + want + ": the node was removed"},
		{"one that wants another service", joined(t, r, sidecarOf("shop"), "shop-2").MeshClientTLS(strings.Replace(want, "books", "till", 1), "h2"), false, "not spiffe://"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := net.Pipe()
			defer client.Close()
			var refusal error
			done := make(chan error, 1)
			go func() {
				s := tls.Server(server, books.MeshServerTLS(func(err error) { refusal = err }, "h2"))
				err := s.Handshake()
				server.Close()
				done <- err
			}()
			dialled := tls.Client(client, c.client)
			dialErr := dialled.Handshake()
			if dialErr == nil {
				_, _ = dialled.Read(make([]byte, 1)) // the server's verdict comes after the handshake
			}
			client.Close()
			err := <-done
			if served := err == nil && dialErr == nil; served != c.served {
				t.Fatalf("served: %v; the server says %v, the client %v", served, err, dialErr)
			}
			if all := errors.Join(err, refusal, dialErr); !c.served && !strings.Contains(all.Error(), c.why) {
				t.Errorf("refused for %v, want %q", all, c.why)
			}
		})
	}
}

// posing is a node that believes whoever answers.
func posing(node *Identity) *tls.Config {
	c := node.MeshClientTLS("", "h2")
	c.VerifyConnection = nil
	return c
}
