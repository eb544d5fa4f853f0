package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/acme"
	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/fleet"
	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/internal/pause"
	"github.com/weirmesh/weir/nodeapi"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/store"
)

// server is a running member.
type server struct {
	name, dir string
	log       *slog.Logger
	// lifetime is that of the certificates that it issues.
	lifetime time.Duration
	founders *foundersOf // while it founds a cluster together with others

	port    *nodeport.Port
	dialer  *nodeport.Dialer
	members *nodeport.Members

	identity  *identity.Identity
	keyring   *identity.Keyring
	store     *store.Store
	opened    atomic.Pointer[store.Store] // the same, for those who may ask before
	cluster   *cluster.Node
	records   records
	registrar *identity.Registrar
	keys      *identity.Keys
	accounts  *acme.Accounts
	fleet     *fleet.Fleet
	api       *nodeapi.Server
	// enrolled is closed once registrar is set, for those who may ask before.
	enrolled chan struct{}

	// nodeAddress is where other nodes find this server, adminAddress where the
	// admin API can be reached from this host.
	nodeAddress, adminAddress string
	names                     identity.Names
}

// startServer starts a member with its data in dir.
//
// The order: the ports, so that nothing is written when they are taken; who this
// server is, which a new one has to learn from others first (begin); the log,
// which fills the store with all that this member knows to be agreed on; then the
// APIs, which serve by that, whether or not there is a majority; last the wait
// until this member has caught up with the others.
func (p *process) startServer(cfg Config, sc ServerConfig, dir string, host *host) (*server, error) {
	s := &server{name: sc.Name, dir: dir, log: p.log, lifetime: cmp.Or(sc.CertificateLifetime, identity.LeafLifetime), enrolled: make(chan struct{})}
	listener, err := s.listen(p, sc)
	if err != nil {
		return nil, err
	}
	start, err := s.begin(p, sc)
	if err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	if err := s.startLog(p, sc, start); err != nil {
		return nil, err
	}
	if err := s.startIdentity(p, start); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	if err := s.serve(p, cfg, sc, host, listener); err != nil {
		return nil, err
	}
	switch err := s.cluster.Ready(p.ctx); {
	case errors.Is(err, cluster.ErrRemoved):
		<-p.ctx.Done() // it never becomes ready, and says why to whoever asks
		return nil, context.Cause(p.ctx)
	case err != nil:
		return nil, fmt.Errorf("start server: wait for the log: %w", err)
	}
	if !sc.Open {
		if err := s.leaveAdminEnv(p.ctx, filepath.Join(dir, "admin.env")); err != nil {
			return nil, err
		}
	}
	if err := s.recovered(); err != nil {
		return nil, err
	}
	p.log.Info("server started", "name", sc.Name, "node", s.port.Addr().String(), "advertised", s.nodeAddress,
		"admin", listener.Addr().String(), "trust_domain", s.identity.TrustDomain(), "revision", s.store.View().Revision())
	return s, nil
}

// listen takes the addresses, and makes what speaks on them.
func (s *server) listen(p *process, sc ServerConfig) (net.Listener, error) {
	var err error
	if s.port, err = nodeport.Listen(sc.Node); err != nil {
		return nil, fmt.Errorf("start node API: %w", err)
	}
	listener, err := net.Listen("tcp", sc.Admin)
	if err != nil {
		s.port.Close()
		return nil, fmt.Errorf("start admin API: %w", err)
	}
	p.onStop("admin address", func() error { listener.Close(); return nil }) // by then it is closed, unless the start failed
	p.onStop("node address", func() error { s.port.Close(); return nil })
	s.nodeAddress, s.adminAddress = advertised(sc, s.port.Addr()), reachable(listener.Addr())
	s.names = namesOf(sc.Admin, sc.Node, s.nodeAddress)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	if s.identity, err = identity.Open(filepath.Join(s.dir, "identity")); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	log := p.log.With("part", "node port")
	s.dialer = nodeport.NewDialer(nodeport.DialerConfig{Logger: log})
	p.onStop("dialer", func() error { s.dialer.Close(); return nil })
	s.members = nodeport.NewMembers(s.identity, s.dialer)
	return listener, nil
}

