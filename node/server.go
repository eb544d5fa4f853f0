package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeapi"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/store"
)

// server is a running member.
type server struct {
	store     *store.Store
	cluster   *cluster.Node
	records   records
	registrar *identity.Registrar
	identity  *identity.Identity
	api       *nodeapi.Server
	// Where the APIs can be reached from this host.
	nodeAddress, adminAddress string
}

// startServer starts a member with its data in dir.
func (p *process) startServer(cfg Config, sc ServerConfig, dir string, host *host) (*server, error) {
	s := new(server)
	// The addresses first: nothing is written when they are taken.
	socket, err := net.ListenPacket("udp", sc.Node)
	if err != nil {
		return nil, fmt.Errorf("start node API: %w", err)
	}
	listener, err := net.Listen("tcp", sc.Admin)
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("start admin API: %w", err)
	}
	s.nodeAddress, s.adminAddress = reachable(socket.LocalAddr()), reachable(listener.Addr())
	served := false
	defer func() {
		if !served {
			socket.Close()
			listener.Close()
		}
	}()
	if err := s.startLog(p, sc, dir); err != nil {
		return nil, err
	}
	keyring, err := identity.OpenKeyring(filepath.Join(dir, "keyring"))
	if err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	if err := s.startIdentity(p, sc, dir, keyring); err != nil {
		return nil, err
	}
	handler, err := s.adminHandler(cfg, sc, host, keyring)
	if err != nil {
		return nil, err
	}
	if !sc.Open {
		if err := s.leaveAdminEnv(p.ctx, filepath.Join(dir, "admin.env")); err != nil {
			return nil, err
		}
	}
	s.api = nodeapi.NewServer(nodeapi.ServerConfig{
		Identity: s.identity, Registrar: s.registrar, Source: source{s.store, keyring, p.log.With("part", "node API")},
		Logger: p.log.With("part", "node API"), ResetKey: keyring.Derive("quic stateless reset"),
	})
	served = true
	p.run("node API", func(ctx context.Context) error { return s.api.Serve(ctx, socket) })
	p.run("admin API", func(ctx context.Context) error {
		log := p.log.With("part", "admin API")
		if sc.Open {
			return admin.Serve(ctx, listener, handler, nil, log)
		}
		return admin.Serve(ctx, listener, handler, s.identity.WebTLS("h2", "http/1.1"), log)
	})
	p.log.Info("server started", "name", sc.Name, "node", socket.LocalAddr().String(), "admin", listener.Addr().String(),
		"trust_domain", s.identity.TrustDomain(), "revision", s.store.View().Revision())
	return s, nil
}

// startLog opens the store and has the log fill it. The identity, opened first,
// tells a server that is new from one that has lost its log.
func (s *server) startLog(p *process, sc ServerConfig, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	if s.identity, err = identity.Open(filepath.Join(dir, "identity")); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	if s.store, err = store.Open(store.Config{Dir: filepath.Join(dir, "state"), Logger: p.log.With("part", "store")}); err != nil {
		return err
	}
	p.onStop("store", s.store.Close)
	s.cluster, err = cluster.Start(cluster.Config{
		Name: sc.Name, Dir: filepath.Join(dir, "raft"), Address: s.nodeAddress, Logger: p.log.With("part", "cluster"),
		// A certificate is only ever issued by way of a log.
		Existing: s.identity.Joined(),
	}, s.store)
	if err != nil {
		return err
	}
	p.onStop("cluster", s.cluster.Close)
	if err := s.cluster.Ready(p.ctx); err != nil {
		return fmt.Errorf("start server: wait for the log: %w", err)
	}
	s.records = records{s.store, s.cluster}
	return nil
}

// startIdentity opens the authority and gives this server a certificate of it,
// at each start: the addresses in it may have changed.
func (s *server) startIdentity(p *process, sc ServerConfig, dir string, keyring *identity.Keyring) (err error) {
	if s.registrar, err = identity.OpenRegistrar(p.ctx, s.records, keyring); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	names := namesOf(sc.Admin, sc.Node)
	issue := func(ctx context.Context, csr []byte) (*weirv1.Credentials, error) {
		return s.registrar.Enrol(ctx, identity.RoleServer, sc.Name, csr, names)
	}
	csr, err := s.identity.Request()
	if err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	issued, err := issue(p.ctx, csr)
	if err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	if err := s.identity.Install(issued); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	p.run("identity", func(ctx context.Context) error {
		s.identity.Maintain(ctx, p.log.With("part", "identity"), issue)
		return ctx.Err()
	})
	return nil
}

// namesOf is what this host may be called by those who verify the name: itself,
// and what its addresses say; every address, where they say so.
func namesOf(addresses ...string) identity.Names {
	names := identity.Names{DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
	add := func(ip net.IP) {
		if !slices.ContainsFunc(names.IPs, ip.Equal) {
			names.IPs = append(names.IPs, ip)
		}
	}
	if hostname, err := os.Hostname(); err == nil {
		names.DNS = append(names.DNS, hostname)
	}
	for _, address := range addresses {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			continue
		}
		switch ip := net.ParseIP(host); {
		case host == "" || ip != nil && ip.IsUnspecified():
			own, _ := net.InterfaceAddrs() // none is better than no server
			for _, a := range own {
				if n, ok := a.(*net.IPNet); ok {
					add(n.IP)
				}
			}
		case ip != nil:
			add(ip)
		case !slices.Contains(names.DNS, host):
			names.DNS = append(names.DNS, host)
		}
	}
	return names
}

// localToken admits the edge of the same process, whose data is in dir. It is
// empty when the edge belongs to this cluster already.
func (s *server) localToken(ctx context.Context, dir string) (string, error) {
	node, err := identity.Open(filepath.Join(dir, "identity"))
	if err != nil {
		return "", fmt.Errorf("start edge: %w", err)
	}
	if node.Knows(identity.Token{Fingerprint: s.registrar.Authority().Fingerprint()}) {
		return "", nil
	}
	token, _, err := s.registrar.Tokens().CreateJoin(ctx, identity.RoleEdge, 5*time.Minute)
	return token, err
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
