package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// Each of three members knows the proxies of all, and hears of what changes.
func TestMembersKnowAllProxies(t *testing.T) {
	c := newCluster(t)
	a, b, d := c.start("a", connected("e1", 1)), c.start("b", connected("e2", 1)), c.start("d")
	for _, s := range []*server{a, b, d} {
		s.awaitProxies("e1@1", "e2@1")
	}
	b.proxies.set([]*weirv1.ProxyStatus{connected("e2", 2), away("e3", 7, time.Now())})
	for _, s := range []*server{a, b, d} {
		s.awaitProxies("e1@1", "e2@2", "-e3@7")
	}
	b.proxies.set(nil)
	for _, s := range []*server{a, b, d} {
		s.awaitProxies("e1@1")
	}
	reports := a.fleet.Reports()
	if len(reports) != 2 || reports[0].Name != "b" || reports[1].Name != "d" {
		t.Fatalf("got %+v", reports)
	}
	r := reports[0]
	if r.Report.GetMember().GetAddress() != b.address || r.Report.GetAdminAddress() != "admin-of-b" ||
		r.Report.GetDiskSize() != 2 || !r.Report.GetNotAfter().AsTime().Equal(b.node.NotAfter()) || r.Report.GetProxies() != nil {
		t.Errorf("got %+v", r)
	}
}

