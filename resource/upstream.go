package resource

import (
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Bounds of what a service says about how it is asked.
const (
	maxRing         = 1 << 20
	maxThreshold    = 100
	maxAggression   = 1000
	minInterval     = 100 * time.Millisecond
	minRefresh      = time.Second
	maxCount        = 1_000_000 // of connections, requests, retries
	defaultRing     = 1024
	defaultMaxRing  = 64 << 10
	wholePercentage = 100
)

// upstream is how a service's endpoints are chosen, watched and spared.
func (c *check) upstream(at Path, spec *weirv1.ServiceSpec) {
	if lb := spec.GetLoadBalancing(); lb != nil {
		c.loadBalancing(at.Field("loadBalancing"), lb)
	}
	if h := spec.GetHealthCheck(); h != nil {
		c.healthCheck(at.Field("healthCheck"), h, spec.GetProtocol())
	}
	if o := spec.GetOutlierDetection(); o != nil {
		c.outlierDetection(at.Field("outlierDetection"), o)
	}
	c.limits(at.Field("limits"), spec.GetLimits())
	c.atLeast(at.Field("dns").Field("refreshRate"), spec.GetDns().GetRefreshRate(), minRefresh)
}

func (c *check) loadBalancing(at Path, lb *weirv1.LoadBalancing) {
	policy := lb.GetPolicy()
	hashes := policy == weirv1.LoadBalancing_RING_HASH || policy == weirv1.LoadBalancing_MAGLEV
	switch {
	case lb.GetHash() != nil && !hashes && policy != weirv1.LoadBalancing_POLICY_UNSPECIFIED:
		c.add(at.Field("hash"), "%s does not go by a hash: use MAGLEV or RING_HASH", policy)
	case lb.GetHash() == nil && hashes:
		c.add(at.Field("hash"), "is required: %s goes by it, such as {header: x-user}", policy)
	case lb.GetHash() != nil:
		c.hash(at.Field("hash"), lb.GetHash())
		hashes = true
	}
	if r := lb.GetRingHash(); r != nil {
		c.ringHash(at.Field("ringHash"), r, policy)
	}
	if f := lb.GetHashBalanceFactor(); f != 0 {
		if !hashes {
			c.add(at.Field("hashBalanceFactor"), "is about a hash, and there is none")
		}
		if f < wholePercentage || f > 100*wholePercentage {
			c.add(at.Field("hashBalanceFactor"), "must be from 100 to 10000 percent, not %d", f)
		}
	}
	if s := lb.GetSlowStart(); s != nil {
		if hashes {
			c.add(at.Field("slowStart"), "does not go with a hash, which would lead elsewhere each moment")
		}
		c.slowStart(at.Field("slowStart"), s)
	}
	c.percent(at.Field("panicThreshold"), lb.GetPanicThreshold())
}

func (c *check) hash(at Path, h *weirv1.HashPolicy) {
	set := 0
	if h.GetHeader() != "" {
		set++
		c.syntax(at.Field("header"), checkHeaderName(h.GetHeader()))
	}
	if k := h.GetCookie(); k != nil {
		set++
		c.hashCookie(at.Field("cookie"), k)
	}
	if h.GetAddress() {
		set++
	}
	if q := h.GetQuery(); q != "" {
		set++
		if len(q) > 256 {
			c.add(at.Field("query"), "is %d bytes long; a parameter's name has at most 256", len(q))
		}
	}
	if set != 1 {
		c.add(at, "needs one of header, cookie, address and query, not %d", set)
	}
}

func (c *check) hashCookie(at Path, k *weirv1.HashCookie) {
	switch name := k.GetName(); {
	case name == "":
		c.add(at.Field("name"), "is required")
	case len(name) > 64 || !isToken(name):
		c.add(at.Field("name"), "%q is not a cookie's name: use up to 64 letters, digits, '-' and '_'", name)
	}
	if p := k.GetPath(); p != "" && (p[0] != '/' || len(p) > 1024 || strings.ContainsFunc(p, notInCookiePath)) {
		c.add(at.Field("path"), "%q is not a cookie's path such as \"/shop\"", p)
	}
	c.atLeast(at.Field("ttl"), k.GetTtl(), time.Second)
}

func notInCookiePath(r rune) bool { return r <= ' ' || r >= 0x7f || r == ';' || r == ',' }

func (c *check) ringHash(at Path, r *weirv1.RingHash, policy weirv1.LoadBalancing_Policy) {
	if policy != weirv1.LoadBalancing_RING_HASH {
		c.add(at, "is about the policy RING_HASH, not %s", policy)
	}
	least, most := r.GetMinimumRingSize(), r.GetMaximumRingSize()
	if least > maxRing {
		c.add(at.Field("minimumRingSize"), "must be at most %d, not %d", maxRing, least)
	}
	if most > maxRing {
		c.add(at.Field("maximumRingSize"), "must be at most %d, not %d", maxRing, most)
	}
	if least == 0 {
		least = defaultRing
	}
	if most == 0 {
		most = defaultMaxRing
	}
	if least > most {
		c.add(at.Field("maximumRingSize"), "must not be less than minimumRingSize (%d), not %d", least, most)
	}
}

func (c *check) slowStart(at Path, s *weirv1.SlowStart) {
	if s.GetWindow() == nil {
		c.add(at.Field("window"), "is required: how long an endpoint takes to grow into its share, such as \"30s\"")
	}
	c.atLeast(at.Field("window"), s.GetWindow(), minInterval)
	if a := s.GetAggression(); math.IsNaN(a) || a < 0 || a > maxAggression {
		c.add(at.Field("aggression"), "must be more than 0 and at most %d, not %v", maxAggression, a)
	}
	c.percent(at.Field("minWeightPercent"), s.GetMinWeightPercent())
}

func (c *check) healthCheck(at Path, h *weirv1.HealthCheck, protocol weirv1.ServiceSpec_Protocol) {
	c.atLeast(at.Field("interval"), h.GetInterval(), minInterval)
	c.atLeast(at.Field("timeout"), h.GetTimeout(), time.Millisecond)
	c.percent(at.Field("intervalJitterPercent"), h.GetIntervalJitterPercent())
	c.atMost(at.Field("unhealthyThreshold"), h.GetUnhealthyThreshold(), maxThreshold)
	c.atMost(at.Field("healthyThreshold"), h.GetHealthyThreshold(), maxThreshold)
	declared := 0
	for _, is := range []bool{h.GetHttp() != nil, h.GetTcp() != nil, h.GetGrpc() != nil} {
		if is {
			declared++
		}
	}
	if declared != 1 {
		c.add(at, "needs one of http, grpc and tcp, such as {http: {path: /healthz}}")
	}
	c.httpCheck(at.Field("http"), h.GetHttp())
	if g := h.GetGrpc(); g != nil {
		c.grpcCheck(at.Field("grpc"), g, protocol)
	}
}

func (c *check) httpCheck(http Path, h *weirv1.HttpHealthCheck) {
	if p := h.GetPath(); p != "" && (p[0] != '/' || len(p) > 1024 || strings.ContainsFunc(p, notInTarget)) {
		c.add(http.Field("path"), "%q must be a path such as \"/healthz\"", p)
	}
	c.checkHost(http.Field("host"), h.GetHost())
	ranges := h.GetExpectedStatuses()
	c.count(http.Field("expectedStatuses"), len(ranges), 0, maxEntries, "range")
	for i, r := range ranges {
		if r.GetStart() < 100 || r.GetEnd() > 600 || r.GetStart() >= r.GetEnd() {
			c.add(http.Field("expectedStatuses").Index(i), "must start at 100 or above and end, beyond that, at 600 or below "+
				"(200 to 300 are the successes), not %d to %d", r.GetStart(), r.GetEnd())
		}
	}
}

func (c *check) grpcCheck(grpc Path, g *weirv1.GrpcHealthCheck, protocol weirv1.ServiceSpec_Protocol) {
	if protocol != weirv1.ServiceSpec_HTTP2 && protocol != weirv1.ServiceSpec_HTTP3 {
		c.add(grpc, "is spoken by HTTP/2 or HTTP/3: set spec.protocol to HTTP2 or HTTP3")
	}
	if name := g.GetServiceName(); len(name) > 255 || strings.ContainsFunc(name, notInTarget) {
		c.add(grpc.Field("serviceName"), "%q is not a service such as \"shop.v1.Books\"", name)
	}
	c.checkHost(grpc.Field("authority"), g.GetAuthority())
}

func (c *check) checkHost(at Path, host string) {
	if len(host) > 255 || strings.ContainsFunc(host, notInHost) {
		c.add(at, "%q is not a host such as \"books.internal\"", host)
	}
}

func notInTarget(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }

func notInHost(r rune) bool {
	return r >= 0x7f || !isAlphanumeric(byte(r)) && !strings.ContainsRune("-._:[]", r)
}

func (c *check) outlierDetection(at Path, o *weirv1.OutlierDetection) {
	c.atMost(at.Field("consecutive5xx"), o.GetConsecutive_5Xx(), maxCount)
	c.atMost(at.Field("consecutiveGatewayErrors"), o.GetConsecutiveGatewayErrors(), maxCount)
	if o.Consecutive_5Xx != nil && o.GetConsecutive_5Xx() == 0 && o.GetConsecutiveGatewayErrors() == 0 {
		c.add(at, "counts nothing: set consecutive5xx or consecutiveGatewayErrors, or leave outlierDetection out")
	}
	c.atLeast(at.Field("interval"), o.GetInterval(), minInterval)
	c.atLeast(at.Field("baseEjectionTime"), o.GetBaseEjectionTime(), minInterval)
	c.atLeast(at.Field("maxEjectionTime"), o.GetMaxEjectionTime(), minInterval)
	base, most := o.GetBaseEjectionTime(), o.GetMaxEjectionTime()
	if base != nil && most != nil && base.AsDuration() > most.AsDuration() {
		c.add(at.Field("maxEjectionTime"), "must not be shorter than baseEjectionTime (%s), not %s", base.AsDuration(), most.AsDuration())
	}
	c.percent(at.Field("maxEjectionPercent"), o.GetMaxEjectionPercent())
}

func (c *check) limits(at Path, l *weirv1.Limits) {
	c.atMost(at.Field("maxConnections"), l.GetMaxConnections(), maxCount)
	c.atMost(at.Field("maxPendingRequests"), l.GetMaxPendingRequests(), maxCount)
	c.atMost(at.Field("maxRequests"), l.GetMaxRequests(), maxCount)
	c.atMost(at.Field("maxRetries"), l.GetMaxRetries(), maxCount)
	if l.GetMaxPendingRequests() != 0 && l.GetMaxConnections() == 0 {
		c.add(at.Field("maxPendingRequests"), "is about requests that wait for one of maxConnections, and these are not limited")
	}
	budget := at.Field("retryBudget")
	c.percent(budget.Field("budgetPercent"), l.GetRetryBudget().GetBudgetPercent())
	c.atMost(budget.Field("minRetryConcurrency"), l.GetRetryBudget().GetMinRetryConcurrency(), maxCount)
}

func (c *check) percent(at Path, n uint32) {
	if n > wholePercentage {
		c.add(at, "must be at most 100 percent, not %d", n)
	}
}

func (c *check) atMost(at Path, n, most uint32) {
	if n > most {
		c.add(at, "must be at most %d, not %d", most, n)
	}
}

// atLeast: a duration that is left out, or not too short.
func (c *check) atLeast(at Path, d *durationpb.Duration, least time.Duration) {
	before := len(c.found)
	c.duration(at, d)
	if d != nil && len(c.found) == before && d.AsDuration() < least {
		c.add(at, "must be at least %s, not %s", least, d.AsDuration())
	}
}
