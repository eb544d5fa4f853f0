package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"sync"
	"testing"
)

func founder(t *testing.T, k *Keyring, name string) *Identity {
	t.Helper()
	f, err := NewFounding(k, name)
	if err != nil {
		t.Fatal(err)
	}
	i := newIdentity(t)
	i.Found(f)
	return i
}

func TestFoundersKnowEachOtherByTheKeyring(t *testing.T) {
	keyring := newKeyring(t)
	copied, err := InstallKeyring(t.TempDir()+"/keyring", keyring.Export())
	if err != nil {
		t.Fatal(err)
	}
	a, b := founder(t, keyring, "a"), founder(t, copied, "b")
	state, serverErr, clientErr := handshake(t, a.ServerTLS("raft/1"), b.ClientTLS("raft/1"))
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	id, err := a.Verify(state.PeerCertificates)
	if err != nil || id.Name != "b" || id.Role != RoleServer || !id.Founding() || id.TrustDomain != a.TrustDomain() {
		t.Fatalf("the peer is %v, %v", id, err)
	}
}

func TestWhomFoundersRefuse(t *testing.T) {
	keyring, other := newKeyring(t), newKeyring(t)
	r := newRegistrar(t)
	member := newIdentity(t)
	enrolServer(t, r, member, "m")
	a := founder(t, keyring, "a")
	for name, c := range map[string]struct {
		peer *Identity
		want error
		says string
	}{
		"another key":       {founder(t, other, "b"), ErrOtherKey, "this server has another cluster key than b: here it is " + keyring.ID() + ", there it is " + other.ID()},
		"the same name":     {founder(t, keyring, "a"), ErrSameName, "same name"},
		"a cluster's":       {member, ErrFoundedElse, "join it with a token"},
		"an edge's":         {enrolled(t, r, RoleEdge, "e1"), ErrFoundedElse, r.Authority().TrustDomain()},
		"its own, at least": {a, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := handshake(t, c.peer.ServerTLS("raft/1"), a.ClientTLS("raft/1"))
			if !errors.Is(err, c.want) || c.want != nil && !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want %q", err, c.says)
			}
		})
	}
	if _, _, err := handshake(t, a.ServerTLS("raft/1"), member.ClientTLS("raft/1")); err == nil {
		t.Fatal("a member took a founder of another cluster for its own")
	}
	if _, err := NewFounding(keyring, "No Name"); err == nil {
		t.Fatal("a name that is none")
	}
}

// On the way from founders to members nobody is cut off: whoever is a step
// ahead still speaks with whoever is not, and joining nodes are served.
func TestFoundersBecomeMembers(t *testing.T) {
	_, registrars := members(t, 3)
	names := []string{"a", "b", "c"}
	var nodes []*Identity
	for n, r := range registrars {
		nodes = append(nodes, founder(t, r.Keyring(), names[n]))
	}
	meet := func(when string) {
		t.Helper()
		for _, server := range nodes {
			for _, client := range nodes {
				state, serverErr, clientErr := handshake(t, server.ServerTLS("raft/1"), client.ClientTLS("raft/1"))
				if serverErr != nil || clientErr != nil {
					t.Fatalf("%s: %v, %v", when, serverErr, clientErr)
				}
				if id, err := server.Verify(state.PeerCertificates); err != nil || id.Role != RoleServer {
					t.Fatalf("%s: %v, %v", when, id, err)
				}
			}
		}
	}
	meet("before")
	for n, r := range registrars {
		enrolServer(t, r, nodes[n], names[n])
		meet(names[n] + " has its certificate")
	}
	token := edgeToken(t, registrars[0])
	if _, _, err := handshake(t, nodes[0].ServerTLS("h3"), JoinTLS(token, "h3")); err != nil {
		t.Fatalf("a node that joins meanwhile: %v", err)
	}
	for n, node := range nodes {
		node.Founded()
		meet(names[n] + " speaks as a member")
	}
	state, _, _ := handshake(t, nodes[0].ServerTLS("raft/1"), nodes[1].ClientTLS("raft/1"))
	if id, err := nodes[0].Verify(state.PeerCertificates); err != nil || id.Founding() {
		t.Fatalf("in the end it is %v, %v", id, err)
	}
	// A restart ends what was left of the founding.
	again, err := Open(nodes[0].dir)
	if err != nil {
		t.Fatal(err)
	}
	late := founder(t, registrars[0].Keyring(), "d")
	if _, _, err := handshake(t, again.ServerTLS("raft/1"), late.ClientTLS("raft/1")); !errors.Is(err, ErrFoundedElse) {
		t.Fatalf("a founder that comes too late: %v", err)
	}
	old := late.ClientTLS("raft/1")
	old.VerifyConnection = func(tls.ConnectionState) error { return nil }
	if _, err, _ := handshake(t, again.ServerTLS("raft/1"), old); err == nil {
		t.Fatal("a founder's certificate was believed after the founding")
	}
}

// table is founders that can hear each other.
type table struct {
	t        *testing.T
	founders map[string]*Founders
}

func (tb *table) add(name, address string, expect int) *Founders {
	tb.t.Helper()
	f, err := NewFounders(tb.t.TempDir()+"/founders", Founder{name, address}, expect)
	if err != nil {
		tb.t.Fatal(err)
	}
	tb.founders[name] = f
	return f
}

// tell has one speak to the other, and back.
func (tb *table) tell(a, b string) error {
	return errors.Join(tb.founders[b].Hear(a, tb.founders[a].Hello()), tb.founders[a].Hear(b, tb.founders[b].Hello()))
}

