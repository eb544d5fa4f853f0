package router

import (
	"bytes"
	"net/netip"
	"strings"
)

// maxHost is longer than any host name; a host that does not fit is no name.
const maxHost = 256

// hosts keeps a value for each hostname: exact ones, wildcards by what follows
// their "*.", and one for no hostname at all.
type hosts[V any] struct {
	exact, wild index[V]
	wildLengths lengths
	none        V
}

// find returns the place of a hostname's value for an edit to change.
func (h *hosts[V]) get(hostname string) (V, bool) {
	switch suffix, isWild := strings.CutPrefix(hostname, "*."); {
	case hostname == "":
		return h.none, true
	case isWild:
		return h.wild.getString(suffix)
	}
	return h.exact.getString(hostname)
}

func (h *hosts[V]) set(e *edit, hostname string, v V) {
	switch suffix, isWild := strings.CutPrefix(hostname, "*."); {
	case hostname == "":
		h.none = v
	case isWild:
		h.wild.set(e, suffix, v)
		h.wildLengths.add(len(suffix))
	default:
		h.exact.set(e, hostname, v)
	}
}

func (h *hosts[V]) delete(e *edit, hostname string) {
	switch suffix, isWild := strings.CutPrefix(hostname, "*."); {
	case hostname == "":
		var zero V
		h.none = zero
	case isWild:
		h.wild.delete(e, suffix)
	default:
		h.exact.delete(e, hostname)
	}
}

// wildcard returns the value of the longest wildcard that fits the host, of
// those whose suffix begins after from; next is the from for the following
// one, negative when none is left.
func (h *hosts[V]) wildcard(host []byte, from int) (v V, next int) {
	for {
		dot := bytes.IndexByte(host[from:], '.')
		if dot < 0 {
			return v, -1
		}
		at := from + dot
		from = at + 1
		// A wildcard stands for one label or more, none of the first is empty.
		if at == 0 || !h.wildLengths.has(len(host)-from) {
			continue
		}
		if v, ok := h.wild.get(host[from:]); ok {
			return v, from
		}
	}
}

// site is a port: the groups of listeners on it by hostname. Those bound to an
// address of their own hear what arrives there, the others all the rest.
type site struct {
	shared hosts[int]
	own    map[netip.Addr]*hosts[int]
}

// noGroup stands for the absence of a listener without hostname.
const noGroup = -1

func newSite() *site { return &site{shared: hosts[int]{none: noGroup}} }

// at returns the listeners bound to an address, made when they are the first.
func (s *site) at(address netip.Addr) *hosts[int] {
	if !address.IsValid() {
		return &s.shared
	}
	h := s.own[address]
	if h == nil {
		if s.own == nil {
			s.own = map[netip.Addr]*hosts[int]{}
		}
		h = &hosts[int]{none: noGroup}
		s.own[address] = h
	}
	return h
}

func (s *site) find(local netip.Addr, host []byte) (group int, ok bool) {
	if s == nil {
		return 0, false
	}
	h := &s.shared
	if len(s.own) > 0 {
		if own := s.own[local.Unmap()]; own != nil {
			h = own
		}
	}
	if group, ok := h.exact.get(host); ok {
		return group, true
	}
	if h.wild.n > 0 {
		if group, next := h.wildcard(host, 0); next >= 0 {
			return group, true
		}
	}
	return h.none, h.none != noGroup
}

// normalHost takes the host out of an authority: without port, brackets and
// trailing dot, in lower case. It uses buf when there is something to lower;
// what is too long for it is no host name and becomes "".
func normalHost(buf *[maxHost]byte, authority []byte) []byte {
	host := authority
	if len(host) > 0 && host[0] == '[' {
		host = host[1:]
		if end := bytes.IndexByte(host, ']'); end >= 0 {
			host = host[:end]
		}
	} else if colon := bytes.IndexByte(host, ':'); colon >= 0 {
		host = host[:colon]
	}
	host = bytes.TrimSuffix(host, []byte{'.'})
	if len(host) > maxHost {
		return nil
	}
	for i, c := range host {
		if 'A' <= c && c <= 'Z' {
			n := copy(buf[:], host)
			lower(buf[i:n])
			return buf[:n]
		}
	}
	return host
}

func lower(b []byte) {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
}

// normalHostname is the form in which declared hostnames are kept.
func normalHostname(s string) string {
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if s == "*" {
		return ""
	}
	return s
}

// intersect reports whether some host fits both hostnames.
func intersect(a, b string) bool {
	if a == "" || b == "" || a == b {
		return true
	}
	suffixA, wildA := strings.CutPrefix(a, "*")
	suffixB, wildB := strings.CutPrefix(b, "*")
	switch {
	case wildA && wildB:
		return strings.HasSuffix(suffixA, suffixB) || strings.HasSuffix(suffixB, suffixA)
	case wildA:
		return len(b) > len(suffixA) && strings.HasSuffix(b, suffixA)
	case wildB:
		return len(a) > len(suffixB) && strings.HasSuffix(a, suffixB)
	}
	return false
}
