package identity

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestJoin(t *testing.T) {
	r := newRegistrar(t)
	token, expires, err := r.Tokens().CreateJoin(t.Context(), RoleEdge, time.Hour)
	if err != nil || time.Until(expires) > time.Hour {
		t.Fatalf("created a token until %v, %v", expires, err)
	}
	i := newIdentity(t)
	id, issued, err := r.Join(t.Context(), token, "e1", request(t, i), nobody)
	if err != nil {
		t.Fatal(err)
	}
	if want := (ID{r.Authority().TrustDomain(), RoleEdge, "e1"}); id != want {
		t.Fatalf("joined as %v, want %v", id, want)
	}
	if err := i.Install(issued); err != nil || i.ID() != id {
		t.Fatalf("installed as %v, %v", i.ID(), err)
	}
	reopened, err := Open(i.dir)
	if err != nil || reopened.ID() != id {
		t.Fatalf("after a restart: %v, %v", reopened.ID(), err)
	}
}

func TestJoinRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, other := newRegistrar(t), newRegistrar(t)
		create := func(r *Registrar) Token {
			s, _, err := r.Tokens().CreateJoin(t.Context(), RoleEdge, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			token, err := ParseToken(s)
			if err != nil {
				t.Fatal(err)
			}
			return token
		}
		good, foreign := create(r), create(other)
		forged := good
		forged.Secret = newSecret()
		admin := adminToken(t, r)
		cases := map[string]struct{ token, want string }{
			"a wrong secret":                {forged.String(), "wrong secret"},
			"another cluster's":             {foreign.String(), "not known"},
			"one that was never made":       {Token{newID(), newSecret(), good.Fingerprint}.String(), "not known"},
			"an admin token":                {admin, "this one is for the admin API"},
			"one cut short":                 {strings.TrimSuffix(good.String(), good.Fingerprint[1:]), "damaged"},
			"nothing":                       {"", "parse join token"},
			"one of the right shape":        {"weir1.a.b.c", "damaged"},
			"one with a dot too many":       {good.String() + ".x", "parse join token"},
			"the hash instead of the token": {Token{good.ID, newSecret(), good.Fingerprint}.String(), "wrong secret"},
		}
		csr := request(t, newIdentity(t))
		for name, c := range cases {
			if _, _, err := r.Join(t.Context(), c.token, "e1", csr, nobody); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want ErrToken with %q", name, err, c.want)
			}
		}
		if _, _, err := r.Join(t.Context(), good.String(), "Not_A_Name", csr, nobody); err == nil || errors.Is(err, ErrToken) {
			t.Errorf("a bad name: got %v", err)
		}
		time.Sleep(time.Hour)
		if _, _, err := r.Join(t.Context(), good.String(), "e1", csr, nobody); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "expired") {
			t.Errorf("an expired token: got %v", err)
		}
	})
}

func adminToken(t *testing.T, r *Registrar) (token string) {
	t.Helper()
	keep := func(made string) error { token = made; return nil }
	if err := r.Tokens().CreateAdmin(t.Context(), "root", keep); err != nil {
		t.Fatal(err)
	}
	return token
}

func nobody(ID) bool { return false }

