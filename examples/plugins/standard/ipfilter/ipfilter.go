// Package ipfilter is a policy that lets requests pass by the address they come from.
//
//	config:
//	  allow: [10.0.0.0/8, "2001:db8::/32"]   # nobody else; empty: everybody
//	  deny: [10.9.9.9]                       # but not these
//
// The address is the client's as the proxy knows it: of the connection, of the PROXY
// protocol's header, or of the forwarded fields of proxies that the Gateway trusts.
package ipfilter

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	sdk "github.com/weirmesh/weir/plugins-sdk"

	"github.com/weirmesh/weir/examples/plugins/standard/consumer"
)

// Plugin is the policy.
func Plugin() sdk.Plugin { return sdk.Define(newFilter) }

type config struct {
	Allow  []string `json:"allow" about:"addresses and networks that may pass; empty: all"`
	Deny   []string `json:"deny" about:"addresses and networks that may not, although allowed"`
	Status int      `json:"status" about:"of a refusal"`
}

func (c *config) Default() { c.Status = 403 }

func (c *config) Validate() error {
	switch {
	case len(c.Allow) == 0 && len(c.Deny) == 0:
		return errors.New("allow and deny are empty: everybody would pass")
	case c.Status < 400 || c.Status > 499:
		return errors.New("status: want one of 400 to 499")
	}
	return nil
}

type filter struct {
	allow, deny ranges
	everybody   bool
	problem     sdk.Problem
}

func newFilter(c config) (sdk.Handler, error) {
	allow, err := newRanges(c.Allow)
	if err != nil {
		return nil, fmt.Errorf("allow: %w", err)
	}
	deny, err := newRanges(c.Deny)
	if err != nil {
		return nil, fmt.Errorf("deny: %w", err)
	}
	problem := consumer.Forbidden("Your address is not allowed", "")
	problem.Status = c.Status
	return &filter{allow: allow, deny: deny, everybody: len(c.Allow) == 0, problem: problem}, nil
}

func (f *filter) OnRequest(r *sdk.Request) sdk.Action {
	from, err := netip.ParseAddrPort(r.ClientAddress())
	client := from.Addr().Unmap().WithZone("")
	// An address that is not known is nobody's.
	if err != nil || f.deny.have(client) || !f.everybody && !f.allow.have(client) {
		return r.Refuse(f.problem)
	}
	return sdk.Continue
}

// ranges are networks as the addresses from and to, in order and apart: thousands are
// looked through in a dozen steps.
type ranges []addresses

type addresses struct{ from, to netip.Addr }

func newRanges(texts []string) (ranges, error) {
	var all ranges
	for _, text := range texts {
		p, err := parse(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", text)
		}
		all = append(all, addresses{p.Masked().Addr(), last(p)})
	}
	slices.SortFunc(all, func(a, b addresses) int { return a.from.Compare(b.from) })
	var apart ranges
	for _, a := range all {
		if n := len(apart); n > 0 && a.from.Compare(apart[n-1].to) <= 0 {
			if a.to.Compare(apart[n-1].to) > 0 {
				apart[n-1].to = a.to
			}
			continue
		}
		apart = append(apart, a)
	}
	return apart, nil
}

func parse(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err == nil && p.Addr().Is4In6() {
			return netip.Prefix{}, errors.New("IPv4 in IPv6")
		}
		return p, err
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, errors.New("no address")
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// last is a network's last address.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (r ranges) have(a netip.Addr) bool {
	i, exact := slices.BinarySearchFunc(r, a, func(one addresses, a netip.Addr) int { return one.from.Compare(a) })
	return exact || i > 0 && a.Compare(r[i-1].to) <= 0
}
