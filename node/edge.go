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

// edge is a running proxy.
type edge struct {
	proxy *proxy.Proxy
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
	log := p.log.With("part", "edge")
	node, err := identity.Open(filepath.Join(dir, "identity"))
	if err != nil {
		return nil, fmt.Errorf("start edge: %w", err)
	}
	keyring, err := identity.OpenKeyring(filepath.Join(dir, "keyring"))
	if err != nil {
		return nil, fmt.Errorf("start edge: %w", err)
	}
	if err := p.join(node, ec, dir); err != nil {
		return nil, fmt.Errorf("start edge: %w", err)
	}
	dialer := p.newDialer()
	e := &edge{inForce: make(chan struct{}), pause: make(chan chan struct{})}
	e.force = sync.OnceFunc(func() { close(e.inForce) })
	e.connect = func() (*nodeapi.Client, error) {
		client, err := nodeapi.NewClient(nodeapi.ClientConfig{
			Identity: node, Servers: ec.Servers, Dir: dir, Keyring: keyring,
			Labels: ec.Labels, Version: cfg.Version, Logger: log, Dialer: dialer,
			Problem:  func() string { return e.proxy.Problem() }, // asked by a client that runs, and by then there is a proxy
			Canaries: func() []*weirv1.PluginReport { return e.proxy.Canaries() },
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
		return nil, err
	}
	p.run("limits", host.quota.Run)
	if err := e.startProxy(p, cfg, ec, dir, host); err != nil {
		return nil, err
	}
	p.run("edge", e.follow)
	if cfg.Upgrade != nil {
		p.run("upgrade", func(ctx context.Context) error { return e.awaitUpgrade(ctx, p, cfg) })
	}
	log.Info("edge started", "id", node.ID().String(), "labels", ec.Labels, "servers", ec.Servers)
	return e, nil
}

// join makes sure that the node has an identity, and the right one.
func (p *process) join(node *identity.Identity, ec EdgeConfig, dir string) error {
	// A token of another cluster says that the node is to move there. Anything
	// else beside an identity, such as the token that it once joined with, or
	// one for the admin API out of the environment, has nothing to say.
	token, err := identity.ParseToken(ec.Token)
	if moves := err == nil && !node.Knows(token); node.Joined() && !moves {
		if id := node.ID(); id.Name != ec.Name || id.Role != identity.RoleEdge {
			return fmt.Errorf("the data directory %s is that of %s, not of an edge named %s", dir, id, ec.Name)
		}
		return nil
	}
	if ec.Token == "" {
		return errors.New("the edge has not joined yet: give it a token (weir join-token create --role edge)")
	}
	return nodeapi.Join(p.ctx, node, nodeapi.JoinConfig{
		Servers: ec.Servers, Token: ec.Token, Role: identity.RoleEdge, Name: ec.Name, Logger: p.log.With("part", "edge"),
	})
}

func (e *edge) startProxy(p *process, cfg Config, ec EdgeConfig, dir string, host *host) error {
	metrics := telemetry.NewMetrics(cfg.Version)
	var access *telemetry.AccessLog
	if ec.AccessLog != nil {
		access = telemetry.NewAccessLog(ec.AccessLog, metrics.LogLost)
		p.onStop("access log", func() error { access.Close(); return nil })
	}
	memory := p.watchMemory(ec.MemoryLimit)
	err := errors.Join(metrics.Register(host.apis), metrics.Register(host.quota))
	if err != nil {
		return fmt.Errorf("start edge: %w", err)
	}
	usage, err := e.startMeter(p, dir, metrics)
	if err != nil {
		return fmt.Errorf("start edge: %w", err)
	}
	e.proxy, err = proxy.New(proxy.Config{
		Policies: host, Consumers: host.consumers, Meter: usage, PluginKeys: ec.PluginKeys, Metrics: metrics, Access: access, Logger: p.log.With("part", "proxy"), AdminAddress: ec.Admin,
		Zone: ec.Labels["zone"], Overload: memory, MaxConnections: ec.MaxConnections,
		ClientLinger: linger, Listen: cfg.Inherited.Listen, ListenAdmin: cfg.Inherited.Listen,
	})
	if err != nil {
		return fmt.Errorf("start edge: %w", err)
	}
	if err = metrics.Register(host.firewall); err != nil {
		return fmt.Errorf("start edge: %w", err)
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
