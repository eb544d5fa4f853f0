package nodeapi

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// lender answers each ask with what was wanted, and keeps who has asked.
type lender struct {
	mu    sync.Mutex
	nodes []string
	fail  error
}

func (l *lender) Grant(_ context.Context, node string, m *weirv1.LeaseTokensRequest) (*weirv1.LeaseTokensResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return nil, l.fail
	}
	l.nodes = append(l.nodes, node)
	answer := &weirv1.LeaseTokensResponse{}
	for _, a := range m.GetAsks() {
		answer.Grants = append(answer.Grants, &weirv1.LeaseGrant{Held: a.GetWant()})
	}
	return answer, nil
}

func asking(n int) *weirv1.LeaseTokensRequest {
	m := &weirv1.LeaseTokensRequest{Epoch: 1, Sequence: 1}
	for range n {
		m.Asks = append(m.Asks, &weirv1.LeaseAsk{Tenant: "default", Subscription: strings.Repeat("s", 63), Limit: strings.Repeat("l", 63), Want: 7})
	}
	return m
}

// A proxy leases by whichever server there is, under its own name.
func TestLeaseTokens(t *testing.T) {
	c := newCluster(t)
	c.leases = new(lender)
	c.start()
	e := c.startEdge("e1", nil)
	m, err := e.client.LeaseTokens(t.Context(), asking(maxLeaseAsks))
	if err != nil || len(m.GetGrants()) != maxLeaseAsks || m.GetGrants()[0].GetHeld() != 7 {
		t.Fatalf("got %v, %v", m, err)
	}
	if n := c.leases.(*lender).nodes; len(n) != 1 || n[0] != "edge/e1" {
		t.Errorf("those that asked are %v", n)
	}
}

func TestLeaseTokensRefuses(t *testing.T) {
	for name, r := range map[string]struct {
		leases Leases
		node   bool
		m      *weirv1.LeaseTokensRequest
		code   connect.Code
		want   string
	}{
		"whoever has no certificate": {&lender{}, false, asking(1), connect.CodeUnauthenticated, "needs a certificate"},
		"more limits than may be":    {&lender{}, true, asking(maxLeaseAsks + 1), connect.CodeInvalidArgument, "the most is 512"},
		"a request without an epoch": {&lender{}, true, &weirv1.LeaseTokensRequest{Sequence: 1}, connect.CodeInvalidArgument, "an epoch and a sequence"},
		"what cannot be decided":     {&lender{fail: errors.New("there is no leader")}, true, asking(1), connect.CodeUnavailable, "there is no leader"},
		"all, where nobody leases":   {nil, true, asking(1), connect.CodeUnimplemented, "leases no tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.leases = r.leases
			c.start()
			trust := nodeport.Trust(c.enrol(identity.RoleEdge, "e1").ClientTLS)
			if !r.node {
				token, err := identity.ParseToken(c.token(identity.RoleEdge))
				if err != nil {
					t.Fatal(err)
				}
				trust = func(protocols ...string) *tls.Config { return identity.JoinTLS(token, protocols...) }
			}
			link := c.dial(trust)
			_, err := link.api.LeaseTokens(t.Context(), r.m)
			if connect.CodeOf(err) != r.code || !strings.Contains(err.Error(), r.want) {
				t.Errorf("got %v, want %v: %s", err, r.code, r.want)
			}
		})
	}
}

// As many calls wait as may; more are told to go to another server.
func TestLeaseTokensIsBounded(t *testing.T) {
	c := newCluster(t)
	c.leases = new(lender)
	c.start()
	for range maxLeaseCalls {
		c.server.leasing <- struct{}{}
	}
	link := c.dial(c.enrol(identity.RoleEdge, "e1").ClientTLS)
	if _, err := link.api.LeaseTokens(t.Context(), asking(1)); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("got %v", err)
	}
	<-c.server.leasing
	if _, err := link.api.LeaseTokens(t.Context(), asking(1)); err != nil {
		t.Error(err)
	}
}

// A sidecar has to do with its own tenant's consumers, an edge with all.
func TestWhoseConsumersAProxyCounts(t *testing.T) {
	for _, c := range []struct {
		id     identity.ID
		tenant string
		want   bool
	}{
		{identity.ID{Role: identity.RoleEdge, Name: "e1"}, "default", true},
		{identity.ID{Role: identity.RoleEdge, Name: "e1"}, "acme", true},
		{identity.ID{Role: identity.RoleSidecar, Name: "books-1", Tenant: "acme", Service: "books"}, "acme", true},
		{identity.ID{Role: identity.RoleSidecar, Name: "books-1", Tenant: "acme", Service: "books"}, "default", false},
		{identity.ID{Role: identity.RoleSidecar, Name: "books-1", Tenant: "acme", Service: "books"}, "", false},
	} {
		if got := (caller{id: c.id}).mayCount(c.tenant); got != c.want {
			t.Errorf("%s and tenant %q: %v", c.id, c.tenant, got)
		}
	}
	cluster := newCluster(t)
	cluster.leases = new(lender)
	cluster.start()
	_, err := cluster.dial(cluster.enrol(identity.RoleServer, "s2").ClientTLS).api.LeaseTokens(t.Context(), asking(1))
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a server: %v", err)
	}
}
