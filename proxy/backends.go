package proxy

import (
	"fmt"
	"slices"
	"sync"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/balancer"
	"github.com/weirmesh/weir/proxy/proxyproto"
	"github.com/weirmesh/weir/proxy/service"
	"github.com/weirmesh/weir/proxy/upstream"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/telemetry"
)

// backend is a service, or a subset of one, at work. Rules that name the same
// one share it, and with it the turn of its endpoints.
type backend struct {
	*service.Backend
	metrics  [upstream.Mesh]*telemetry.Series // by protocol; nil: it is not spoken
	affinity *affinity                        // what hashes go by; nil: nothing
	shared   bool                             // its connections carry many requests, which it may send back unread
	upgrades bool                             // it speaks HTTP/1.1, beyond which WebSocket may follow
	bytes    bool                             // it speaks no HTTP
}

// backendKey is what must be equal for rules to share a backend: the very
// declaration of the service, and the subset.
type backendKey struct {
	declared *weirv1.Service
	subset   string
	security upstream.TLS // of its connections, which rests on certificates, too
	// instances are those that are registered, each with its revision.
	instances string
}

// backends are those in use, counted by the rules that hold them.
type backends struct {
	mu    sync.Mutex
	inUse map[backendKey]*sharedBackend
}

type sharedBackend struct {
	backend
	refs int
	give func()
}

// acquire returns a backend and what gives it back.
func (bs *backends) acquire(key backendKey, make func() (backend, func(), error)) (*backend, func(), error) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	shared := bs.inUse[key]
	if shared == nil {
		made, give, err := make()
		if err != nil {
			return nil, nil, err
		}
		shared = &sharedBackend{backend: made, give: give}
		if bs.inUse == nil {
			bs.inUse = map[backendKey]*sharedBackend{}
		}
		bs.inUse[key] = shared
	}
	shared.refs++
	return &shared.backend, func() { bs.release(key, shared) }, nil
}

func (bs *backends) release(key backendKey, shared *sharedBackend) {
	bs.mu.Lock()
	shared.refs--
	last := shared.refs == 0
	if last {
		delete(bs.inUse, key)
	}
	bs.mu.Unlock()
	if last {
		shared.give()
	}
}

// compileBackends resolves what a rule's requests are shared among.
func (p *Proxy) compileBackends(r *rule, tenant string, specs []*weirv1.BackendRef) error {
	weights := make([]uint32, len(specs))
	chosen := 0
	for i, spec := range specs {
		weights[i] = 1
		if spec.Weight != nil {
			weights[i] = spec.GetWeight()
		}
		b, give, err := p.acquireBackend(tenant, spec)
		if err != nil {
			return fmt.Errorf("backend %s: %w", spec.GetName(), err)
		}
		r.held = append(r.held, give)
		r.backends = append(r.backends, b)
		if weights[i] > 0 {
			chosen++
			r.sole = b
		}
	}
	if chosen != 1 {
		r.sole = nil
	}
	r.split = balancer.NewSplit(weights)
	return nil
}

func (p *Proxy) acquireBackend(tenant string, spec *weirv1.BackendRef) (*backend, func(), error) {
	ref := resource.Ref{Kind: resource.KindService, Tenant: tenant, Name: spec.GetName()}
	declared := p.desired.resources[ref].GetService()
	if declared == nil {
		return nil, nil, fmt.Errorf("%s is not there", ref)
	}
	security, err := p.compileUpstreamTLS(tenant, declared.GetSpec())
	if err != nil {
		return nil, nil, fmt.Errorf("tls: %w", err)
	}
	instances := p.desired.instancesOf(ref)
	return p.backends.acquire(backendKey{declared, spec.GetSubset(), security, revisions(instances)}, func() (backend, func(), error) {
		return p.makeBackend(ref, declared.GetSpec(), spec.GetSubset(), security, instances)
	})
}

