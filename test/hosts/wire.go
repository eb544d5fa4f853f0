//go:build linux

package hosts

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

const (
	switchName = "switch"
	portName   = "eth0"
	prefix     = 16 // of all addresses: wherever a host moves, it stays on the link

	// One packet is one datagram or segment. Without this the kernel hands over
	// batches of up to 64 KB, and a fault would take a batch for a packet.
	packetsInABatch = 1
)

// makeSwitch runs inside the middle namespace.
func makeSwitch() error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: switchName}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make switch: %w", err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("start switch: %w", err)
	}
	return nil
}

// plug runs a cable from the switch to the host. The port at the switch bears
// the host's name, which is what the rules of faults go by.
func (n *network) plug(host *Host) error {
	err := n.middle.inside(func() error {
		bridge, err := netlink.LinkByName(switchName)
		if err != nil {
			return err
		}
		cable := &netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: host.Name, MasterIndex: bridge.Attrs().Index},
			PeerName:      portName,
			PeerNamespace: netlink.NsFd(int(host.space.file.Fd())),
		}
		if err := netlink.LinkAdd(cable); err != nil {
			return err
		}
		return netlink.LinkSetUp(cable)
	})
	if err != nil {
		return err
	}
	return host.space.inside(func() error {
		loopback, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(loopback); err != nil {
			return err
		}
		port, err := netlink.LinkByName(portName)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetGSOMaxSegs(port, packetsInABatch); err != nil {
			return err
		}
		if err := netlink.AddrAdd(port, onLink(host.addr)); err != nil {
			return err
		}
		return netlink.LinkSetUp(port)
	})
}

func onLink(addr netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(prefix, addr.BitLen())}}
}

// ChangeAddress gives the host another address in place of the one it has, as
// a new lease would, and returns it. Connections of the old one are not closed:
// they fall silent.
func (h Hosts) ChangeAddress(name string) netip.Addr {
	n := h[0].net
	n.t.Helper()
	host := n.host(name)
	if host == nil {
		return netip.Addr{}
	}
	host.mu.Lock()
	defer host.mu.Unlock()
	old := host.addr
	host.moves++
	host.addr = host.address()
	err := host.space.inside(func() error {
		port, err := netlink.LinkByName(portName)
		if err != nil {
			return err
		}
		// In this order: with its first address an interface loses all later ones of the subnet.
		if err := netlink.AddrDel(port, onLink(old)); err != nil {
			return err
		}
		return netlink.AddrAdd(port, onLink(host.addr))
	})
	if err != nil {
		n.t.Errorf("hosts: change address of %s: %v", name, err)
	}
	return host.addr
}

// narrow limits a link to so many bytes a second in the direction it sends;
// zero lifts the limit. It runs inside the link's namespace.
func narrow(link string, rate int) error {
	port, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	attrs := netlink.QdiscAttrs{LinkIndex: port.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	if rate == 0 {
		return netlink.QdiscDel(&netlink.Tbf{QdiscAttrs: attrs})
	}
	const burst = 8 << 10
	queue := max(rate/5, 4*burst) // a fifth of a second waits, the rest is lost
	return netlink.QdiscReplace(&netlink.Tbf{
		QdiscAttrs: attrs,
		Rate:       uint64(rate),
		Limit:      uint32(queue),
		Buffer:     netlink.Xmittime(uint64(rate), burst),
	})
}
