package identity

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// renew has an edge renew at a registrar, as over a connection.
func renew(t *testing.T, r *Registrar, i *Identity) {
	t.Helper()
	issued, err := r.Renew(t.Context(), i.ID(), i.key.Public(), request(t, i))
	if err == nil {
		err = i.Install(issued)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func enrolServer(t *testing.T, r *Registrar, i *Identity, name string) {
	t.Helper()
	if err := r.EnrolServer(t.Context(), i, name, Names{}); err != nil {
		t.Fatal(err)
	}
}

func advance(t *testing.T, r *Registrar, want Phase) {
	t.Helper()
	a, err := r.advance(t.Context())
	if err != nil || a.phase != want {
		t.Fatalf("phase %s, %v; want %s", a.phase, err, want)
	}
}

// rotate goes through a whole rotation, in which server and edges take part and
// nobody else is waited for.
func rotate(t *testing.T, r *Registrar, server *Identity, edges ...*Identity) {
	t.Helper()
	if err := r.RotateRoot(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		enrolServer(t, r, server, server.ID().Name)
		for _, e := range edges {
			renew(t, r, e)
		}
		_, err := r.stepAuthority(t.Context(), func(a *Authority) (*Authority, error) {
			return a.advance(time.Now(), func(uint64) bool { return true }), nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	enrolServer(t, r, server, server.ID().Name)
}

func requireMeeting(t *testing.T, server, edge *Identity) {
	t.Helper()
	if _, serverErr, clientErr := handshake(t, server.ServerTLS("h3"), edge.ClientTLS("h3")); serverErr != nil || clientErr != nil {
		t.Fatalf("server %v, edge %v", serverErr, clientErr)
	}
}

func TestRootRotation(t *testing.T) {
	_, registrars := members(t, 2)
	r, other := registrars[0], registrars[1]
	server, edge := newIdentity(t), enrolled(t, r, RoleEdge, "e1")
	enrolServer(t, r, server, "s1")
	old := r.Authority().Fingerprint()
	advance(t, r, PhaseSteady)
	if err := r.RotateRoot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := other.RotateRoot(t.Context()); !errors.Is(err, ErrRotating) {
		t.Fatalf("a second rotation: %v", err)
	}
	// Every step waits for every node, and whoever has taken it can speak with
	// whoever has not.
	for _, step := range []struct{ now, next Phase }{{PhaseAnnounced, PhaseSigning}, {PhaseSigning, PhaseSteady}} {
		advance(t, other, step.now)
		enrolServer(t, other, server, "s1")
		advance(t, other, step.now)
		state, err := r.Rotation(t.Context())
		if err != nil || len(state.Waiting) != 1 || state.Waiting[0] != "edge/e1" || state.Nodes != 2 || len(state.Roots) != 2 {
			t.Fatalf("state %+v, %v", state, err)
		}
		requireMeeting(t, server, edge)
		// The bundle for those who are no nodes follows.
		if bundle, err := readPEM(server.RootsPath(), "CERTIFICATE"); err != nil || len(bundle) != 2 {
			t.Fatalf("ca.pem holds %d roots, %v", len(bundle), err)
		}
		renew(t, r, edge)
		requireMeeting(t, server, edge)
		advance(t, r, step.next)
		requireMeeting(t, server, edge)
	}
	if r.Authority().Fingerprint() == old || len(r.Authority().Roots()) != 1 {
		t.Fatal("the old root is still there")
	}
	enrolServer(t, r, server, "s1")
	requireMeeting(t, server, edge)
}

// An edge that was off through three rotations knows none of the roots there
// are. It still verifies the server, renews, and is one of them again.
func TestOffThroughWholeRotations(t *testing.T) {
	_, registrars := members(t, 1)
	r := registrars[0]
	server, edge, present := newIdentity(t), enrolled(t, r, RoleEdge, "e1"), enrolled(t, r, RoleEdge, "e2")
	enrolServer(t, r, server, "s1")
	token := edgeToken(t, r)
	for range 3 {
		rotate(t, r, server, present)
	}
	reopened, err := Open(server.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Identity{server, reopened} {
		requireMeeting(t, s, edge)
		id, err := s.Verify(chainOf(t, edge))
		if !errors.Is(err, ErrRetired) || !MayRenew(err) || id != edge.ID() {
			t.Fatalf("verified as %v, %v; want its ID and ErrRetired", id, err)
		}
	}
	// So does one that has but an old token.
	if _, _, err := handshake(t, server.ServerTLS("h3"), JoinTLS(token, "h3")); err != nil {
		t.Fatalf("a token from before: %v", err)
	}
	renew(t, r, edge)
	if _, err := server.Verify(chainOf(t, edge)); err != nil {
		t.Fatalf("after it renewed: %v", err)
	}
	foreign := enrolled(t, newRegistrar(t), RoleEdge, "e1")
	if _, err := server.Verify(chainOf(t, foreign)); MayRenew(err) {
		t.Fatalf("a foreign certificate: %v", err)
	}
}

// A power cut between a node's two files leaves new roots with an old
// certificate.
func TestCutOffBetweenRootsAndCertificate(t *testing.T) {
	_, registrars := members(t, 1)
	r := registrars[0]
	server, edge := newIdentity(t), enrolled(t, r, RoleEdge, "e1")
	enrolServer(t, r, server, "s1")
	rotate(t, r, server, edge)
	absent := enrolled(t, r, RoleEdge, "e2")
	rotate(t, r, server, edge, absent)
	rotate(t, r, server, edge)
	if err := writePEM(absent.dir+"/"+RootsFile, "CERTIFICATE", r.Authority().Roots()); err != nil {
		t.Fatal(err)
	}
	again, err := Open(absent.dir)
	if err != nil || again.ID().Name != "e2" || again.renewAt().After(time.Now()) {
		t.Fatalf("opened as %v, %v, to renew at %v", again.ID(), err, again.renewAt())
	}
	requireMeeting(t, server, again)
}

// All by itself: two servers and an edge that renew in their time, and one that
// is gone for good.
func TestFollowRotatesWithinTwoLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, registrars := members(t, 2)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		log := slog.New(slog.DiscardHandler)
		var servers []*Identity
		for n, r := range registrars {
			server, name := newIdentity(t), []string{"s1", "s2"}[n]
			enrolServer(t, r, server, name)
			servers = append(servers, server)
			running.Go(func() {
				server.Maintain(ctx, log, func(ctx context.Context, _ []byte) (*weirv1.Credentials, error) {
					return nil, r.EnrolServer(ctx, server, name, Names{})
				})
			})
			running.Go(func() {
				r.Follow(ctx, FollowConfig{Every: time.Minute, Logger: log, Changed: func(*Authority) { server.RenewSoon() }})
			})
		}
		edge := enrolled(t, registrars[0], RoleEdge, "e1")
		enrolled(t, registrars[0], RoleEdge, "gone")
		running.Go(func() {
			edge.Maintain(ctx, log, func(ctx context.Context, csr []byte) (*weirv1.Credentials, error) {
				return registrars[1].Renew(ctx, edge.ID(), edge.key.Public(), csr)
			})
		})
		old := registrars[0].Authority().Fingerprint()
		if err := registrars[1].RotateRoot(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			time.Sleep(time.Hour)
			synctest.Wait()
			for _, server := range servers {
				requireMeeting(t, server, edge)
				if id, err := server.Verify(chainOf(t, edge)); err != nil {
					t.Fatalf("%v: %v", id, err)
				}
			}
		}
		state, err := registrars[0].Rotation(t.Context())
		if err != nil || state.Phase != PhaseSteady || state.Roots[0].Fingerprint == old {
			t.Errorf("after sixty hours: %+v, %v", state, err)
		}
		cancel()
		running.Wait()
	})
}

// Each member may take a step at once, and it is taken once.
func TestMembersAdvanceAtOnce(t *testing.T) {
	_, registrars := members(t, 4)
	server := newIdentity(t)
	enrolServer(t, registrars[0], server, "s1")
	if err := registrars[0].RotateRoot(t.Context()); err != nil {
		t.Fatal(err)
	}
	enrolServer(t, registrars[0], server, "s1")
	var group sync.WaitGroup
	for _, r := range registrars {
		group.Go(func() {
			if _, err := r.advance(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if a, err := registrars[3].refresh(t.Context()); err != nil || a.epoch != 2 || a.phase != PhaseSigning {
		t.Fatalf("epoch %d, phase %s, %v", a.epoch, a.phase, err)
	}
}

// A root that nears its end is replaced without being asked.
func TestAnOldRootRotatesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistrar(t)
		time.Sleep(rootLifetime - rotateAhead - time.Hour)
		advance(t, r, PhaseSteady)
		time.Sleep(2 * time.Hour)
		advance(t, r, PhaseAnnounced)
	})
}

func TestANodeAheadOfTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistrar(t)
		server := newIdentity(t)
		enrolServer(t, r, server, "s1")
		leaf := chainOf(t, server)[0]
		if early := time.Since(leaf.NotBefore); early < 5*time.Minute {
			t.Fatalf("a clock %s behind would refuse it", early)
		}
		early := *leaf
		early.NotBefore = time.Now().Add(time.Minute)
		chain := chainOf(t, server)
		chain[0] = &early
		if _, err := server.Verify(chain); !errors.Is(err, ErrEarly) || MayRenew(err) {
			t.Fatalf("got %v", err)
		}
	})
}
