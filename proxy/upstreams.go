package proxy

import (
	"cmp"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/balancer"
	"github.com/weirmesh/weir/proxy/health"
	"github.com/weirmesh/weir/proxy/http2"
	"github.com/weirmesh/weir/proxy/http3"
	"github.com/weirmesh/weir/proxy/peer"
	"github.com/weirmesh/weir/proxy/probe"
	"github.com/weirmesh/weir/proxy/resolve"
	"github.com/weirmesh/weir/proxy/service"
	"github.com/weirmesh/weir/proxy/upstream"
)

// upstreams are the registries of what outlives a generation on the services'
// side.
type upstreams struct {
	pools    *upstream.Registry
	health   *health.Registry
	names    *resolve.Registry
	services *service.Registry
}

func newUpstreams(cfg Config) upstreams {
	u := upstreams{
		pools:  upstream.NewRegistry(map[upstream.Protocol]upstream.Dial{upstream.HTTP2: http2.Dial, upstream.HTTP3: http3.Dial, upstream.Mesh: peer.Dial}),
		health: health.NewRegistry(health.Config{Logger: cfg.Logger}),
		names:  resolve.NewRegistry(resolve.Config{Logger: cfg.Logger, Lookup: cfg.Lookup}),
	}
	if cfg.Mesh != nil {
		u.pools.JoinMesh(cfg.Mesh.Client, cfg.Mesh.IsShutOut)
	}
	u.services = service.NewRegistry(service.Registries{Pools: u.pools, Health: u.health, Names: u.names, Logger: cfg.Logger})
	return u
}

func (u *upstreams) close() {
	u.services.Close()
	u.names.Close()
	u.health.Close()
	u.pools.Close()
}

// What holds where a service does not say otherwise. Most are Envoy's.
const (
	defaultPanic          = 50 // percent
	defaultMinRing        = 1024
	defaultMaxRing        = 64 << 10
	defaultPending        = 1024
	defaultBudget         = 20 // percent
	defaultMinRetries     = 3
	defaultLeastShare     = 10 // percent
	defaultCheckInterval  = 10 * time.Second
	defaultCheckTimeout   = 2 * time.Second
	defaultUnhealthy      = 3
	defaultHealthy        = 2
	defaultJitter         = 10 // percent
	defaultConsecutive    = 5
	defaultForgiveness    = 10 * time.Second
	defaultEjection       = 30 * time.Second
	defaultMaxEjection    = 300 * time.Second
	defaultMaxEjectionPct = 10
)

// compileService is what a service says of itself, but for its endpoints and how
// they are asked.
func compileService(spec *weirv1.ServiceSpec) service.Config {
	cfg := service.Config{
		Balance: compileBalance(spec.GetLoadBalancing()),
		Limits:  compileLimits(spec.GetLimits()),
		Health:  health.Settings{Outlier: compileOutlier(spec.GetOutlierDetection())},
		Refresh: spec.GetDns().GetRefreshRate().AsDuration(),
		Network: "ip",
	}
	switch spec.GetDns().GetLookupFamily() {
	case weirv1.DnsResolution_V4_ONLY:
		cfg.Network = "ip4"
	case weirv1.DnsResolution_V6_ONLY:
		cfg.Network = "ip6"
	}
	return cfg
}

var policies = map[weirv1.LoadBalancing_Policy]service.Policy{
	weirv1.LoadBalancing_ROUND_ROBIN:   service.RoundRobin,
	weirv1.LoadBalancing_LEAST_REQUEST: service.LeastRequest,
	weirv1.LoadBalancing_RANDOM:        service.Random,
	weirv1.LoadBalancing_RING_HASH:     service.RingHash,
	weirv1.LoadBalancing_MAGLEV:        service.Maglev,
}

