package node

import (
	"net"
	"os"
	"slices"

	"github.com/weirmesh/weir/identity"
)

// advertised is where other nodes find a server: where it says, else the address
// it listens on; of every address of this host, the first one that others may
// know.
func advertised(sc ServerConfig, listened net.Addr) string {
	if sc.Advertise != "" {
		return sc.Advertise
	}
	host, port, err := net.SplitHostPort(listened.String())
	if err != nil {
		return listened.String()
	}
	if named, _, err := net.SplitHostPort(sc.Node); err == nil && named != "" && net.ParseIP(named) == nil {
		return net.JoinHostPort(named, port) // a name outlives an address
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() || sc.Open {
		return reachable(listened)
	}
	for _, ip := range ownAddresses() {
		if ip.IsGlobalUnicast() {
			return net.JoinHostPort(ip.String(), port)
		}
	}
	return reachable(listened)
}

func ownAddresses() (ips []net.IP) {
	own, _ := net.InterfaceAddrs() // none is better than no server
	for _, a := range own {
		if n, ok := a.(*net.IPNet); ok {
			ips = append(ips, n.IP)
		}
	}
	return ips
}

// namesOf is what this host may be called by those who verify the name: itself,
// and what its addresses say; every address, where they say so.
func namesOf(addresses ...string) identity.Names {
	names := identity.Names{DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
	add := func(ip net.IP) {
		if !slices.ContainsFunc(names.IPs, ip.Equal) {
			names.IPs = append(names.IPs, ip)
		}
	}
	if hostname, err := os.Hostname(); err == nil {
		names.DNS = append(names.DNS, hostname)
	}
	for _, address := range addresses {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			continue
		}
		switch ip := net.ParseIP(host); {
		case host == "" || ip != nil && ip.IsUnspecified():
			for _, own := range ownAddresses() {
				add(own)
			}
		case ip != nil:
			add(ip)
		case !slices.Contains(names.DNS, host):
			names.DNS = append(names.DNS, host)
		}
	}
	return names
}
