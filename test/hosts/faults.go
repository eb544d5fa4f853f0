//go:build linux

package hosts

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// faults is what is wrong with the network now. Each change rewrites all rules
// in one transaction, so there is never a moment with half of them.
type faults struct {
	cut    map[link]bool
	loss   map[string]int // percent, by host
	noUDP  map[string]bool
	narrow map[string]int // bytes a second, by host
}

// A link is one direction between two hosts.
type link struct{ from, to string }

func noFaults() faults {
	return faults{cut: map[link]bool{}, loss: map[string]int{}, noUDP: map[string]bool{}, narrow: map[string]int{}}
}

// Partition cuts every link between hosts of different groups, both ways.
// Hosts in no group keep all their links.
func (h Hosts) Partition(groups ...[]string) {
	h.change(slices.Concat(groups...), func(f *faults) {
		for i, group := range groups {
			for _, other := range groups[i+1:] {
				for _, a := range group {
					for _, b := range other {
						f.cut[link{a, b}], f.cut[link{b, a}] = true, true
					}
				}
			}
		}
	})
}

// CutOneWay drops what from sends to to; the other way stays open.
func (h Hosts) CutOneWay(from, to string) {
	h.change([]string{from, to}, func(f *faults) { f.cut[link{from, to}] = true })
}

// Loss drops so many percent of the packets that leave the host, and of those
// that arrive. The kernel draws, so which ones differs from run to run.
func (h Hosts) Loss(host string, percent int) {
	h.change([]string{host}, func(f *faults) { f.loss[host] = percent })
}

// BlockUDP drops the host's UDP, in and out, and nothing else.
func (h Hosts) BlockUDP(host string) {
	h.change([]string{host}, func(f *faults) { f.noUDP[host] = true })
}

// UnblockUDP lifts BlockUDP.
func (h Hosts) UnblockUDP(host string) {
	h.change([]string{host}, func(f *faults) { delete(f.noUDP, host) })
}

// Narrow limits the host's link to so many bytes a second, each way.
func (h Hosts) Narrow(host string, bytesPerSecond int) {
	n := h[0].net
	n.t.Helper()
	target := n.host(host)
	if target == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults.narrow[host] = bytesPerSecond
	if err := n.narrowBothEnds(target, bytesPerSecond); err != nil {
		n.t.Errorf("hosts: narrow the link of %s: %v", host, err)
	}
}

func (n *network) narrowBothEnds(host *Host, rate int) error {
	return errors.Join(
		n.middle.inside(func() error { return narrow(host.Name, rate) }),
		host.space.inside(func() error { return narrow(portName, rate) }))
}

// Heal lifts every fault.
func (h Hosts) Heal() {
	n := h[0].net
	n.t.Helper()
	n.mu.Lock()
	narrowed := slices.Sorted(maps.Keys(n.faults.narrow))
	for _, name := range narrowed {
		if err := n.narrowBothEnds(n.host(name), 0); err != nil {
			n.t.Errorf("hosts: widen the link of %s: %v", name, err)
		}
	}
	n.mu.Unlock()
	h.change(nil, func(f *faults) { *f = noFaults() })
}

// change edits the faults and makes them so.
func (h Hosts) change(names []string, edit func(*faults)) {
	n := h[0].net
	n.t.Helper()
	for _, name := range names {
		if n.host(name) == nil {
			return
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	edit(&n.faults)
	if err := n.enforce(); err != nil {
		n.t.Errorf("hosts: %v", err)
	}
}

// enforce replaces the rules at the switch by those that make the faults.
func (n *network) enforce() error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(n.middle.file.Fd())))
	if err != nil {
		return fmt.Errorf("open netfilter: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyBridge, Name: "faults"}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	for _, exprs := range n.faults.rules() {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("set netfilter rules: %w", err)
	}
	return nil
}

func (f *faults) rules() [][]expr.Any {
	rules := [][]expr.Any{rule(expr.VerdictAccept, isARP())}
	for _, l := range slices.SortedFunc(maps.Keys(f.cut), compareLinks) {
		rules = append(rules, rule(expr.VerdictDrop, comesFrom(l.from), goesTo(l.to)))
	}
	for _, host := range slices.Sorted(maps.Keys(f.noUDP)) {
		rules = append(rules, rule(expr.VerdictDrop, comesFrom(host), isUDP()), rule(expr.VerdictDrop, goesTo(host), isUDP()))
	}
	for _, host := range slices.Sorted(maps.Keys(f.loss)) {
		chance := oneIn100(f.loss[host])
		rules = append(rules, rule(expr.VerdictDrop, comesFrom(host), chance), rule(expr.VerdictDrop, goesTo(host), chance))
	}
	return rules
}

func compareLinks(a, b link) int {
	return slices.Compare([]string{a.from, a.to}, []string{b.from, b.to})
}

// rule is a verdict for packets that meet all conditions.
func rule(verdict expr.VerdictKind, conditions ...[]expr.Any) []expr.Any {
	return append(slices.Concat(conditions...), &expr.Verdict{Kind: verdict})
}

func comesFrom(host string) []expr.Any { return meta(expr.MetaKeyIIFNAME, interfaceName(host)) }
func goesTo(host string) []expr.Any    { return meta(expr.MetaKeyOIFNAME, interfaceName(host)) }
func isARP() []expr.Any {
	return meta(expr.MetaKeyPROTOCOL, binaryutil.BigEndian.PutUint16(unix.ETH_P_ARP))
}
func isUDP() []expr.Any { return meta(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_UDP}) }

func meta(key expr.MetaKey, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value},
	}
}

// interfaceName is a name as the kernel compares it: with all its zeroes.
func interfaceName(name string) []byte {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return padded
}

// oneIn100 is met by so many packets of a hundred, drawn at random. Registers
// are compared byte by byte, hence the change of byte order.
func oneIn100(percent int) []expr.Any {
	return []expr.Any{
		&expr.Numgen{Register: 1, Modulus: 100, Type: unix.NFT_NG_RANDOM},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binaryutil.BigEndian.PutUint32(uint32(percent))},
	}
}
