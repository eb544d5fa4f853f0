package ratelimit

import (
	"crypto/sha256"
	"net/netip"
	"strings"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// caller says who is counted. The first byte keeps a header's value apart from
// an address that reads the same.
func (l *limiter) caller(r *sdk.Request) string {
	if l.config.Header != "" {
		if value := r.Header.Get(l.config.Header); value != "" {
			return "h" + short(value)
		}
	}
	return "a" + subscriber(r.ClientAddress())
}

// short bounds what the table has to keep of a caller.
func short(value string) string {
	const longest = 128
	if len(value) <= longest {
		return value
	}
	digest := sha256.Sum256([]byte(value))
	return string(digest[:])
}

// subscriber takes from an address what one subscriber cannot change at will:
// of IPv4 all, of IPv6 the network that providers give to a household.
func subscriber(address string) string {
	const household = 64
	if colon := strings.IndexByte(address, ':'); colon > 0 && address[0] != '[' {
		return address[:colon] // IPv4, by far the most frequent
	}
	from, err := netip.ParseAddrPort(address)
	if err != nil {
		return address
	}
	ip := from.Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	network, _ := ip.Prefix(household) // 64 bits are never too many for IPv6.
	return network.String()
}