func agreed(t *testing.T, f *Founders) ([]Founder, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what is agreed on is so at once
	return f.Agreed(ctx)
}

// A founder that was stopped before it heard that the others have certificates
// speaks as a founder when it is back. Those that have been started anew meanwhile
// know of no founders; they believe it by the certificate that it has.
func TestALateFounderSpeaksWithThoseWhoKnowOfNoFounders(t *testing.T) {
	_, registrars := members(t, 2)
	late, other := founder(t, registrars[0].Keyring(), "a"), newIdentity(t)
	enrolServer(t, registrars[0], late, "a")
	enrolServer(t, registrars[1], other, "b")
	state, serverErr, clientErr := handshake(t, other.ServerTLS("raft/1"), late.ClientTLS("raft/1"))
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	if id, err := other.Verify(state.PeerCertificates); err != nil || id.Founding() || id.Name != "a" {
		t.Errorf("it is %v, %v", id, err)
	}
	if _, serverErr, clientErr = handshake(t, late.ServerTLS("raft/1"), other.ClientTLS("raft/1")); serverErr != nil || clientErr != nil {
		t.Error(serverErr, clientErr)
	}
}

func TestFoundersAgree(t *testing.T) {
	tb := &table{t, map[string]*Founders{}}
	for _, name := range []string{"c", "a", "b"} {
		tb.add(name, name+":7400", 3)
	}
	if _, err := agreed(t, tb.founders["a"]); err == nil || !strings.Contains(err.Error(), "3 servers are to do it, of whom there are a") {
		t.Fatalf("alone: %v", err)
	}
	var group sync.WaitGroup
	for _, f := range tb.founders {
		group.Go(func() {
			list, err := f.Agreed(t.Context())
			if err != nil || names(list) != "a, b, c" || list[0].Address != "a:7400" {
				t.Errorf("agreed on %v, %v", list, err)
			}
		})
	}
	for _, pair := range [][2]string{{"a", "b"}, {"b", "c"}} {
		if err := tb.tell(pair[0], pair[1]); err != nil {
			t.Fatal(err)
		}
	}
	if others := tb.founders["a"].Others(); len(others) != 1 || others[0] != "b:7400" {
		t.Fatalf("a knows of %v", others)
	}
	for range 2 {
		for _, pair := range [][2]string{{"a", "b"}, {"b", "c"}, {"a", "c"}} {
			if err := tb.tell(pair[0], pair[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	group.Wait()
	// One too many is told so, and disturbs nobody.
	tb.add("d", "d:7400", 3)
	if err := tb.tell("d", "a"); !errors.Is(err, ErrFounding) || !strings.Contains(err.Error(), "d at d:7400 is none of them") {
		t.Fatalf("a fourth: %v", err)
	}
	if _, err := agreed(t, tb.founders["a"]); err != nil {
		t.Fatal(err)
	}
}

// A founder that was committed is so after a restart: there is no second list
// with it in it.
func TestFoundersKeepTheirWord(t *testing.T) {
	tb := &table{t, map[string]*Founders{}}
	for _, name := range []string{"a", "b", "c"} {
		tb.add(name, name+":1", 2)
	}
	if err := tb.tell("a", "b"); err != nil {
		t.Fatal(err)
	}
	again, err := NewFounders(tb.founders["b"].path, Founder{"b", "b:1"}, 2)
	if err != nil {
		t.Fatal(err)
	}
	tb.founders["b"] = again
	if err := tb.tell("c", "b"); !errors.Is(err, ErrFounding) {
		t.Fatalf("another list: %v", err)
	}
	if err := tb.tell("a", "b"); err != nil {
		t.Fatal(err)
	}
	if list, err := agreed(t, again); err != nil || names(list) != "a, b" {
		t.Fatalf("%v, %v", list, err)
	}
	if err := again.Forget(); err != nil || again.Forget() != nil {
		t.Fatal(err)
	}
}

func TestFoundersThatDisagree(t *testing.T) {
	for name, c := range map[string]struct {
		one, two Founder
		n, m     int
		want     string
	}{
		"on how many they are": {Founder{"b", "b:1"}, Founder{"c", "c:1"}, 3, 5, "c expects 5 servers, a expects 3"},
		"on who has a name":    {Founder{"b", "b:1"}, Founder{"b", "b:2"}, 3, 3, "b: at b:1 and at b:2"},
		"with their own":       {Founder{"b", "b:1"}, Founder{"a", "a:2"}, 3, 3, "a: at a:1 and at a:2"},
	} {
		t.Run(name, func(t *testing.T) {
			tb := &table{t, map[string]*Founders{}}
			a := tb.add("a", "a:1", 3)
			one, err := NewFounders(t.TempDir()+"/f", c.one, c.n)
			if err != nil {
				t.Fatal(err)
			}
			two, err := NewFounders(t.TempDir()+"/f", c.two, c.m)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Hear(c.one.Name, one.Hello()); err != nil {
				t.Fatal(err)
			}
			if err := a.Hear(c.two.Name, two.Hello()); !errors.Is(err, ErrFounding) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if _, err := agreed(t, a); !errors.Is(err, ErrFounding) {
				t.Fatalf("it goes on: %v", err)
			}
			if err := a.Hear("z", one.Hello()); !errors.Is(err, ErrFounding) {
				t.Fatalf("one who lies about its name: %v", err)
			}
		})
	}
}
