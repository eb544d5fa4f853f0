package resource_test

import "testing"

func TestUpstreamSettingsAreValid(t *testing.T) {
	for _, spec := range []string{
		`{loadBalancing: {}}`,
		`{loadBalancing: {policy: ROUND_ROBIN, slowStart: {window: 30s, aggression: 1.5, minWeightPercent: 5}, panicThreshold: 0}}`,
		`{loadBalancing: {policy: RANDOM, trafficDistribution: PREFER_SAME_ZONE}}`,
		`{loadBalancing: {hash: {header: X-User}, hashBalanceFactor: 150}}`,
		`{loadBalancing: {policy: RING_HASH, hash: {cookie: {name: weir_session, path: /shop, ttl: 3600s}}, ringHash: {minimumRingSize: 100}}}`,
		`{loadBalancing: {policy: MAGLEV, hash: {address: true}}}`,
		`{loadBalancing: {policy: MAGLEV, hash: {query: "user[]"}}}`,
		`{healthCheck: {http: {}}}`,
		`{healthCheck: {interval: 0.1s, timeout: 0.05s, intervalJitterPercent: 0, unhealthyThreshold: 1, healthyThreshold: 1,
			http: {path: "/health?deep=1", host: "books.internal:80", expectedStatuses: [{start: 200, end: 300}, {start: 404, end: 405}]}}}`,
		`{healthCheck: {tcp: {}}}`,
		`{protocol: HTTP2, healthCheck: {grpc: {}}}`,
		`{protocol: HTTP3, tls: {}, healthCheck: {grpc: {serviceName: shop.v1.Books, authority: "books.internal:443"}}}`,
		`{outlierDetection: {}}`,
		`{outlierDetection: {consecutive5xx: 0, consecutiveGatewayErrors: 3, interval: 1s, baseEjectionTime: 5s, maxEjectionTime: 60s, maxEjectionPercent: 50}}`,
		`{limits: {maxConnections: 10, maxPendingRequests: 0, maxRequests: 100, maxRetries: 0, retryBudget: {budgetPercent: 0, minRetryConcurrency: 0}}}`,
		`{dns: {refreshRate: 30s, lookupFamily: V4_ONLY}}`,
	} {
		t.Run(spec, func(t *testing.T) { expect(t, read(t, "Service", spec)) })
	}
}

