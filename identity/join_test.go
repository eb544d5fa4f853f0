package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirmesh/weir/identity/identitytest"
	"github.com/weirmesh/weir/identity/record"
)

// members are the registrars of a cluster's servers, over the same records.
func members(t *testing.T, n int) (*identitytest.Records, []*Registrar) {
	t.Helper()
	records, path := identitytest.NewRecords(), filepath.Join(t.TempDir(), "keyring")
	var list []*Registrar
	for range n {
		keyring, err := OpenKeyring(path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := OpenRegistrar(t.Context(), records, keyring, 0)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return records, list
}

func listJoin(t *testing.T, r *Registrar) JoinToken {
	t.Helper()
	list, err := r.Tokens().ListJoin(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("tokens are %v, %v", list, err)
	}
	return list[0]
}

func TestASingleUseTokenAdmitsOne(t *testing.T) {
	_, registrars := members(t, 3)
	token := createJoin(t, registrars[0], JoinTokenConfig{Role: RoleEdge, TTL: time.Hour, Uses: 1, By: "alice"})
	var group sync.WaitGroup
	errs := make([]error, 12)
	for n := range errs {
		node := newIdentity(t)
		group.Go(func() { _, errs[n] = join(t, registrars[n%3], token, "e"+string(rune('a'+n)), node) })
	}
	group.Wait()
	admitted := 0
	for _, err := range errs {
		if err == nil {
			admitted++
		} else if !errors.Is(err, ErrTokenUsed) || !errors.Is(err, ErrToken) {
			t.Errorf("one too many got %v", err)
		}
	}
	nodes, err := registrars[1].Nodes(t.Context())
	if admitted != 1 || err != nil || len(nodes) != 1 || nodes[0].Token != token.ID {
		t.Fatalf("%d were admitted, and the nodes are %v, %v", admitted, nodes, err)
	}
	if seen := listJoin(t, registrars[2]); seen.Uses != 1 || seen.Made != 1 || seen.By != "alice" || seen.ID != token.ID ||
		!errors.Is(seen.Refusal(), ErrTokenUsed) {
		t.Fatalf("it is listed as %+v", seen)
	}
}

func TestATokenOfSeveralUses(t *testing.T) {
	_, registrars := members(t, 2)
	token := createJoin(t, registrars[0], JoinTokenConfig{Role: RoleSidecar, Tenant: "default", Service: "books", TTL: time.Hour, Uses: 5})
	var group sync.WaitGroup
	var mu sync.Mutex
	admitted := 0
	for n := range 8 {
		node := newIdentity(t)
		group.Go(func() {
			if _, err := join(t, registrars[n%2], token, "s"+string(rune('a'+n)), node); err == nil {
				mu.Lock()
				defer mu.Unlock()
				admitted++
			}
		})
	}
	group.Wait()
	if seen := listJoin(t, registrars[1]); admitted != 5 || seen.Made != 5 {
		t.Fatalf("%d were admitted, and it is listed as %+v", admitted, seen)
	}
}

func TestATokenForAnyNumberCountsToo(t *testing.T) {
	_, registrars := members(t, 2)
	token := edgeToken(t, registrars[0])
	for n := range 4 {
		if _, err := join(t, registrars[n%2], token, "e"+string(rune('a'+n)), newIdentity(t)); err != nil {
			t.Fatal(err)
		}
	}
	if seen := listJoin(t, registrars[1]); seen.Uses != 0 || seen.Made != 4 || seen.Refusal() != nil {
		t.Fatalf("it is listed as %+v", seen)
	}
}

// What is refused for another reason does not use the token up.
func TestARefusalIsNoUse(t *testing.T) {
	_, registrars := members(t, 1)
	r := registrars[0]
	token := createJoin(t, r, JoinTokenConfig{Role: RoleEdge, TTL: time.Hour, Uses: 1}).String()
	enrolled(t, r, RoleEdge, "taken")
	csr := request(t, newIdentity(t))
	for name, c := range map[string]struct {
		request JoinRequest
		want    error
	}{
		"a wrong role":    {JoinRequest{Token: token, Name: "e1", Role: RoleServer, CSR: csr}, ErrRequest},
		"a bad name":      {JoinRequest{Token: token, Name: "E1", CSR: csr}, ErrRequest},
		"no request":      {JoinRequest{Token: token, Name: "e1"}, ErrRequest},
		"a name in use":   {JoinRequest{Token: token, Name: "taken", CSR: csr}, ErrInUse},
		"a forged secret": {JoinRequest{Token: strings.Replace(token, token[20:24], "AAAA", 1), Name: "e1", CSR: csr}, ErrToken},
	} {
		if _, err := r.Join(t.Context(), c.request, func(ID) bool { return true }); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if seen := listJoin(t, r); seen.Made != 0 {
		t.Fatalf("refusals have used it: %+v", seen)
	}
	if _, err := r.Join(t.Context(), JoinRequest{Token: token, Name: "e1", Role: RoleEdge, CSR: csr}, nobody); err != nil {
		t.Fatal(err)
	}
}

// The answer was lost: the node asks again, at any member, and gets it.
func TestJoiningAgainIsNoSecondUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, registrars := members(t, 2)
		token := createJoin(t, registrars[0], JoinTokenConfig{Role: RoleEdge, TTL: time.Hour, Uses: 1})
		node := newIdentity(t)
		for n := range 3 {
			admitted, err := join(t, registrars[n%2], token, "e1", node)
			if err != nil {
				t.Fatalf("time %d: %v", n+1, err)
			}
			if err := node.Install(admitted.Credentials); err != nil {
				t.Fatal(err)
			}
			time.Sleep(40 * time.Minute) // the third time the token has expired
		}
		if _, err := join(t, registrars[1], token, "e2", node); !errors.Is(err, ErrTokenExpired) {
			t.Fatalf("the same node under another name: %v", err)
		}
		if err := registrars[0].Remove(t.Context(), RoleEdge, "e1", "alice"); err != nil {
			t.Fatal(err)
		}
		if _, err := join(t, registrars[1], token, "e1", node); !errors.Is(err, ErrTokenExpired) {
			t.Fatalf("after it was removed: %v", err)
		}
	})
}