func TestJoinUnderATakenName(t *testing.T) {
	r := newRegistrar(t)
	token, _, err := r.Tokens().CreateJoin(t.Context(), RoleEdge, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	first, second := newIdentity(t), newIdentity(t)
	join := func(i *Identity, inUse bool) error {
		_, _, err := r.Join(t.Context(), token, "e1", request(t, i), func(id ID) bool { return inUse && id.Name == "e1" })
		return err
	}
	if err := join(first, false); err != nil {
		t.Fatal(err)
	}
	if err := join(second, true); !errors.Is(err, ErrInUse) {
		t.Fatalf("while the first is connected: %v", err)
	}
	if err := join(first, true); err != nil {
		t.Fatalf("the first itself, again: %v", err)
	}
	id := ID{r.Authority().TrustDomain(), RoleEdge, "e1"}
	if err := r.Check(t.Context(), id, first.key.Public()); err != nil {
		t.Fatal(err)
	}
	if err := join(second, false); err != nil {
		t.Fatalf("after the first is gone: %v", err)
	}
	if err := r.Check(t.Context(), id, first.key.Public()); !errors.Is(err, ErrSuperseded) {
		t.Fatalf("the first, after its name was taken: %v", err)
	}
}

func TestCreateJoinBounds(t *testing.T) {
	r := newRegistrar(t)
	for _, c := range []struct {
		role Role
		ttl  time.Duration
	}{{"king", time.Hour}, {"", time.Hour}, {RoleEdge, 0}, {RoleEdge, -time.Second}, {RoleEdge, MaxJoinTTL + 1}} {
		if token, _, err := r.Tokens().CreateJoin(t.Context(), c.role, c.ttl); err == nil {
			t.Errorf("role %q for %s gave %s", c.role, c.ttl, token)
		}
	}
}

func TestTokensAreStoredHashed(t *testing.T) {
	records := newMemory()
	r, err := OpenRegistrar(t.Context(), records, newKeyring(t))
	if err != nil {
		t.Fatal(err)
	}
	join, _, err := r.Tokens().CreateJoin(t.Context(), RoleEdge, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	admin := adminToken(t, r)
	for key, value := range records.values {
		for _, secret := range []string{strings.Split(join, ".")[2], strings.Split(admin, ".")[2]} {
			if strings.Contains(string(value), secret) || strings.Contains(key, secret) {
				t.Errorf("%s holds a secret", key)
			}
		}
	}
}

func TestCheckAdmin(t *testing.T) {
	r := newRegistrar(t)
	token := adminToken(t, r)
	if name, err := r.Tokens().CheckAdmin(t.Context(), token); err != nil || name != "root" {
		t.Fatalf("got %q, %v", name, err)
	}
	join, _, err := r.Tokens().CreateJoin(t.Context(), RoleEdge, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	for name, bad := range map[string]string{
		"a wrong secret": parts[0] + "." + parts[1] + "." + newSecret(),
		"an unknown id":  parts[0] + "." + newID() + "." + parts[2],
		"a join token":   join,
		"nothing":        "",
	} {
		if _, err := r.Tokens().CheckAdmin(t.Context(), bad); !errors.Is(err, ErrToken) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestRenew(t *testing.T) {
	r := newRegistrar(t)
	edge := enrolled(t, r, RoleEdge, "e1")
	peer := edge.key.Public()

	if _, err := r.Renew(t.Context(), edge.ID(), peer, request(t, edge)); err != nil {
		t.Fatalf("its own key: %v", err)
	}
	stranger := newIdentity(t)
	if _, err := r.Renew(t.Context(), edge.ID(), peer, request(t, stranger)); !errors.Is(err, ErrRequest) {
		t.Errorf("a request by another key: %v", err)
	}
	if _, err := r.Renew(t.Context(), edge.ID(), stranger.key.Public(), request(t, edge)); !errors.Is(err, ErrSuperseded) {
		t.Errorf("a connection by another key: %v", err)
	}
	unknown := ID{r.Authority().TrustDomain(), RoleEdge, "e2"}
	if _, err := r.Renew(t.Context(), unknown, peer, request(t, edge)); !errors.Is(err, ErrRemoved) {
		t.Errorf("a node that never joined: %v", err)
	}
	enrolled(t, r, RoleEdge, "e1") // another machine takes the name
	if _, err := r.Renew(t.Context(), edge.ID(), peer, request(t, edge)); !errors.Is(err, ErrSuperseded) {
		t.Errorf("after its name was taken: %v", err)
	}
}

func TestInstallRefusesWhatIsNotItsOwn(t *testing.T) {
	r := newRegistrar(t)
	edge := enrolled(t, r, RoleEdge, "e1")
	other := newIdentity(t)
	issued, err := r.Enrol(t.Context(), RoleEdge, "e2", request(t, other), Names{})
	if err != nil {
		t.Fatal(err)
	}
	if err := edge.Install(issued); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Fatalf("got %v", err)
	}
	own, err := r.Enrol(t.Context(), RoleEdge, "e1", request(t, edge), Names{})
	if err != nil {
		t.Fatal(err)
	}
	own.Roots = newRegistrar(t).Authority().Roots()
	if err := edge.Install(own); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Fatalf("with foreign roots: %v", err)
	}
}