func TestUpstreamSettingsAreRefused(t *testing.T) {
	for _, c := range []struct{ spec, want string }{
		{`{loadBalancing: {policy: MAGLEV}}`, `spec.loadBalancing.hash: is required: MAGLEV goes by it`},
		{`{loadBalancing: {policy: RANDOM, hash: {header: a}}}`, `spec.loadBalancing.hash: RANDOM does not go by a hash`},
		{`{loadBalancing: {hash: {}}}`, `spec.loadBalancing.hash: needs one of header, cookie, address and query, not 0`},
		{`{loadBalancing: {hash: {header: a, query: b}}}`, `spec.loadBalancing.hash: needs one of header, cookie, address and query, not 2`},
		{`{loadBalancing: {hash: {header: "a b"}}}`, `spec.loadBalancing.hash.header: "a b" is not a header name`},
		{`{loadBalancing: {hash: {cookie: {}}}}`, `spec.loadBalancing.hash.cookie.name: is required`},
		{`{loadBalancing: {hash: {cookie: {name: "a=b"}}}}`, `spec.loadBalancing.hash.cookie.name: "a=b" is not a cookie's name`},
		{`{loadBalancing: {hash: {cookie: {name: a, path: "/a;b"}}}}`, `spec.loadBalancing.hash.cookie.path: "/a;b" is not a cookie's path`},
		{`{loadBalancing: {hash: {cookie: {name: a, ttl: 0.5s}}}}`, `spec.loadBalancing.hash.cookie.ttl: must be at least 1s, not 500ms`},
		{`{loadBalancing: {hash: {address: true}, hashBalanceFactor: 99}}`, `spec.loadBalancing.hashBalanceFactor: must be from 100`},
		{`{loadBalancing: {hashBalanceFactor: 150}}`, `spec.loadBalancing.hashBalanceFactor: is about a hash`},
		{`{loadBalancing: {hash: {address: true}, slowStart: {window: 1s}}}`, `spec.loadBalancing.slowStart: does not go with a hash`},
		{`{loadBalancing: {slowStart: {}}}`, `spec.loadBalancing.slowStart.window: is required`},
		{`{loadBalancing: {slowStart: {window: 1s, aggression: -1}}}`, `spec.loadBalancing.slowStart.aggression: must be more than 0`},
		{`{loadBalancing: {slowStart: {window: 1s, aggression: NaN}}}`, `spec.loadBalancing.slowStart.aggression: must be more than 0`},
		{`{loadBalancing: {ringHash: {}}}`, `spec.loadBalancing.ringHash: is about the policy RING_HASH`},
		{`{loadBalancing: {policy: RING_HASH, hash: {address: true}, ringHash: {minimumRingSize: 100000}}}`, `spec.loadBalancing.ringHash.maximumRingSize: must not be less than`},
		{`{loadBalancing: {policy: RING_HASH, hash: {address: true}, ringHash: {maximumRingSize: 2000000}}}`, `spec.loadBalancing.ringHash.maximumRingSize: must be at most`},
		{`{loadBalancing: {panicThreshold: 101}}`, `spec.loadBalancing.panicThreshold: must be at most 100 percent, not 101`},
		{`{healthCheck: {}}`, `spec.healthCheck: needs one of http, grpc and tcp`},
		{`{healthCheck: {http: {}, tcp: {}}}`, `spec.healthCheck: needs one of http, grpc and tcp`},
		{`{protocol: HTTP2, healthCheck: {grpc: {}, tcp: {}}}`, `spec.healthCheck: needs one of http, grpc and tcp`},
		{`{healthCheck: {grpc: {}}}`, `spec.healthCheck.grpc: is spoken by HTTP/2 or HTTP/3`},
		{`{protocol: HTTP2, healthCheck: {grpc: {serviceName: "a b"}}}`, `spec.healthCheck.grpc.serviceName: "a b" is not a service`},
		{`{protocol: HTTP2, healthCheck: {grpc: {authority: "a/b"}}}`, `spec.healthCheck.grpc.authority: "a/b" is not a host`},
		{`{healthCheck: {interval: 0s, tcp: {}}}`, `spec.healthCheck.interval: must be at least 100ms, not 0s`},
		{`{healthCheck: {timeout: -1s, tcp: {}}}`, `spec.healthCheck.timeout: must not be negative`},
		{`{healthCheck: {http: {path: "x y"}}}`, `spec.healthCheck.http.path: "x y" must be a path`},
		{`{healthCheck: {http: {host: "a\r\nb"}}}`, `spec.healthCheck.http.host: "a\r\nb" is not a host`},
		{`{healthCheck: {http: {expectedStatuses: [{start: 300, end: 200}]}}}`, `spec.healthCheck.http.expectedStatuses[0]: must start at 100`},
		{`{outlierDetection: {consecutive5xx: 0}}`, `spec.outlierDetection: counts nothing`},
		{`{outlierDetection: {baseEjectionTime: 10s, maxEjectionTime: 5s}}`, `spec.outlierDetection.maxEjectionTime: must not be shorter than baseEjectionTime (10s), not 5s`},
		{`{outlierDetection: {maxEjectionPercent: 101}}`, `spec.outlierDetection.maxEjectionPercent: must be at most 100 percent`},
		{`{limits: {maxPendingRequests: 5}}`, `spec.limits.maxPendingRequests: is about requests that wait`},
		{`{limits: {maxRequests: 2000000}}`, `spec.limits.maxRequests: must be at most 1000000, not 2000000`},
		{`{limits: {retryBudget: {budgetPercent: 200}}}`, `spec.limits.retryBudget.budgetPercent: must be at most 100 percent`},
		{`{dns: {refreshRate: 0.1s}}`, `spec.dns.refreshRate: must be at least 1s, not 100ms`},
	} {
		t.Run(c.want, func(t *testing.T) { expect(t, read(t, "Service", c.spec), c.want) })
	}
}
