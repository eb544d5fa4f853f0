package resource

import (
	"fmt"
	"net/netip"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func (c *check) gateway(spec *weirv1.GatewaySpec) {
	const at = Path("spec")
	c.count(at.Field("listeners"), len(spec.GetListeners()), 1, maxEntries, "listener")
	names := map[string]bool{}
	for i, l := range spec.GetListeners() {
		at := at.Field("listeners").Index(i)
		c.syntax(at.Field("name"), checkLabel(l.GetName()))
		c.unique(names, at.Field("name"), l.GetName(), "the listener")
		c.syntax(at.Field("port"), checkPort(l.GetPort()))
		c.optional(at.Field("address"), l.GetAddress(), checkAddress)
		c.optional(at.Field("hostname"), l.GetHostname(), func(s string) string { return checkHostname(s, true) })
		c.listenerProtocol(at.Field("protocol"), l.GetProtocol())
		c.listenerTLS(at.Field("tls"), l)
		if l.GetHttp3() && l.GetProtocol() != weirv1.Listener_HTTPS {
			c.add(at.Field("http3"), "HTTP/3 is for a listener with protocol HTTPS: it is never spoken in the clear")
		}
		if l.GetHttp3() && l.GetProxyProtocol() != nil {
			c.add(at.Field("http3"), "is not for a listener with proxyProtocol, whose headers say by TCP alone who the client is")
		}
		c.door(at, l)
		if l.GetProtocol() == weirv1.Listener_TCP && l.GetHostname() != "" {
			c.add(at.Field("hostname"), "is not for TCP, where a client asks for no name")
		}
		for _, earlier := range spec.GetListeners()[:i] {
			c.listenersClash(at, l, earlier)
			c.doorsClash(at, l, earlier)
		}
	}
	c.labels(at.Field("selector"), spec.GetSelector())
}

func (c *check) listenerProtocol(at Path, p weirv1.Listener_Protocol) {
	if p == weirv1.Listener_PROTOCOL_UNSPECIFIED {
		c.add(at, "is required: HTTP, HTTPS, TCP or TLS")
	}
}

// listenersClash: two listeners of one socket are told apart by hostname
// alone, and a socket for every address leaves none for a single one.
func (c *check) listenersClash(at Path, l, earlier *weirv1.Listener) {
	if l.GetPort() != earlier.GetPort() || l.GetPort() == 0 {
		return
	}
	every := netip.Addr{}
	switch a, b := bound(l.GetAddress()), bound(earlier.GetAddress()); {
	case a == b && l.GetProtocol() != earlier.GetProtocol() && l.GetHostname() != earlier.GetHostname():
		c.add(at.Field("protocol"), "port %d speaks %s for the listener %q: a port speaks one protocol",
			l.GetPort(), earlier.GetProtocol(), earlier.GetName())
	case a == b && l.GetHostname() == earlier.GetHostname():
		c.add(at.Field("port"), "port %d is taken by the listener %q: give another port, or a hostname of its own",
			l.GetPort(), earlier.GetName())
	case a != b && (a == every || b == every):
		c.add(at.Field("address"), "port %d is taken by the listener %q, and one of the two binds every address",
			l.GetPort(), earlier.GetName())
	}
}

// bound is the address that a proxy binds for what was written, the zero one
// for every address of its host.
func bound(s string) netip.Addr {
	address, err := netip.ParseAddr(s)
	if err != nil || address.IsUnspecified() {
		return netip.Addr{}
	}
	return address.Unmap()
}

func checkAddress(s string) string {
	if _, err := netip.ParseAddr(s); err != nil {
		return fmt.Sprintf("%q is not an IP address to bind, such as \"127.0.0.1\" or \"::1\"", s)
	}
	return ""
}
