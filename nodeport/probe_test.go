package nodeport

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weirmesh/weir/identity"
)

// probe has all the time that a loaded machine takes, except for a UDP that is
// meant to be silent.
func probe(t *testing.T, address string, trust Trust, forUDP time.Duration) Probe {
	t.Helper()
	d := newDialer(t, newDiary(t), DialerConfig{})
	d.probeTimeout, d.probeUDPTimeout = patience, forUDP
	return d.Probe(bounded(t), address, trust)
}

func TestProbeFindsAllWell(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	for _, trust := range []Trust{c.node(identity.RoleEdge, "e1").ClientTLS, TrustMember(c.node(identity.RoleServer, "s2"), "s1")} {
		p := probe(t, s.address, trust, patience)
		if p.DNS != nil || p.TCP != nil || p.UDP != nil || p.TLS != nil {
			t.Errorf("got %+v", p)
		}
		if p.RTT <= 0 || len(p.Addresses) != 1 || p.Addresses[0] != s.address {
			t.Errorf("got %+v", p)
		}
	}
}

// A name may have addresses that lead nowhere beside one that does.
func TestProbeOfAName(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	_, port, _ := strings.Cut(s.address, ":")
	p := probe(t, "localhost:"+port, c.node(identity.RoleEdge, "e1").ClientTLS, patience)
	if p.DNS != nil || p.TCP != nil || p.UDP != nil || p.TLS != nil || len(p.Addresses) == 0 {
		t.Errorf("got %+v", p)
	}
}

func TestProbeOfNoAddress(t *testing.T) {
	c := newCluster(t)
	edge := c.node(identity.RoleEdge, "e1")
	for _, address := range []string{"no-port", "a name with spaces:7400"} {
		p := probe(t, address, edge.ClientTLS, patience)
		if p.DNS == nil || p.TCP != nil || p.UDP != nil || p.TLS != nil || p.Addresses != nil {
			t.Errorf("%s: got %+v", address, p)
		}
	}
}

func TestProbeWhereNothingListens(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	s.stop()
	p := probe(t, s.address, c.node(identity.RoleEdge, "e1").ClientTLS, patience)
	if p.DNS != nil || p.TLS != nil || !errors.Is(p.TCP, syscall.ECONNREFUSED) || !errors.Is(p.UDP, syscall.ECONNREFUSED) {
		t.Errorf("got %+v", p)
	}
}

func TestProbeWithoutUDP(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	detour := newDetour(t, s.address)
	detour.blockUDP()
	p := probe(t, detour.address, c.node(identity.RoleEdge, "e1").ClientTLS, hasty)
	if p.DNS != nil || p.TCP != nil || p.TLS != nil || !errors.Is(p.UDP, context.DeadlineExceeded) || p.RTT <= 0 {
		t.Errorf("got %+v", p)
	}
}

// Whoever of the two it is that does not believe the other, the way is fine.
func TestProbeAmongStrangers(t *testing.T) {
	c, others := newCluster(t), newCluster(t)
	s := c.serve("s1")
	edge, stranger := c.node(identity.RoleEdge, "e1"), others.node(identity.RoleEdge, "e1")
	credulous := Trust(func(protocols ...string) (config *tls.Config) {
		config = stranger.ClientTLS(protocols...)
		config.VerifyConnection = func(tls.ConnectionState) error { return nil }
		return config
	})
	for want, trust := range map[string]Trust{
		"verify peer":                        stranger.ClientTLS,
		"it is not the server s2":            TrustMember(edge, "s2"),
		"the server refuses this node: tls:": credulous,
	} {
		p := probe(t, s.address, trust, patience)
		if p.DNS != nil || p.TCP != nil || p.UDP != nil || p.TLS == nil || !strings.Contains(p.TLS.Error(), want) {
			t.Errorf("%s: got %+v", want, p)
		}
	}
}

func TestProbeByAClosedDialer(t *testing.T) {
	d := NewDialer(DialerConfig{Logger: newDiary(t).logger()})
	d.Close()
	if p := d.Probe(bounded(t), "127.0.0.1:1", nil); !errors.Is(p.TCP, errDialerClosed) {
		t.Errorf("got %+v", p)
	}
}
