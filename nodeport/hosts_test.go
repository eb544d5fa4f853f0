//go:build linux

package nodeport

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/test/hosts"
)

// The same as by a relay, on a network of its own that drops UDP in silence.
func TestBlockedUDPBetweenHosts(t *testing.T) {
	h := hosts.New(t, 2)
	c := newCluster(t)
	serving, dialing := h[0], h[1]
	s := c.serveOn(serving, 7400)
	h.BlockUDP(dialing.Name)
	log := newDiary(t)
	d := newDialer(t, log, DialerConfig{RetryUDP: 50 * time.Millisecond, HeadStart: 100 * time.Millisecond, Dial: dialing.Dial})
	d.attemptTimeout = hasty
	edge := c.node(identity.RoleEdge, "e1")
	l := c.link(d, s.address, edge)
	requireCall(t, l, "HTTP/2.0")
	log.await(t, "does not answer")
	h.UnblockUDP(dialing.Name)
	select {
	case <-l.Returned():
	case <-time.After(patience):
		t.Fatal("UDP is never found to work")
	}
	d.cfg.HeadStart = patience
	requireCall(t, c.link(d, s.address, edge), "HTTP/3.0")
}

// A host that is cut off is noticed by silence alone, over both.
func TestPartitionIsNoticed(t *testing.T) {
	h := hosts.New(t, 2)
	c := newCluster(t)
	s := c.serveOn(h[0], 7400)
	d := newDialer(t, s.log, DialerConfig{Dial: h[1].Dial})
	m := NewMembers(c.node(identity.RoleServer, "s2"), d)
	t.Cleanup(func() { m.Close() })
	overQUIC, err := m.Dial(bounded(t), s.address, "s1")
	if err != nil {
		t.Fatal(err)
	}
	defer overQUIC.Close()
	h.BlockUDP("b")
	_, err = overQUIC.Read(make([]byte, 1))
	if err == nil {
		t.Fatal("the stream outlived its network")
	}
	overTCP, err := m.Dial(bounded(t), s.address, "s1")
	if err != nil {
		t.Fatal(err)
	}
	defer overTCP.Close()
	h.Partition([]string{"a"}, []string{"b"})
	if _, err = overTCP.Read(make([]byte, 1)); err == nil {
		t.Fatal("the stream outlived its network")
	}
}

func (c *cluster) serveOn(host *hosts.Host, port int) *server {
	c.t.Helper()
	address := host.HostPort(port)
	udp, err := host.ListenPacket(bounded(c.t), "udp", address)
	if err != nil {
		c.t.Fatal(err)
	}
	tcp, err := host.Listen(bounded(c.t), "tcp", address)
	if err != nil {
		c.t.Fatal(fmt.Errorf("%w, %w", err, udp.Close()))
	}
	node, log := c.node(identity.RoleServer, "s1"), newDiary(c.t)
	p := &Port{udp: udp, tcp: tcp}
	p.Handle(http.HandlerFunc(echo))
	return startServer(c.t, p, Config{Identity: node}, log)
}

var _ net.PacketConn = (*socket)(nil)