// servePort lets others in. What they are told follows as there is something.
func (s *server) servePort(p *process) {
	p.run("node port", func(ctx context.Context) error {
		return s.port.Serve(ctx, nodeport.Config{
			Identity: s.identity, Members: s.members, Refuse: s.refuseServer, Logger: p.log.With("part", "node port"),
			ResetKey: s.keyring.Derive("quic stateless reset"),
		})
	})
	p.onStop("streams between servers", s.members.Close)
}

// startLog opens the store and has the log fill it.
func (s *server) startLog(p *process, sc ServerConfig, start *beginning) (err error) {
	if s.store, err = store.Open(store.Config{Dir: filepath.Join(s.dir, "state"), Logger: p.log.With("part", "store"), Stop: p.ctx.Done()}); err != nil {
		return err
	}
	p.onStop("store", s.store.Close)
	s.opened.Store(s.store)
	s.cluster, err = cluster.Start(s.clusterConfig(p, sc, start), machine{s.store, s})
	if err != nil {
		return err
	}
	p.onStop("cluster", s.cluster.Close)
	s.records = records{s.store, s.cluster}
	return start.enter(p.ctx, s, sc)
}

func (s *server) clusterConfig(p *process, sc ServerConfig, start *beginning) cluster.Config {
	return cluster.Config{
		Name: sc.Name, Dir: s.raftDir(), Address: s.nodeAddress, Logger: p.log.With("part", "cluster"),
		Network: network{s.members}, Found: start.found, Seeds: sc.Join, Existing: start.existing,
		Admit: s.admit, DeadAfter: sc.DeadAfter, Newest: newestKind,
		Floor: func() uint64 { return s.store.View().Revision() },
	}
}

func (s *server) raftDir() string { return filepath.Join(s.dir, "raft") }

// foundersHear is how long members that found a cluster together may need to hear from each
// other what each of them understands.
const foundersHear = 10 * time.Second

// openRegistrar opens the authority. Where founders have not heard from each other yet,
// each takes the others for older than they are.
func (s *server) openRegistrar(ctx context.Context) (err error) {
	for limit := time.Now().Add(foundersHear); ; {
		s.registrar, err = identity.OpenRegistrar(ctx, s.records, s.keyring, s.lifetime)
		if !errors.Is(err, cluster.ErrTooNew) || time.Now().After(limit) || !pause.For(ctx, 50*time.Millisecond) {
			return err
		}
	}
}

// startIdentity opens the authority and sees to this server's certificate.
func (s *server) startIdentity(p *process, start *beginning) (err error) {
	if err := s.awaitAuthority(p.ctx); err != nil {
		return err
	}
	if s.identity.Joined() && !time.Now().Before(s.identity.NotAfter()) {
		// It was off for long, perhaps all were: nobody else need be asked.
		if err := identity.Revive(s.store.View(), s.keyring, s.identity, s.name, s.names, s.lifetime); err != nil {
			s.log.Warn("the certificate has run out, and cannot be renewed without another server", "error", err)
		}
	}
	if err := s.openRegistrar(p.ctx); err != nil {
		return err
	}
	close(s.enrolled)
	renew := func(ctx context.Context, _ []byte) (*weirv1.Credentials, error) {
		return nil, s.registrar.EnrolServer(ctx, s.identity, s.name, s.names)
	}
	if !s.identity.Joined() {
		if err := start.enrol(p.ctx, s); err != nil {
			return err
		}
	}
	log := p.log.With("part", "identity")
	p.run("identity", func(ctx context.Context) error {
		s.identity.RenewSoon() // the addresses in it may have changed
		s.identity.Maintain(ctx, log, renew)
		return ctx.Err()
	})
	s.accounts = acme.NewAccounts(s.records, s.keyring)
	s.keys = identity.NewKeys(identity.KeysConfig{
		Records: s.records, Keyring: s.keyring, Member: s.name, Members: s.memberNames,
		Sealed: []identity.Sealed{s.registrar, certificates{s}, s.accounts},
	})
	p.run("identity records", func(ctx context.Context) error {
		s.registrar.Follow(ctx, identity.FollowConfig{
			Keys: s.keys, Logger: log, Changed: func(*identity.Authority) { s.identity.RenewSoon() },
		})
		return ctx.Err()
	})
	start.settle(p, s)
	return nil
}

