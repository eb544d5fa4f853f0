package identity

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirmesh/weir/identity/identitytest"
)

func TestJoin(t *testing.T) {
	r := newRegistrar(t)
	token, expires, err := r.Tokens().CreateJoin(t.Context(), JoinTokenConfig{Role: RoleEdge, TTL: time.Hour})
	if err != nil || time.Until(expires) > time.Hour {
		t.Fatalf("created a token until %v, %v", expires, err)
	}
	i := newIdentity(t)
	admitted, err := join(t, r, token, "e1", i)
	if err != nil {
		t.Fatal(err)
	}
	id, issued := admitted.ID, admitted.Credentials
	if admitted.Keyring != nil {
		t.Fatal("an edge was given the cluster's keys")
	}
	if want := (ID{TrustDomain: r.Authority().TrustDomain(), Role: RoleEdge, Name: "e1"}); id != want {
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
		good, foreign := edgeToken(t, r), edgeToken(t, other)
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
		try := func(token, name string) error {
			_, err := r.Join(t.Context(), JoinRequest{Token: token, Name: name, CSR: csr}, nobody)
			return err
		}
		for name, c := range cases {
			if err := try(c.token, "e1"); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want ErrToken with %q", name, err, c.want)
			}
		}
		if err := try(good.String(), "Not_A_Name"); err == nil || errors.Is(err, ErrToken) {
			t.Errorf("a bad name: got %v", err)
		}
		time.Sleep(time.Hour)
		if err := try(good.String(), "e1"); !errors.Is(err, ErrTokenExpired) || !strings.Contains(err.Error(), "expired") {
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

func TestJoinUnderATakenName(t *testing.T) {
	r := newRegistrar(t)
	token := edgeToken(t, r)
	first, second := newIdentity(t), newIdentity(t)
	join := func(i *Identity, inUse bool) error {
		_, err := r.Join(t.Context(), JoinRequest{Token: token.String(), Name: "e1", CSR: request(t, i)},
			func(id ID) bool { return inUse && id.Name == "e1" })
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
	id := ID{TrustDomain: r.Authority().TrustDomain(), Role: RoleEdge, Name: "e1"}
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
	for _, c := range []JoinTokenConfig{
		{Role: "king", TTL: time.Hour}, {TTL: time.Hour}, {Role: RoleEdge}, {Role: RoleEdge, TTL: -time.Second},
		{Role: RoleEdge, TTL: MaxJoinTTL + 1}, {Role: RoleEdge, TTL: time.Hour, Uses: -1},
		{Role: RoleEdge, TTL: time.Hour, Uses: MaxJoinUses + 1},
	} {
		if token, _, err := r.Tokens().CreateJoin(t.Context(), c); err == nil {
			t.Errorf("%+v gave %s", c, token)
		}
	}
}

func TestTokensAreStoredHashed(t *testing.T) {
	records := identitytest.NewRecords()
	r, err := OpenRegistrar(t.Context(), records, newKeyring(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	join := edgeToken(t, r).String()
	admin := adminToken(t, r)
	for _, table := range []string{TableJoinToken, TableAdminToken} {
		entries, err := records.List(t.Context(), table)
		if err != nil || len(entries) != 1 {
			t.Fatalf("table %s has %v, %v", table, entries, err)
		}
		for _, secret := range []string{strings.Split(join, ".")[2], strings.Split(admin, ".")[2]} {
			if strings.Contains(string(entries[0].Value), secret) || strings.Contains(entries[0].Key, secret) {
				t.Errorf("table %s holds a secret", table)
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
	join := edgeToken(t, r).String()
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
	unknown := ID{TrustDomain: r.Authority().TrustDomain(), Role: RoleEdge, Name: "e2"}
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
