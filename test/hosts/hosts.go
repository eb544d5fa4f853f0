//go:build linux

package hosts

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// most is how many hosts have a letter for a name.
const most = 26

// Hosts are the hosts of one test, behind one switch.
type Hosts []*Host

// A Host is a machine of its own as far as its network goes.
type Host struct {
	Name string // a, b, c, …

	net    *network
	space  *namespace
	number int

	mu        sync.Mutex
	addr      netip.Addr
	moves     int
	processes []*Process
}

// network is what the hosts of one test share.
type network struct {
	t       testing.TB
	outside *os.File
	middle  *namespace // where the switch is
	hosts   Hosts

	mu     sync.Mutex // held while faults change
	faults faults
}

// New makes n hosts that reach one another, and removes them with all their
// processes when the test ends. It skips the test where the machine does not
// let it make network namespaces.
func New(t testing.TB, n int) Hosts {
	t.Helper()
	if n < 1 || n > most {
		t.Fatalf("hosts: %d hosts asked for, 1 to %d are possible", n, most)
	}
	if os.Geteuid() != 0 {
		t.Skip("hosts: network namespaces need root")
	}
	network := &network{t: t, faults: noFaults()}
	t.Cleanup(network.close)
	err := network.build(n)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("hosts: not permitted on this machine: %v", err)
	}
	if err != nil {
		t.Fatalf("hosts: %v", err)
	}
	return network.hosts
}

func (n *network) build(count int) (err error) {
	if n.outside, err = openNamespace(); err != nil {
		return err
	}
	if n.middle, err = newNamespace(n.outside); err != nil {
		return err
	}
	if err := n.middle.inside(makeSwitch); err != nil {
		return err
	}
	for i := range count {
		space, err := newNamespace(n.outside)
		if err != nil {
			return err
		}
		host := &Host{Name: string(rune('a' + i)), net: n, space: space, number: i + 1}
		host.addr = host.address()
		n.hosts = append(n.hosts, host)
		if err := n.plug(host); err != nil {
			return fmt.Errorf("connect host %s: %w", host.Name, err)
		}
	}
	return n.enforce() // says now whether the kernel can
}

func (n *network) close() {
	for _, host := range n.hosts {
		host.killAll()
	}
	for _, host := range n.hosts {
		host.space.close()
	}
	if n.middle != nil {
		n.middle.close()
	}
	if n.outside != nil {
		n.outside.Close()
	}
}

// address is the host's next address: its number, and how often it has moved.
func (h *Host) address() netip.Addr {
	return netip.AddrFrom4([4]byte{10, 77, byte(h.moves), byte(h.number)})
}

// Addr is the host's address, as it is now.
func (h *Host) Addr() netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addr
}

// HostPort is an address on this host, as Dial takes it.
func (h *Host) HostPort(port int) string {
	return netip.AddrPortFrom(h.Addr(), uint16(port)).String()
}

// Names are the hosts' names, in order.
func (h Hosts) Names() []string {
	names := make([]string, len(h))
	for i, host := range h {
		names[i] = host.Name
	}
	return names
}

// host finds a host by its name; what is not found fails the test.
func (n *network) host(name string) *Host {
	n.t.Helper()
	i := slices.IndexFunc(n.hosts, func(h *Host) bool { return h.Name == name })
	if i < 0 {
		n.t.Errorf("hosts: no host is named %q", name)
		return nil
	}
	return n.hosts[i]
}
