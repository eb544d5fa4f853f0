package nodeapi

import (
	"errors"
	"testing"
	"time"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func connected(s *weirv1.ProxyStatus) bool { return s.GetConnected() }

// A server that knows no leader sends its proxies to one that does, and those that come.
func TestServerWithoutALeaderSendsProxiesOn(t *testing.T) {
	a := startCluster(t)
	b := a.sibling("s2")
	a.source.put(gateway("public", nil))
	e := startEdge(t, a.enrol(identity.RoleEdge, "e1"), t.TempDir(), nil, a.address, b.address)
	e.next()
	first, second := a, b
	if !a.server.Proxies().Connected(e.client.cfg.Identity.ID()) {
		first, second = b, a
	}
	first.awaitAccepted("e1", 1)
	first.server.Leaderless(true)
	second.awaitAccepted("e1", 1)
	first.await("e1", func(s *weirv1.ProxyStatus) bool { return !s.GetConnected() })

	newcomer := startEdge(t, a.enrol(identity.RoleEdge, "e2"), t.TempDir(), nil, first.address, second.address)
	newcomer.next()
	second.awaitAccepted("e2", 1)

	// It is a server as any other again once it knows who leads.
	first.server.Leaderless(false)
	second.server.Leaderless(true)
	first.awaitAccepted("e1", 1)
	first.awaitAccepted("e2", 1)
}

// Where no server knows a leader all are taken, and go on; once one does they come to it
// by themselves.
func TestNobodyKnowsALeader(t *testing.T) {
	a := startCluster(t)
	b := a.sibling("s2")
	a.source.put(gateway("public", nil))
	a.server.Leaderless(true)
	b.server.Leaderless(true)
	e := newEdge(t, a.enrol(identity.RoleEdge, "e1"), t.TempDir(), nil, silence(t), a.address, b.address)
	e.client.lookAround = 50 * time.Millisecond
	e.run()
	e.next()
	id := e.client.cfg.Identity.ID()
	at := func() *cluster {
		for limit := time.After(patience); ; {
			for _, s := range []*cluster{a, b} {
				if s.server.Proxies().Connected(id) {
					return s
				}
			}
			select {
			case <-limit:
				t.Fatal("the proxy is connected nowhere")
			case <-time.After(time.Millisecond):
			}
		}
	}
	other := a
	if at() == a {
		other = b
	}
	other.server.Leaderless(false)
	other.await("e1", connected)
	revision := a.source.put(route("r", "public"))
	other.awaitAccepted("e1", revision)
}

// One that stays where no leader is known is not sent on, nor is one that does not know
// how to look for another server.
func TestWhoHasFoundNoLeaderStays(t *testing.T) {
	p := newProxies(10)
	ended := map[string]error{}
	connect := func(name string, wants bool) {
		p.connect(identity.ID{Name: name}, nil, &weirv1.Subscribe{WantsLeader: wants}, "", func(why error) { ended[name] = why })
	}
	connect("wants", true)
	connect("stays", false)
	s := &Server{proxies: p}
	s.Leaderless(true)
	s.Leaderless(true)
	if len(ended) != 1 || !isLeaderless(ended["wants"]) {
		t.Errorf("ended are %v", ended)
	}
	if err := s.turnsAway(&weirv1.Subscribe{}); err != nil {
		t.Errorf("who takes any server is told %v", err)
	}
	if err := s.turnsAway(&weirv1.Subscribe{WantsLeader: true}); !isLeaderless(err) {
		t.Errorf("who wants a leader is told %v", err)
	}
	s.TurnAway(true)
	if err := s.turnsAway(&weirv1.Subscribe{}); !errors.Is(err, errNoServer) {
		t.Errorf("at a server that was removed it is told %v", err)
	}
}

func TestSearchForALeader(t *testing.T) {
	log := logger(t)
	var s search
	for i, step := range []struct {
		server string
		good   bool
		err    error
		wants  bool
	}{
		{"a", true, errNoLeader, true},
		{"b", false, errNoLeader, true},
		{"", false, errSilent, true}, // nothing answers: it is no verdict
		{"a", false, errNoLeader, false},
		{"", false, errSilent, false}, // it stays with any
		{"b", true, errLookAround, true},
		{"a", false, errNoLeader, true},
		{"b", true, errSilent, true}, // it has had one, and begins anew
		{"a", false, errNoLeader, true},
		{"a", false, errNoLeader, false},
	} {
		s.note(log, step.server, step.good, step.err)
		if s.wants() != step.wants {
			t.Fatalf("after step %d it wants a leader: %v", i, s.wants())
		}
	}
}
