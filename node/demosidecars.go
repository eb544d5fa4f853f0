package node

import (
	"context"
	"errors"
	"path/filepath"
	"sync"

	"github.com/weirmesh/weir/examples/bookshop"
	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/resource"
)

// demoSidecarAdmin is where the sidecar of orders, of the bookshop's the one that calls
// the others most, serves its metrics.
const demoSidecarAdmin = "127.0.0.1:7411"

// startDemoSidecars starts a sidecar beside each of the bookshop's services and waits
// until all of them are registered and know of each other. They share this process and
// nothing else: each joins over the network, as any sidecar would.
func (p *process) startDemoSidecars(cfg Config, s *server) error {
	cfg.Upgrade = nil // which is for the edge
	var all []*registration
	for _, i := range bookshop.Instances() {
		r, err := p.startDemoSidecar(cfg, s, i)
		if err != nil {
			return err
		}
		all = append(all, r)
	}
	p.run("registrations", func(ctx context.Context) error {
		errs := make([]error, len(all))
		var running sync.WaitGroup
		for i, r := range all {
			running.Go(func() { errs[i] = r.run(ctx) })
		}
		running.Wait()
		return errors.Join(errs...)
	})
	for _, r := range all {
		select {
		case <-r.registered:
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	}
	for _, r := range all {
		if err := s.awaitAccepted(p.ctx, r.cfg.Name); err != nil {
			return err
		}
	}
	return nil
}

func (p *process) startDemoSidecar(cfg Config, s *server, beside bookshop.Instance) (*registration, error) {
	dir := filepath.Join(cfg.Data, "sidecars", beside.Name())
	is := proxyRole{role: identity.RoleSidecar, tenant: resource.DefaultTenant, service: beside.Service}
	token, err := s.localToken(p.ctx, dir, is)
	if err != nil {
		return nil, err
	}
	sc := SidecarConfig{
		EdgeConfig: EdgeConfig{
			Name: beside.Name(), Servers: []string{s.nodeAddress}, Token: token, Labels: map[string]string{"version": beside.Version},
			MemoryLimit: -1, // the edge watches over what all of them have
			PluginKeys:  cfg.Edge.PluginKeys,
		},
		Service: beside.Service, Address: beside.Address, Inbound: beside.Inbound, Outbound: beside.Outbound,
	}
	if beside.Service == "orders" {
		sc.Admin = demoSidecarAdmin
	}
	host, err := p.startHost(cfg)
	if err != nil {
		return nil, err
	}
	return p.startSidecarProxy(cfg, sc, dir, host)
}
