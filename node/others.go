package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// errOnlyItself is for a server that is told to join itself.
var errOnlyItself = errors.New("--join names this server alone: name one that is a member of the cluster")

// others are the addresses that are not this server's own, at which nobody would
// ever answer it.
func (s *server) others(ctx context.Context, addresses []string) ([]string, error) {
	others := slices.DeleteFunc(slices.Clone(addresses), func(address string) bool { return s.isOwn(ctx, address) })
	if len(others) == 0 {
		return nil, errOnlyItself
	}
	return others, nil
}

// isOwn tells whether an address leads to this process. Of a name that cannot be
// looked up nobody knows.
func (s *server) isOwn(ctx context.Context, address string) bool {
	if address == s.nodeAddress {
		return true
	}
	listens, err := netip.ParseAddrPort(s.port.Addr().String())
	if err != nil {
		return false
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port != strconv.Itoa(int(listens.Port())) {
		return false
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(found, func(ip netip.Addr) bool {
		ip = ip.Unmap()
		if !listens.Addr().IsUnspecified() {
			return ip == listens.Addr().Unmap()
		}
		return ip.IsLoopback() || ip.IsUnspecified() || isLocal(ip)
	})
}

func isLocal(ip netip.Addr) bool {
	addresses, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addresses, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == ip
	})
}
