package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/mesh"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/probe"
	"github.com/weirmesh/weir/proxy/upstream"
	"github.com/weirmesh/weir/resource"
)

// SidecarConfig is a proxy beside one instance of a service. Its Labels are the
// instance's.
type SidecarConfig struct {
	EdgeConfig
	// Tenant and Service are whom it speaks for; an empty Tenant is the default one.
	Tenant, Service string
	// Address is where the service itself takes requests: HTTP in the clear.
	Address string
	// Inbound is where other proxies reach it, over UDP and TCP. Advertise is that
	// address as they know it; empty: Inbound, with this host's address where that
	// names none.
	Inbound, Advertise string
	// Outbound is where the service reaches others.
	Outbound string
	// HealthPath is asked by HTTP whether the service is well; empty: to be let in by
	// TCP suffices.
	HealthPath string
}

func (c *SidecarConfig) validate() error {
	errs := []error{
		identity.ValidService(cmp.Or(c.Tenant, resource.DefaultTenant), c.Service),
		checkAddress("service", c.Address), checkAddress("inbound", c.Inbound), checkAddress("outbound", c.Outbound),
	}
	if c.Advertise != "" {
		errs = append(errs, checkAddress("advertised", c.Advertise))
	}
	if c.HealthPath != "" && !strings.HasPrefix(c.HealthPath, "/") {
		errs = append(errs, fmt.Errorf("health path %q does not begin with '/'", c.HealthPath))
	}
	if c.Inbound == c.Outbound {
		errs = append(errs, errors.New("inbound and outbound need an address each"))
	}
	return errors.Join(errs...)
}

// startSidecar is `weir sidecar`. The registration starts after all that serves and stops
// before it: when a sidecar stops, nobody is sent to it any more before it takes nothing
// more.
func (p *process) startSidecar(cfg Config) error {
	host, err := p.startHost(cfg)
	if err != nil {
		return err
	}
	r, err := p.startSidecarProxy(cfg, *cfg.Sidecar, cfg.Data, host)
	if err != nil {
		return err
	}
	p.run("registration", r.run)
	return r.edge.ready(p, cfg)
}

// startSidecarProxy starts a proxy beside a service, with its data in dir, and returns
// what registers that.
func (p *process) startSidecarProxy(cfg Config, sc SidecarConfig, dir string, host *host) (*registration, error) {
	sc.Tenant = cmp.Or(sc.Tenant, resource.DefaultTenant)
	e := new(edge)
	var err error
	e.view, err = mesh.New(mesh.Config{Tenant: sc.Tenant, Service: sc.Service, Address: sc.Address, Inbound: sc.Inbound, Outbound: sc.Outbound})
	if err != nil {
		return nil, fmt.Errorf("start sidecar: %w", err)
	}
	_, port, _ := net.SplitHostPort(sc.Outbound) // mesh.New has read it
	outbound, _ := strconv.ParseUint(port, 10, 16)
	is := proxyRole{role: identity.RoleSidecar, tenant: sc.Tenant, service: sc.Service, outbound: uint16(outbound)}
	if err := e.start(p, cfg, sc.EdgeConfig, is, dir, host); err != nil {
		return nil, err
	}
	if err := e.awaitForce(p.ctx); err != nil {
		return nil, err
	}
	if problem := e.proxy.Problem(); problem != "" {
		p.log.Error("the sidecar does not serve all that it should", "part", "sidecar", "problem", problem)
	}
	return newRegistration(e, sc, p, cfg.Inherited != nil), nil
}

const (
	// repeat is how often a sidecar says how its instance is, news or not: what a
	// server was restored without is declared again.
	repeat = 2 * time.Second
	// askEvery and patienceOfAsking are of the health checks; unwellAfter is how many
	// must fail in a row.
	askEvery         = time.Second
	patienceOfAsking = 2 * time.Second
	unwellAfter      = 2
	// farewell bounds the withdrawal when the sidecar stops, and hearsay is how long
	// others have to hear of it.
	farewell = 3 * time.Second
	hearsay  = 500 * time.Millisecond
	// settled is after how many repetitions all that a start needs is over.
	settled = 3
)

// registration keeps the registry told of one instance.
type registration struct {
	edge *edge
	cfg  SidecarConfig
	of   *process
	// news is what is to be said; it holds at most the newest.
	news chan bool
	// registered is closed once a server has it.
	registered chan struct{}
	succeed    func()
	// succeeds: the process before has handed over, and has said how the instance is.
	succeeds bool
}