// The node that the records know and the use of the token are one change: when
// it fails nothing of it is there.
func TestAJoinThatIsNotRecordedIsNoUse(t *testing.T) {
	records, registrars := members(t, 1)
	token := createJoin(t, registrars[0], JoinTokenConfig{Role: RoleEdge, TTL: time.Hour, Uses: 1})
	records.Before(func([]record.Change) error { return context.DeadlineExceeded })
	node := newIdentity(t)
	if _, err := join(t, registrars[0], token, "e1", node); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("with no majority: %v", err)
	}
	records.Before(nil)
	if seen := listJoin(t, registrars[0]); seen.Made != 0 {
		t.Fatalf("it was used: %+v", seen)
	}
	if _, err := join(t, registrars[0], token, "e1", node); err != nil {
		t.Fatal(err)
	}
}

func TestARevokedToken(t *testing.T) {
	records, registrars := members(t, 2)
	token := edgeToken(t, registrars[0])
	// It is revoked at the other member just when a node has passed all checks.
	records.Before(func([]record.Change) error {
		records.Before(nil)
		return registrars[1].Tokens().RevokeJoin(t.Context(), token.ID)
	})
	if _, err := join(t, registrars[0], token, "e1", newIdentity(t)); !errors.Is(err, ErrTokenRevoked) {
		t.Fatalf("got %v", err)
	}
	if seen := listJoin(t, registrars[0]); seen.Revoked.IsZero() {
		t.Fatalf("it is listed as %+v", seen)
	}
	if err := registrars[0].Tokens().RevokeJoin(t.Context(), newID()); !errors.Is(err, ErrNoToken) {
		t.Fatalf("one that there is not: %v", err)
	}
	if err := registrars[0].Tokens().RevokeJoin(t.Context(), token.String()); !errors.Is(err, ErrNoToken) || strings.Contains(err.Error(), ErrToken.Error()) {
		t.Fatalf("a token in place of its id: %v", err)
	}
}

// Only who has a token's secret learns what became of it.
func TestWhyIsToldToTheBearerAlone(t *testing.T) {
	_, registrars := members(t, 1)
	token := edgeToken(t, registrars[0])
	if err := registrars[0].Tokens().RevokeJoin(t.Context(), token.ID); err != nil {
		t.Fatal(err)
	}
	token.Secret = newSecret()
	_, err := join(t, registrars[0], token, "e1", newIdentity(t))
	if !errors.Is(err, ErrToken) || errors.Is(err, ErrTokenRevoked) {
		t.Fatalf("a wrong secret learned %v", err)
	}
}

func TestTokensAreSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, registrars := members(t, 2)
		edgeToken(t, registrars[0])
		sweep := func(want int) {
			t.Helper()
			var group sync.WaitGroup
			for _, r := range registrars {
				group.Go(func() {
					if err := r.Tokens().sweep(t.Context(), time.Now()); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			if list, err := registrars[0].Tokens().ListJoin(t.Context()); err != nil || len(list) != want {
				t.Fatalf("%v, %v; want %d", list, err, want)
			}
		}
		time.Sleep(time.Hour + time.Second)
		sweep(1)
		time.Sleep(tokenMemory)
		sweep(0)
	})
}

