package identity

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// handshake connects the two sides and returns each one's error, and the
// server's view of the connection.
func handshake(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := s.HandshakeContext(t.Context())
		if err != nil {
			a.Close()
		}
		done <- err
	}()
	clientErr = c.HandshakeContext(t.Context())
	if clientErr == nil {
		// In TLS 1.3 the client is done before the server has judged it.
		go io.Copy(io.Discard, b)
	} else {
		b.Close()
	}
	serverErr = <-done
	a.Close()
	b.Close()
	return s.ConnectionState(), serverErr, clientErr
}

func TestHandshake(t *testing.T) {
	r, foreignRegistrar := newRegistrar(t), newRegistrar(t)
	server, edge := enrolled(t, r, RoleServer, "s1"), enrolled(t, r, RoleEdge, "e1")
	foreign := enrolled(t, foreignRegistrar, RoleEdge, "e1")
	join := createJoin(t, r, JoinTokenConfig{Role: RoleEdge, TTL: MaxJoinTTL})
	wrong := join
	wrong.Fingerprint = foreignRegistrar.Authority().Fingerprint()

	// The foreign node believes our server, so that it is the server who refuses.
	foreignTLS := foreign.ClientTLS("h3")
	foreignTLS.VerifyConnection = nil
	old := edge.ClientTLS("h3")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12

	for name, c := range map[string]struct {
		server, client           *tls.Config
		serverWants, clientWants string // "" is success
	}{
		"an edge at a server":                     {server.ServerTLS("h3"), edge.ClientTLS("h3"), "", ""},
		"a joining node with the fingerprint":     {server.ServerTLS("h3"), JoinTLS(join, "h3"), "", ""},
		"a joining node at another cluster":       {server.ServerTLS("h3"), JoinTLS(wrong, "h3"), "bad certificate", "not the one that made the token"},
		"a foreign node":                          {server.ServerTLS("h3"), foreignTLS, "unknown authority", ""},
		"an edge in a server's place":             {edge.ServerTLS("h3"), edge.ClientTLS("h3"), "bad certificate", "it is no server"},
		"an edge in a server's place, at joining": {edge.ServerTLS("h3"), JoinTLS(join, "h3"), "bad certificate", "it is no server"},
		"TLS 1.2":             {server.ServerTLS("h3"), old, "version", "version"},
		"an unknown protocol": {server.ServerTLS("h3"), edge.ClientTLS("x/9"), "protocol", "protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			state, serverErr, clientErr := handshake(t, c.server, c.client)
			requireError(t, "server", serverErr, c.serverWants)
			requireError(t, "client", clientErr, c.clientWants)
			if name == "an edge at a server" && len(state.PeerCertificates) == 0 {
				t.Fatal("the server did not see the edge's certificate")
			}
		})
	}
}

func requireError(t *testing.T, side string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Fatalf("%s: got %v, want %q", side, err, want)
	}
}

// A node that was off for longer than its certificate still gets as far as to
// renew it; a foreign one does not.
func TestHandshakeOfAnExpiredNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistrar(t)
		edge, foreign := enrolled(t, r, RoleEdge, "e1"), enrolled(t, newRegistrar(t), RoleEdge, "e1")
		time.Sleep(2 * LeafLifetime)
		server := enrolled(t, r, RoleServer, "s1")
		state, serverErr, clientErr := handshake(t, server.ServerTLS("h3"), edge.ClientTLS("h3"))
		if serverErr != nil || clientErr != nil || len(state.PeerCertificates) == 0 {
			t.Fatal(serverErr, clientErr)
		}
		config := foreign.ClientTLS("h3")
		config.VerifyConnection = nil
		_, serverErr, _ = handshake(t, server.ServerTLS("h3"), config)
		requireError(t, "server", serverErr, "unknown authority")
	})
}

// The certificate is reloaded: a configuration built before a renewal presents
// what the renewal brought.
func TestTLSFollowsRenewal(t *testing.T) {
	r := newRegistrar(t)
	server, edge := enrolled(t, r, RoleServer, "s1"), enrolled(t, r, RoleEdge, "e1")
	serverTLS, clientTLS := server.ServerTLS("h3"), edge.ClientTLS("h3")
	before := chainOf(t, edge)[0].SerialNumber
	issued, err := r.Renew(t.Context(), edge.ID(), edge.key.Public(), request(t, edge))
	if err != nil {
		t.Fatal(err)
	}
	if err := edge.Install(issued); err != nil {
		t.Fatal(err)
	}
	state, serverErr, clientErr := handshake(t, serverTLS, clientTLS)
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	if seen := state.PeerCertificates[0].SerialNumber; seen.Cmp(before) == 0 {
		t.Fatal("the old certificate was presented after the renewal")
	}
}