// awaitAuthority waits for the others where this member's own state does not
// hold who is believed here. Where it does, nobody need be waited for.
func (s *server) awaitAuthority(ctx context.Context) error {
	if !s.records.empty(identity.TableAuthority) {
		return nil
	}
	if err := s.cluster.Ready(ctx); err != nil {
		return fmt.Errorf("wait for the log: %w", err)
	}
	return nil
}

// serve answers other nodes and the admin API.
func (s *server) serve(p *process, cfg Config, sc ServerConfig, host *host, listener net.Listener) error {
	addresses := newAddresses(s.cluster)
	s.api = nodeapi.NewServer(nodeapi.ServerConfig{
		Identity: s.identity, Registrar: s.registrar, Source: source{s.store, s.keyring, p.log.With("part", "node API")},
		Logger: p.log.With("part", "node API"), Servers: addresses.now, Leases: newLeases(s.cluster, s.name), Usage: s.addUsage, Instances: registry{s},
		Elsewhere: s.connected,
	})
	s.fleet = s.newFleet(p, cfg.Version)
	handler, err := s.adminHandler(cfg, sc, host)
	if err != nil {
		return err
	}
	s.port.Handle(s.nodeHandler())
	p.run("addresses", addresses.run)
	p.run("fleet", s.fleet.Run)
	p.run("standing", s.mindStanding)
	p.run("removed proxies", s.mindRemoved)
	p.run("canaries", s.mindCanaries)
	p.run("instances", s.mindInstances)
	s.runIssuer(p)
	p.run("node API", s.api.Run) // stops before the port, and ends the streams on it
	p.run("admin API", func(ctx context.Context) error {
		log := p.log.With("part", "admin API")
		if sc.Open {
			return admin.Serve(ctx, listener, handler, nil, log)
		}
		return admin.Serve(ctx, listener, handler, s.identity.WebTLS("h2", "http/1.1"), log)
	})
	return nil
}

// localToken admits a proxy of the same process, whose data is in dir. It is
// empty where that has an identity of this cluster.
func (s *server) localToken(ctx context.Context, dir string, of proxyRole) (string, error) {
	node, err := identity.Open(filepath.Join(dir, "identity"))
	if err != nil {
		return "", fmt.Errorf("start %s: %w", of.role, err)
	}
	if node.Knows(identity.Token{Fingerprint: s.registrar.Authority().Fingerprint()}) {
		return "", nil
	}
	token, _, err := s.registrar.Tokens().CreateJoin(ctx, identity.JoinTokenConfig{
		Role: of.role, Tenant: of.tenant, Service: of.service, TTL: 5 * time.Minute, Uses: 1, By: "weir dev",
	})
	if err != nil {
		return "", fmt.Errorf("start %s: %w", of.role, err)
	}
	return token.String(), nil
}

// awaitAccepted waits until a proxy has accepted all that is declared now.
func (s *server) awaitAccepted(ctx context.Context, proxy string) error {
	revision := s.store.View().Revision()
	for {
		statuses, changed := s.api.Proxies().Statuses()
		for _, p := range statuses {
			if p.GetName() == proxy && p.GetConnected() && p.GetRevision() >= revision && p.GetRefusedRevision() == 0 {
				return nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