func (p *Proxy) makeBackend(ref resource.Ref, declared *weirv1.ServiceSpec, subset string, security upstream.TLS, instances []*weirv1.Instance) (backend, func(), error) {
	labels, err := subsetLabels(ref, declared, subset)
	if err != nil {
		return backend{}, nil, err
	}
	cfg := compileService(declared)
	cfg.Name, cfg.Zone = ref.Tenant+"/"+ref.Name, p.cfg.Zone
	key := upstream.Key{Protocol: spoken[declared.GetProtocol()], TLS: security,
		ConnectTimeout: declared.GetConnectTimeout().AsDuration(), MaxConnections: cfg.Limits.MaxConnections,
		Proxy: proxyVersions[declared.GetSendProxyProtocol()]}
	cfg.Health.Check = compileCheck(declared.GetHealthCheck(), p.pools, key)
	for _, e := range declared.GetEndpoints() {
		if !bears(e.GetLabels(), labels) {
			continue
		}
		key.Address = e.GetAddress()
		d := service.Declared{Weight: 1, Zone: e.GetLabels()["zone"], Key: key}
		if e.Weight != nil {
			d.Weight = e.GetWeight()
		}
		cfg.Endpoints = append(cfg.Endpoints, d)
	}
	registered := p.registered(ref, key, labels, instances)
	if len(registered) > 0 && len(cfg.Endpoints) == 0 {
		cfg.Health.Check = nil // their sidecars look after them
	}
	b := backend{affinity: compileAffinity(declared.GetLoadBalancing().GetHash()), shared: key.Protocol != upstream.HTTP1 || len(registered) > 0,
		upgrades: key.Protocol == upstream.HTTP1, bytes: declared.GetProtocol() == weirv1.ServiceSpec_TCP}
	var speaks []upstream.Protocol
	if len(registered) == 0 || len(cfg.Endpoints) > 0 {
		speaks = append(speaks, key.Protocol)
	}
	if len(registered) > 0 {
		speaks = append(speaks, upstream.HTTP3, upstream.HTTP2)
		if b.upgrades {
			speaks = append(speaks, upstream.HTTP1)
		}
		cfg.Endpoints = append(cfg.Endpoints, registered...)
	}
	b.Backend = p.services.Open(cfg)
	forget := p.countBy(&b, speaks)
	return b, func() {
		b.Close()
		forget()
	}, nil
}

// countBy gives the backend the series of what it speaks, and returns what gives them
// up.
func (p *Proxy) countBy(b *backend, speaks []upstream.Protocol) (forget func()) {
	for _, protocol := range speaks {
		if b.metrics[protocol] == nil {
			b.metrics[protocol] = p.cfg.Metrics.Service(b.Service(), protocol.String())
		}
	}
	series := b.metrics
	return func() {
		for protocol, s := range series {
			if s != nil {
				p.cfg.Metrics.ForgetService(b.Service(), upstream.Protocol(protocol).String())
			}
		}
	}
}

// countCopy is count for a mirrored request, of which it is not known which of several
// protocols carried it: the newest.
func (b *backend) countCopy(status int, took time.Duration) {
	for _, series := range slices.Backward(b.metrics[:]) {
		if series != nil {
			series.Answered(status, took)
			return
		}
	}
}

// count notes how a request was answered; a status of 0: not at all.
func (b *backend) count(s *upstream.Stream, status int, took time.Duration) {
	b.metrics[s.Spoken()].Answered(status, took)
}

var proxyVersions = map[weirv1.ServiceSpec_ProxyProtocolVersion]proxyproto.Version{
	weirv1.ServiceSpec_V1: proxyproto.V1, weirv1.ServiceSpec_V2: proxyproto.V2,
}

func subsetLabels(ref resource.Ref, service *weirv1.ServiceSpec, subset string) (map[string]string, error) {
	if subset == "" {
		return nil, nil
	}
	for _, s := range service.GetSubsets() {
		if s.GetName() == subset {
			return s.GetLabels(), nil
		}
	}
	return nil, fmt.Errorf("%s has no subset %s", ref, subset)
}

func bears(labels, wanted map[string]string) bool {
	for k, v := range wanted {
		if labels[k] != v {
			return false
		}
	}
	return true
}