func newRegistration(e *edge, cfg SidecarConfig, p *process, succeeds bool) *registration {
	done := make(chan struct{})
	return &registration{edge: e, cfg: cfg, of: p, succeeds: succeeds, news: make(chan bool, 1), registered: done, succeed: sync.OnceFunc(func() { close(done) })}
}

// run says how the instance is until ctx ends, and then that it is no more, unless
// another process goes on saying how it is.
func (r *registration) run(ctx context.Context) error {
	asking, stop := context.WithCancel(ctx)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		r.look(asking)
	}()
	defer func() { stop(); <-asked }()

	again := time.NewTicker(repeat)
	defer again.Stop()
	var last string
	unhealthy, known := false, false
	for calm := 0; ; calm++ {
		if calm == settled {
			shedProgram()
		}
		select {
		case <-ctx.Done():
			if !errors.Is(context.Cause(r.of.ctx), errHandedOver) { // else another one speaks for it
				r.withdraw()
			}
			return ctx.Err()
		case unhealthy = <-r.news:
			known = true
		case <-again.C:
		}
		if !known {
			continue
		}
		err := r.register(ctx, unhealthy)
		if err == nil {
			r.succeed()
		}
		if text := fmt.Sprint(err); text != last && ctx.Err() == nil { // not each time
			if last = text; err != nil {
				r.of.log.Warn("instance not registered; trying on", "part", "sidecar", "error", err)
			} else {
				r.of.log.Info("instance registered", "part", "sidecar", "service", r.cfg.Service)
			}
		}
	}
}

func (r *registration) register(ctx context.Context, unhealthy bool) error {
	address, err := r.address()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return r.edge.asking.Load().Register(ctx, &weirv1.RegisterInstanceRequest{Address: address, Labels: maps.Clone(r.cfg.Labels), Unhealthy: unhealthy})
}

// address is where others reach the sidecar. Where the flags name no host it is the
// one by which this host reaches the servers.
func (r *registration) address() (string, error) {
	listen := cmp.Or(r.cfg.Advertise, r.cfg.Inbound)
	host, port, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err != nil || host != "" && (ip == nil || !ip.IsUnspecified()) {
		return listen, err
	}
	c, err := net.Dial("udp", r.cfg.Servers[0]) // which sends nothing
	if err != nil {
		return "", fmt.Errorf("find the address of this host (--advertise names it): %w", err)
	}
	defer c.Close()
	own, _, err := net.SplitHostPort(c.LocalAddr().String())
	return net.JoinHostPort(own, port), err
}

// withdraw says that the instance is no more, and gives others the time to hear it.
func (r *registration) withdraw() {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if err := r.edge.asking.Load().Withdraw(ctx); err != nil {
		r.of.log.Warn("instance not withdrawn; the servers see for themselves", "part", "sidecar", "error", err)
		return
	}
	r.of.log.Info("instance withdrawn", "part", "sidecar")
	time.Sleep(hearsay)
}

// look asks the service how it is, until ctx ends.
func (r *registration) look(ctx context.Context) {
	pools := upstream.NewRegistry(nil)
	defer pools.Close()
	q := &probe.Question{Pools: pools}
	if r.cfg.HealthPath != "" {
		q.HTTP = &probe.HTTP{Path: r.cfg.HealthPath, Expected: []probe.Range{{Start: 200, End: 400}}}
	}
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	failed, said, unhealthy := 0, false, false
	for {
		err := r.ask(ctx, q)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failed = 0
		default:
			failed++
		}
		unknown := !said && r.succeeds && failed > 0 && failed < unwellAfter // what the process before has said holds
		if now := failed >= unwellAfter || failed > 0 && (unhealthy || !said); !unknown && (!said || now != unhealthy) {
			unhealthy, said = now, true
			r.tell(unhealthy, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *registration) ask(ctx context.Context, q *probe.Question) error {
	ctx, cancel := context.WithTimeout(ctx, patienceOfAsking)
	defer cancel()
	return q.Ask(ctx, r.cfg.Address)
}

func (r *registration) tell(unhealthy bool, why error) {
	if unhealthy {
		r.of.log.Warn("the service is not well", "part", "sidecar", "address", r.cfg.Address, "error", why)
	} else {
		r.of.log.Info("the service is well", "part", "sidecar", "address", r.cfg.Address)
	}
	for {
		select {
		case r.news <- unhealthy:
			return
		case <-r.news: // older
		}
	}
}