func compileBalance(spec *weirv1.LoadBalancing) service.Balance {
	b := service.Balance{
		Policy: policies[spec.GetPolicy()],
		Terms: balancer.Terms{
			PanicThreshold: defaultPanic,
			PreferLocal:    spec.GetTrafficDistribution() == weirv1.LoadBalancing_PREFER_SAME_ZONE,
		},
		Ring: balancer.RingSize{
			Min: int(cmp.Or(spec.GetRingHash().GetMinimumRingSize(), defaultMinRing)),
			Max: int(cmp.Or(spec.GetRingHash().GetMaximumRingSize(), defaultMaxRing)),
		},
		HashFactor: float64(spec.GetHashBalanceFactor()) / 100,
		Window:     spec.GetSlowStart().GetWindow().AsDuration(),
		Aggression: cmp.Or(spec.GetSlowStart().GetAggression(), 1),
		LeastShare: float64(cmp.Or(spec.GetSlowStart().GetMinWeightPercent(), defaultLeastShare)) / 100,
	}
	if spec.GetHash() != nil && spec.GetPolicy() == weirv1.LoadBalancing_POLICY_UNSPECIFIED {
		b.Policy = service.Maglev
	}
	if spec != nil && spec.PanicThreshold != nil {
		b.Terms.PanicThreshold = spec.GetPanicThreshold()
	}
	return b
}

func compileLimits(spec *weirv1.Limits) service.Limits {
	l := service.Limits{
		MaxConnections: int(spec.GetMaxConnections()), MaxPending: defaultPending,
		MaxRequests: int64(spec.GetMaxRequests()), MaxRetries: -1,
		BudgetPercent: defaultBudget, MinRetries: defaultMinRetries,
	}
	if spec == nil {
		return l
	}
	set(&l.MaxPending, spec.MaxPendingRequests)
	set(&l.MaxRetries, spec.MaxRetries)
	if budget := spec.GetRetryBudget(); budget != nil {
		set(&l.BudgetPercent, budget.BudgetPercent)
		set(&l.MinRetries, budget.MinRetryConcurrency)
	}
	return l
}

// set keeps the default of what is not declared.
func set[T int64 | uint32](value *T, declared *uint32) {
	if declared != nil {
		*value = T(*declared)
	}
}

// compileCheck says how the endpoints of a service are asked. They are, with what
// of their pools' key is not an address.
func compileCheck(spec *weirv1.HealthCheck, pools *upstream.Registry, key upstream.Key) *health.Check {
	if spec == nil {
		return nil
	}
	jitter := uint32(defaultJitter)
	set(&jitter, spec.IntervalJitterPercent)
	key.Address, key.MaxConnections = "", 0
	question := &probe.Question{Pools: pools, Key: key}
	switch {
	case spec.GetHttp() != nil:
		question.HTTP = compileHTTPCheck(spec.GetHttp())
	case spec.GetGrpc() != nil:
		question.GRPC = &probe.GRPC{Service: spec.GetGrpc().GetServiceName(), Authority: spec.GetGrpc().GetAuthority()}
	}
	return &health.Check{
		Interval:  cmp.Or(spec.GetInterval().AsDuration(), defaultCheckInterval),
		Timeout:   cmp.Or(spec.GetTimeout().AsDuration(), defaultCheckTimeout),
		Jitter:    float64(jitter) / 100,
		Unhealthy: int(cmp.Or(spec.GetUnhealthyThreshold(), defaultUnhealthy)),
		Healthy:   int(cmp.Or(spec.GetHealthyThreshold(), defaultHealthy)),
		Question:  question,
	}
}

func compileHTTPCheck(spec *weirv1.HttpHealthCheck) *probe.HTTP {
	h := &probe.HTTP{Path: cmp.Or(spec.GetPath(), "/"), Host: spec.GetHost()}
	for _, r := range spec.GetExpectedStatuses() {
		h.Expected = append(h.Expected, probe.Range{Start: int(r.GetStart()), End: int(r.GetEnd())})
	}
	if len(h.Expected) == 0 {
		h.Expected = []probe.Range{{Start: 200, End: 201}}
	}
	return h
}

func compileOutlier(spec *weirv1.OutlierDetection) *health.Outlier {
	if spec == nil {
		return nil
	}
	o := &health.Outlier{
		Consecutive5xx:           defaultConsecutive,
		ConsecutiveGatewayErrors: spec.GetConsecutiveGatewayErrors(),
		Interval:                 cmp.Or(spec.GetInterval().AsDuration(), defaultForgiveness),
		Base:                     cmp.Or(spec.GetBaseEjectionTime().AsDuration(), defaultEjection),
		Max:                      cmp.Or(spec.GetMaxEjectionTime().AsDuration(), defaultMaxEjection),
		MaxPercent:               defaultMaxEjectionPct,
	}
	set(&o.Consecutive5xx, spec.Consecutive_5Xx)
	set(&o.MaxPercent, spec.MaxEjectionPercent)
	return o
}