// Where UDP leads nowhere it is said over TCP.
func TestMembersBehindTCP(t *testing.T) {
	c := newCluster(t)
	c.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if network == "udp" {
			return nil, errors.New("no UDP here")
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	a, b := c.start("a"), c.start("b", connected("e2", 1))
	a.awaitProxies("e2@1")
	b.proxies.set([]*weirv1.ProxyStatus{connected("e2", 2)})
	a.awaitProxies("e2@2")
}

// One changed proxy of a thousand travels alone.
func TestOnlyChangesTravel(t *testing.T) {
	c := newCluster(t)
	var proxies []*weirv1.ProxyStatus
	for i := range 1000 {
		proxies = append(proxies, connected(fmt.Sprintf("e%04d", i), 1))
	}
	s := c.start("a", proxies...)
	ask := c.asks(c.node(identity.RoleServer, "b"), s)
	m := ask(0, forbearance)
	if !m.GetFull() || len(m.GetReport().GetProxies()) != 1000 || m.GetVersion() == 0 {
		t.Fatalf("first: full %t, %d proxies", m.GetFull(), len(m.GetReport().GetProxies()))
	}
	again := ask(m.GetVersion(), 0)
	if again.GetFull() || again.GetVersion() != m.GetVersion() || len(again.GetReport().GetProxies()) != 0 || again.GetReport().GetNow() == nil {
		t.Fatalf("nothing new: got %v", again)
	}
	changed := append([]*weirv1.ProxyStatus{connected("e0000", 2)}, proxies[1:999]...)
	s.proxies.set(changed)
	news := ask(m.GetVersion(), forbearance)
	if news.GetFull() || len(news.GetReport().GetProxies()) != 1 || news.GetReport().GetProxies()[0].GetRevision() != 2 ||
		len(news.GetRemoved()) != 1 || news.GetRemoved()[0] != "e0999" {
		t.Fatalf("one changed, one removed: full %t, %d proxies, removed %q", news.GetFull(), len(news.GetReport().GetProxies()), news.GetRemoved())
	}
	if stranger := ask(news.GetVersion()+1, forbearance); !stranger.GetFull() || len(stranger.GetReport().GetProxies()) != 999 {
		t.Fatalf("a version that never was: full %t, %d proxies", stranger.GetFull(), len(stranger.GetReport().GetProxies()))
	}
}

// asks makes calls at a server as somebody.
func (c *cluster) asks(as *identity.Identity, s *server) func(after uint64, wait time.Duration) *weirv1.ReportResponse {
	api := c.api(as.ClientTLS, s)
	return func(after uint64, wait time.Duration) *weirv1.ReportResponse {
		c.t.Helper()
		m, err := api.Report(bounded(c.t), &weirv1.ReportRequest{After: after, Wait: durationpb.New(wait)})
		if err != nil {
			c.t.Fatal(err)
		}
		return m
	}
}

func (c *cluster) api(trust nodeport.Trust, s *server) weirv1connect.PeerServiceClient {
	c.t.Helper()
	link, err := s.dialer.Link(bounded(c.t), s.address, trust)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(link.Close)
	return weirv1connect.NewPeerServiceClient(connect.NewClient(connecthttp.NewTransport(link, "https://"+s.address, fastGzip())))
}

// A member that stops counts as silent, and is known again when it is back:
// another process, at another address, with other proxies.
func TestMemberIsRestarted(t *testing.T) {
	c := newCluster(t)
	a, b := c.start("a", connected("e1", 1)), c.start("b", connected("e2", 1), connected("e3", 1))
	a.awaitProxies("e1@1", "e2@1", "e3@1")
	b.stop()
	a.awaitProxies("e1@1", "-e2@1", "-e3@1")
	a.eventually("told why", func() bool { return a.fleet.Reports()[0].Err != nil })
	if r := a.fleet.Reports()[0]; r.Report == nil || r.Age < silentAfter {
		t.Errorf("got %+v", r)
	}
	again := c.startAs(b.node, connected("e2", 2))
	for _, s := range []*server{a, again} {
		s.awaitProxies("e1@1", "e2@2")
	}
	a.eventually("heard of it as it is now", func() bool {
		r := a.fleet.Reports()[0]
		return r.Err == nil && r.Report.GetMember().GetAddress() == again.address
	})
	if a.log.count("blocked") != 0 {
		t.Error("a member that is down was called blocked")
	}
}

// A member that was never there is told of once, and one that was taken out is
// forgotten with its proxies.
func TestMembersComeAndGo(t *testing.T) {
	c := newCluster(t)
	a, b := c.start("a"), c.start("b", connected("e2", 1))
	a.awaitProxies("e2@1")
	c.place("x", deadAddress(t))
	a.eventually("said that x does not answer", func() bool { return len(a.fleet.Reports()) == 2 && a.fleet.Reports()[1].Err != nil })
	if r := a.fleet.Reports()[1]; r.Name != "x" || r.Report != nil {
		t.Errorf("got %+v", r)
	}
	c.place("x", "")
	c.place("b", "")
	a.awaitProxies()
	a.eventually("forgot them", func() bool { return len(a.fleet.Reports()) == 0 })
	c.place("b", b.address)
	a.awaitProxies("e2@1")
}

func deadAddress(t *testing.T) string {
	port, err := nodeport.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	return port.Addr().String()
}

// Who answers at a member's address is not the member for that.
func TestAnotherServerIsNotBelieved(t *testing.T) {
	c := newCluster(t)
	a, b := c.start("a"), c.start("b", connected("e2", 1))
	a.awaitProxies("e2@1")
	c.place("x", b.address)
	a.eventually("noticed", func() bool {
		r := a.fleet.Reports()
		return len(r) == 2 && r[1].Err != nil && strings.Contains(r[1].Err.Error(), "it is not the server x")
	})
}

func TestStrangersAreRefused(t *testing.T) {
	c := newCluster(t)
	s := c.start("a", connected("e1", 1))
	edge, server := c.node(identity.RoleEdge, "e1"), c.node(identity.RoleServer, "b")
	for name, test := range map[string]struct {
		trust nodeport.Trust
		want  connect.Code
	}{
		"an edge": {edge.ClientTLS, connect.CodePermissionDenied},
		"nobody":  {withoutCertificate(server), connect.CodeUnauthenticated},
	} {
		_, err := c.api(test.trust, s).Report(bounded(t), &weirv1.ReportRequest{})
		if connect.CodeOf(err) != test.want {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := c.api(server.ClientTLS, s).Report(bounded(t), &weirv1.ReportRequest{}); err != nil {
		t.Error(err)
	}
}

// A question that waits ends with the fleet.
func TestStopEndsQuestions(t *testing.T) {
	c := newCluster(t)
	s := c.start("a")
	b := c.node(identity.RoleServer, "b")
	version := c.asks(b, s)(0, forbearance).GetVersion()
	api, ended, ctx := c.api(b.ClientTLS, s), make(chan error, 1), bounded(t)
	go func() {
		_, err := api.Report(ctx, &weirv1.ReportRequest{After: version, Wait: durationpb.New(forbearance)})
		ended <- err
	}()
	s.fleet.end()
	if err := <-ended; connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("got %v", err)
	}
}
