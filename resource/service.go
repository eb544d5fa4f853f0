package resource

import (
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func (c *check) service(spec *weirv1.ServiceSpec) {
	const at = Path("spec")
	switch spec.GetProtocol() {
	case weirv1.ServiceSpec_HTTP, weirv1.ServiceSpec_PROTOCOL_UNSPECIFIED, weirv1.ServiceSpec_HTTP2, weirv1.ServiceSpec_TCP:
	case weirv1.ServiceSpec_HTTP3:
		if spec.GetTls() == nil {
			c.add(at.Field("tls"), "is required by protocol HTTP3, which is never spoken in the clear: tls: {} checks the service's certificate by its name and the system's authorities")
		}
	}
	if p := spec.GetProtocol(); spec.GetSendProxyProtocol() != 0 && (p == weirv1.ServiceSpec_HTTP2 || p == weirv1.ServiceSpec_HTTP3) {
		c.add(at.Field("sendProxyProtocol"), "is not for protocol %s, whose connections carry requests of many clients", p)
	}
	if tls := spec.GetTls(); tls != nil {
		c.upstreamTLS(at.Field("tls"), tls)
	}
	c.count(at.Field("endpoints"), len(spec.GetEndpoints()), 0, maxList, "endpoint")
	addresses := map[string]bool{}
	for i, e := range spec.GetEndpoints() {
		at := at.Field("endpoints").Index(i)
		c.syntax(at.Field("address"), checkEndpoint(e.GetAddress()))
		c.unique(addresses, at.Field("address"), e.GetAddress(), "the endpoint")
		c.labels(at.Field("labels"), e.GetLabels())
		c.weight(at.Field("weight"), e.GetWeight())
	}
	c.count(at.Field("subsets"), len(spec.GetSubsets()), 0, maxEntries, "subset")
	names := map[string]bool{}
	for i, s := range spec.GetSubsets() {
		at := at.Field("subsets").Index(i)
		c.syntax(at.Field("name"), checkLabel(s.GetName()))
		c.unique(names, at.Field("name"), s.GetName(), "the subset")
		c.count(at.Field("labels"), len(s.GetLabels()), 1, maxEntries, "label that its endpoints bear")
		c.labels(at.Field("labels"), s.GetLabels())
	}
	timeout := at.Field("connectTimeout")
	c.duration(timeout, spec.GetConnectTimeout())
	if d := spec.GetConnectTimeout(); d != nil && d.AsDuration() == 0 {
		c.add(timeout, "must be more than 0; leave it out for the default of 5s")
	}
	c.upstream(at, spec)
}

func (c *check) weight(at Path, weight uint32) {
	if weight > maxWeight {
		c.add(at, "must be at most %d, not %d", maxWeight, weight)
	}
}