func TestAServerJoins(t *testing.T) {
	_, registrars := members(t, 1)
	r := registrars[0]
	token := createJoin(t, r, JoinTokenConfig{Role: RoleServer, TTL: time.Hour})
	node := newIdentity(t)
	admitted, err := join(t, r, token, "s2", node)
	if err != nil || admitted.ID.Role != RoleServer {
		t.Fatalf("admitted as %v, %v", admitted, err)
	}
	path := filepath.Join(t.TempDir(), "keyring")
	for range 2 { // the node asks again, and is given the same again
		installed, err := InstallKeyring(path, admitted.Keyring)
		if err != nil || installed.ID() != r.Keyring().ID() {
			t.Fatal(err)
		}
	}
	keyring, err := ReadKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	second, err := OpenRegistrar(t.Context(), r.records, keyring, 0)
	if err != nil || second.Authority().Fingerprint() != r.Authority().Fingerprint() {
		t.Fatalf("the second server's authority: %v", err)
	}
	if err := second.EnrolServer(t.Context(), node, "s2", Names{}); err != nil {
		t.Fatal(err)
	}
	// It is known under its new address as soon as it says so.
	if err := second.EnrolServer(t.Context(), node, "s2", Names{DNS: []string{"moved.example"}}); err != nil {
		t.Fatal(err)
	}
	if names := chainOf(t, node)[0].DNSNames; len(names) != 2 || names[1] != "moved.example" {
		t.Fatalf("it is named %v", names)
	}
	// A server keeps its name, whoever is connected.
	if _, err := join(t, r, token, "s2", newIdentity(t)); !errors.Is(err, ErrInUse) {
		t.Fatalf("another server of that name: %v", err)
	}
	if err := second.EnrolServer(t.Context(), newIdentity(t), "s2", Names{}); !errors.Is(err, ErrSuperseded) {
		t.Fatalf("another disk under that name: %v", err)
	}
}

func TestARemovedServerMustJoinAnew(t *testing.T) {
	records, registrars := members(t, 2)
	r, other := registrars[0], registrars[1]
	node := newIdentity(t)
	if err := other.EnrolServer(t.Context(), node, "s2", Names{}); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(t.Context(), RoleServer, "s2", "alice"); err != nil {
		t.Fatal(err)
	}
	key := node.key.Public()
	if err := other.Check(t.Context(), node.ID(), key); !errors.Is(err, ErrRemoved) {
		t.Errorf("it is checked as %v", err)
	}
	if _, err := other.Renew(t.Context(), node.ID(), key, request(t, node)); !errors.Is(err, ErrRemoved) {
		t.Errorf("it renews: %v", err)
	}
	if err := other.EnrolServer(t.Context(), node, "s2", Names{}); !errors.Is(err, ErrRemoved) {
		t.Errorf("it enrols itself: %v", err)
	}
	if _, err := other.Enrol(t.Context(), RoleServer, "s2", request(t, node), Names{}); !errors.Is(err, ErrRemoved) {
		t.Errorf("it enrols: %v", err)
	}
	if err := Revive(records, other.Keyring(), node, "s2", Names{}, 0); !errors.Is(err, ErrRemoved) {
		t.Errorf("it revives: %v", err)
	}
	token := createJoin(t, r, JoinTokenConfig{Role: RoleServer, TTL: time.Hour, Uses: 1})
	if _, err := join(t, r, token, "s2", node); err != nil {
		t.Fatal(err)
	}
	if err := other.Check(t.Context(), node.ID(), key); err != nil {
		t.Fatalf("after it joined anew: %v", err)
	}
}

