package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/mesh"
	"github.com/weirmesh/weir/nodeapi"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/proxy/overload"
	"github.com/weirmesh/weir/telemetry"
)

// How a proxy stops: drain is how long requests in flight may take, unless it is
// told otherwise, linger how long a client that is idle may come with another.
const (
	drain  = 10 * time.Second
	linger = time.Second
)

// edge is a running proxy, at the edge or beside a service.
type edge struct {
	proxy *proxy.Proxy
	view  *mesh.View // of a sidecar; nil at an edge
	// connect makes a client of the servers, follow hands it over to be run; see
	// upgrade.go.
	connect func() (*nodeapi.Client, error)
	client  *nodeapi.Client
	asking  atomic.Pointer[nodeapi.Client] // the same, for others than who runs it
	pause   chan chan struct{}
	inForce chan struct{} // closed once some configuration is
	force   func()
}

// startEdge starts a proxy with its data in dir. It joins first, if it has not.
func (p *process) startEdge(cfg Config, ec EdgeConfig, dir string, host *host) (*edge, error) {
	e := new(edge)
	return e, e.start(p, cfg, ec, proxyRole{role: identity.RoleEdge}, dir, host)
}

// proxyRole is what tells a sidecar from an edge while it starts.
type proxyRole struct {
	role identity.Role
	// tenant and service are whom a sidecar speaks for.
	tenant, service string
	outbound        uint16
}

func (e *edge) start(p *process, cfg Config, ec EdgeConfig, is proxyRole, dir string, host *host) error {
	log := p.log.With("part", string(is.role))
	node, err := identity.Open(filepath.Join(dir, "identity"))
	if err != nil {
		return fmt.Errorf("start %s: %w", is.role, err)
	}
	keyring, err := identity.OpenKeyring(filepath.Join(dir, "keyring"))
	if err != nil {
		return fmt.Errorf("start %s: %w", is.role, err)
	}
	if err := p.join(node, ec, is, dir); err != nil {
		return fmt.Errorf("start %s: %w", is.role, err)
	}
	if err := node.ShutOutDamage(); err != nil {
		log.Warn("not all proxies that were shut out are known until a server tells", "error", err)
	}
	dialer, refused := p.newDialer(), newRefusals(p.log.With("part", "mesh"))
	e.inForce, e.pause = make(chan struct{}), make(chan chan struct{})
	e.force = sync.OnceFunc(func() { close(e.inForce) })
	e.connect = func() (*nodeapi.Client, error) {
		client, err := nodeapi.NewClient(nodeapi.ClientConfig{
			Identity: node, Servers: ec.Servers, Dir: dir, Keyring: keyring,
			Labels: ec.Labels, Version: cfg.Version, Logger: log, Dialer: dialer,
			Problem:  func() string { return host.problem(e.proxy.Problem()) }, // asked by a client that runs, and by then there is a proxy
			Canaries: func() []*weirv1.PluginReport { return e.proxy.Canaries() },
			ShutOut:  func(keys *weirv1.ShutOut, keep bool) { e.takeShutOut(node, refused, keys, keep) },
			Ahead:    func(u nodeapi.Update) { e.proxy.Revoke(proxy.Update(u)) },
		})
		if err == nil {
			get := fetch(client.Blob)
			host.modules.Store(&get)
			host.quota.Through(client.LeaseTokens)
			e.asking.Store(client)
		}
		return client, err
	}
	if e.client, err = e.connect(); err != nil {
		return err
	}
	p.run("limits", host.quota.Run)
	if err := e.startProxy(p, cfg, ec, is, dir, node, keyring, host, refused); err != nil {
		return err
	}
	p.run(string(is.role), e.follow)
	log.Info(string(is.role)+" started", "id", node.ID().String(), "labels", ec.Labels, "servers", ec.Servers)
	return nil
}

