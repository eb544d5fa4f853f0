package proxy

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
)

// reversedAddress reads the name under which an authority asks for an address,
// which no name of a server may be otherwise (RFC 8738, section 6): that of its
// record in the reverse DNS. It returns "" for other names.
func reversedAddress(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if labels, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(labels, ".")
		slices.Reverse(parts)
		if a, err := netip.ParseAddr(strings.Join(parts, ".")); err == nil && a.Is4() {
			return a.String()
		}
	}
	if labels, ok := strings.CutSuffix(name, ".ip6.arpa"); ok {
		parts := strings.Split(labels, ".")
		slices.Reverse(parts)
		raw, err := hex.DecodeString(strings.Join(parts, ""))
		if a, ok := netip.AddrFromSlice(raw); err == nil && ok && a.Is6() && len(parts) == 32 {
			return a.String()
		}
	}
	return ""
}