// A member knows by its own state, however old, which certificates of servers are
// of the past; what is newer than its state it lets in.
func TestCheckServer(t *testing.T) {
	records, registrars := members(t, 1)
	r := registrars[0]
	leaf := func(i *Identity) *x509.Certificate { return chainOf(t, i)[0] }
	// later is a certificate as if it had been issued then.
	later := func(i *Identity, by time.Duration) *x509.Certificate {
		c := *leaf(i)
		c.NotBefore, c.NotAfter = c.NotBefore.Add(by), c.NotAfter.Add(by)
		return &c
	}
	check := func(what string, c *x509.Certificate, want error) {
		t.Helper()
		if err := CheckServer(records, c); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	first, second := newIdentity(t), newIdentity(t)
	for _, i := range []*Identity{first, second} {
		if err := issueTo(i, r.Authority(), ID{TrustDomain: r.Authority().TrustDomain(), Role: RoleServer, Name: "s2"}, Names{}, 0); err != nil {
			t.Fatal(err)
		}
	}
	check("one that is not known yet", leaf(first), nil)
	if err := r.EnrolServer(t.Context(), first, "s2", Names{}); err != nil {
		t.Fatal(err)
	}
	check("a member", leaf(first), nil)
	check("one that had the name before", later(second, -time.Hour), ErrSuperseded)
	check("one that has joined since, under that name", later(second, time.Hour), nil)
	if err := r.Remove(t.Context(), RoleServer, "s2", "alice"); err != nil {
		t.Fatal(err)
	}
	check("one that was removed", leaf(first), ErrRemoved)
	check("one that was removed, and revived itself", later(first, time.Hour), ErrRemoved)
	check("one that had the name before that one", later(second, -time.Hour), ErrRemoved)
	check("one that has joined since", later(second, time.Hour), nil)

	founding, err := NewFounding(r.Keyring(), "s2")
	if err != nil {
		t.Fatal(err)
	}
	check("a founder", founding.certificate.Leaf, nil)
}

// A member knows by its own state which proxies are none any more.
func TestCheckProxy(t *testing.T) {
	records, registrars := members(t, 1)
	r := registrars[0]
	check := func(what string, i *Identity, want error) {
		t.Helper()
		if err := CheckProxy(records, i.ID(), chainOf(t, i)[0].PublicKey); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	enter := func() *Identity {
		t.Helper()
		i := newIdentity(t)
		admitted, err := join(t, r, edgeToken(t, r), "e1", i)
		if err == nil {
			err = i.Install(admitted.Credentials)
		}
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	first := enter()
	check("one that has joined", first, nil)
	if err := r.Remove(t.Context(), RoleEdge, "e1", "alice"); err != nil {
		t.Fatal(err)
	}
	check("one that was removed", first, ErrRemoved)
	second := enter()
	check("one whose name another has", first, ErrSuperseded)
	check("that one", second, nil)
	if err := CheckProxy(identitytest.NewRecords(), first.ID(), chainOf(t, first)[0].PublicKey); err != nil {
		t.Errorf("where it is not known yet: %v", err)
	}
}

func TestInstallKeyringLeavesAnotherAlone(t *testing.T) {
	ours, theirs := newKeyring(t), newKeyring(t)
	_, err := InstallKeyring(ours.path, theirs.Export())
	if err == nil || !strings.Contains(err.Error(), ours.ID()) || !strings.Contains(err.Error(), theirs.ID()) {
		t.Fatalf("got %v", err)
	}
	again, err := ReadKeyring(ours.path)
	if err != nil || again.ID() != ours.ID() || len(again.Keys()) != 1 {
		t.Fatalf("it holds %v, %v", again.Keys(), err)
	}
	if _, err := CreateKeyring(ours.path); err == nil {
		t.Fatal("a keyring was overwritten")
	}
}

// A server whose certificate ran out while there was nobody to ask makes itself
// one, and its peers believe it.
func TestRevive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records, registrars := members(t, 2)
		a, b := newIdentity(t), newIdentity(t)
		for name, node := range map[string]*Identity{"a": a, "b": b} {
			if err := registrars[0].EnrolServer(t.Context(), node, name, Names{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(30 * LeafLifetime)
		if _, err := a.Verify(chainOf(t, b)); !errors.Is(err, ErrExpired) {
			t.Fatalf("a month later: %v", err)
		}
		records.Before(func([]record.Change) error { return context.DeadlineExceeded }) // no majority
		for name, node := range map[string]*Identity{"a": a, "b": b} {
			if err := Revive(records, registrars[1].Keyring(), node, name, Names{DNS: []string{name + ".example"}}, 0); err != nil {
				t.Fatal(err)
			}
		}
		if id, err := a.Verify(chainOf(t, b)); err != nil || id.Name != "b" {
			t.Fatalf("revived: %v, %v", id, err)
		}
		if names := chainOf(t, b)[0].DNSNames; len(names) != 2 || names[1] != "b.example" {
			t.Fatalf("it is named %v", names)
		}
		if err := Revive(records, registrars[1].Keyring(), a, "b", Names{}, 0); !errors.Is(err, ErrSuperseded) {
			t.Errorf("under another's name: %v", err)
		}
		if err := Revive(records, newKeyring(t), a, "a", Names{}, 0); !errors.Is(err, ErrSealed) {
			t.Errorf("with another keyring: %v", err)
		}
		if err := Revive(identitytest.NewRecords(), registrars[1].Keyring(), a, "a", Names{}, 0); err == nil {
			t.Error("out of nothing")
		}
	})
}