// join makes sure that the node has an identity, and the right one.
func (p *process) join(node *identity.Identity, ec EdgeConfig, is proxyRole, dir string) error {
	// A token of another cluster says that the node is to move there. Anything
	// else beside an identity, such as the token that it once joined with, or
	// one for the admin API out of the environment, has nothing to say.
	token, err := identity.ParseToken(ec.Token)
	if moves := err == nil && !node.Knows(token); node.Joined() && !moves {
		return is.check(node, ec.Name, dir)
	}
	if ec.Token == "" {
		return fmt.Errorf("the %s has not joined yet: give it a token (weir join-token create --role %s)", is.role, is.tokenFlags())
	}
	err = nodeapi.Join(p.ctx, node, nodeapi.JoinConfig{
		Servers: ec.Servers, Token: ec.Token, Role: is.role, Name: ec.Name, Logger: p.log.With("part", string(is.role)),
	})
	if err != nil {
		return err
	}
	return is.check(node, ec.Name, dir)
}

// check: who the node is stands in its certificate, and it is that or nothing.
func (is proxyRole) check(node *identity.Identity, name, dir string) error {
	id := node.ID()
	switch {
	case id.Name != name || id.Role != is.role:
		return fmt.Errorf("the data directory %s is that of %s (%s), not of an %s named %s", dir, id, id.Name, is.role, name)
	case id.Tenant != is.tenant || id.Service != is.service:
		return fmt.Errorf("the data directory %s is that of %s, not of a sidecar of service %s: it was joined with a token for that", dir, id, is.service)
	}
	return nil
}

func (is proxyRole) tokenFlags() string {
	if is.role == identity.RoleSidecar {
		return "sidecar --service " + is.service
	}
	return string(is.role)
}

func (e *edge) startProxy(p *process, cfg Config, ec EdgeConfig, is proxyRole, dir string, node *identity.Identity, keyring *identity.Keyring, host *host, refused *refusals) error {
	metrics := telemetry.NewMetrics(cfg.Version)
	var access *telemetry.AccessLog
	if ec.AccessLog != nil {
		access = telemetry.NewAccessLog(ec.AccessLog, metrics.LogLost)
		p.onStop("access log", func() error { access.Close(); return nil })
	}
	memory := p.watchMemory(ec.MemoryLimit)
	for _, c := range append(refused.counters(), host.apis, host.access, host.quota, host.firewall, host.Host, host.GuestMetrics()) {
		if err := metrics.Register(c); err != nil {
			return fmt.Errorf("start %s: %w", is.role, err)
		}
	}
	usage, err := e.startMeter(p, dir, metrics)
	if err != nil {
		return fmt.Errorf("start %s: %w", is.role, err)
	}
	e.proxy, err = proxy.New(proxy.Config{
		Policies: host, Consumers: host.consumers, Meter: usage, PluginKeys: ec.PluginKeys, Metrics: metrics, Access: access, Logger: p.log.With("part", "proxy"), AdminAddress: ec.Admin,
		Mesh: proxyMesh(node, keyring, is, refused), Zone: ec.Labels["zone"], Overload: memory, MaxConnections: ec.MaxConnections,
		ClientLinger: linger, Listen: cfg.Inherited.Listen, ListenAdmin: cfg.Inherited.Listen,
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", is.role, err)
	}
	p.onStop("proxy", func() error { return e.drain(p, cmp.Or(ec.Drain, drain)) })
	return nil
}

// drain shuts the proxy down. Whoever waits longer than it has (a WebSocket, a
// download) is cut, as was agreed: the stop has not failed.
func (e *edge) drain(p *process, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), limit)
	defer cancel()
	err := e.proxy.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		p.log.Warn("connections cut: they were in use for longer than the drain may take", "part", "edge", "drain", limit)
		return nil
	}
	return err
}

// watchMemory starts to watch what the process has of its limit; nil: it has none.
func (p *process) watchMemory(limit int64) *overload.Monitor {
	if limit == 0 {
		limit = overload.Limit()
	}
	if limit <= 0 {
		return nil
	}
	m := overload.Start(limit, p.log.With("part", "memory"))
	p.onStop("memory watch", func() error { m.Close(); return nil })
	return m
}

// apply hands updates to the proxy, and notes when one is in force.
func (e *edge) apply(ctx context.Context, u nodeapi.Update) error {
	if e.view != nil {
		u = nodeapi.Update(e.view.Update(mesh.Update(u)))
	}
	if err := e.proxy.Update(ctx, proxy.Update(u)); err != nil {
		return err
	}
	e.force()
	return nil
}

func (e *edge) awaitForce(ctx context.Context) error {
	select {
	case <-e.inForce:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
