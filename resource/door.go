package resource

import (
	"net/netip"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// door checks how a listener takes connections in.
func (c *check) door(at Path, l *weirv1.Listener) {
	if p := l.GetProxyProtocol(); p != nil {
		at := at.Field("proxyProtocol")
		trusted := at.Field("trustedCidrs")
		c.count(trusted, len(p.GetTrustedCidrs()), 1, maxEntries, "address or network whose headers are believed, such as \"10.0.0.0/8\"")
		for i, s := range p.GetTrustedCidrs() {
			if _, ok := ParseNetwork(s); !ok {
				c.add(trusted.Index(i), "%q is not an address or a network such as \"10.0.0.0/8\"", s)
			}
		}
		c.duration(at.Field("headerTimeout"), p.GetHeaderTimeout())
		if d := p.GetHeaderTimeout(); d != nil && d.AsDuration() == 0 {
			c.add(at.Field("headerTimeout"), "must be more than 0; leave it out for the default of 5s")
		}
	}
	limits := at.Field("connectionLimits")
	c.atMost(limits.Field("maxConnections"), l.GetConnectionLimits().GetMaxConnections(), maxCount)
	c.atMost(limits.Field("maxConnectionsPerClient"), l.GetConnectionLimits().GetMaxConnectionsPerClient(), maxCount)
}

// doorsClash: what is decided before a client has said which listener it wants is
// the same for all listeners of a socket.
func (c *check) doorsClash(at Path, l, earlier *weirv1.Listener) {
	if l.GetPort() != earlier.GetPort() || bound(l.GetAddress()) != bound(earlier.GetAddress()) {
		return
	}
	if !proto.Equal(l.GetProxyProtocol(), earlier.GetProxyProtocol()) {
		c.add(at.Field("proxyProtocol"), "must be as that of the listener %q, which has the same port", earlier.GetName())
	}
	if !proto.Equal(l.GetConnectionLimits(), earlier.GetConnectionLimits()) {
		c.add(at.Field("connectionLimits"), "must be as those of the listener %q, which has the same port", earlier.GetName())
	}
}

// ParseNetwork reads a network, or an address as the network of that one.
func ParseNetwork(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), true
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), true
}
