// Package proxyproto reads and writes the header of HAProxy's PROXY protocol,
// versions 1 and 2: what a load balancer puts before a client's first byte to say
// who the client is.
//
// # Promises
//
//   - Parse is strict where the specification is: a header that is not one is an
//     error as soon as that can be known, never a guess.
//   - It reads no byte behind the header, and no more than [MaxHeader].
//   - What says nothing of a client (LOCAL, UNKNOWN, UNSPEC, UNIX) is a header
//     without addresses, not an error.
//   - A checksum that a version 2 header carries is verified; other TLVs are
//     walked and left alone.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"strconv"
)

// Version of the header.
type Version uint8

// The versions; None writes no header.
const (
	None Version = iota
	V1
	V2
)

// Header is what one says.
type Header struct {
	// Client and Local are the two ends of the connection that the header speaks
	// of; invalid where it names none.
	Client, Local netip.AddrPort
	Version       Version
}

// Bounds of a header.
const (
	// MaxHeader is the longest header that is taken: an address pair and some TLVs.
	// The format would allow 64 KiB.
	MaxHeader = 4096
	maxV1     = 107 // with its end of line
	fixedV2   = 16
)

// ErrMalformed is what every error of Parse is.
var ErrMalformed = errors.New("malformed PROXY protocol header")

var signature = []byte("\r\n\r\n\x00\r\nQUIT\n")

// Parse reads the header that b begins with, and its length; 0: there is more to
// come of it.
func Parse(b []byte) (h Header, n int, err error) {
	switch {
	case matches(b, signature):
		return parseV2(b)
	case matches(b, []byte("PROXY ")):
		return parseV1(b)
	}
	return Header{}, 0, ErrMalformed
}

// matches: b begins with it, or may yet.
func matches(b, with []byte) bool {
	n := min(len(b), len(with))
	return bytes.Equal(b[:n], with[:n])
}

func parseV1(b []byte) (Header, int, error) {
	line, _, whole := bytes.Cut(b[:min(len(b), maxV1)], []byte("\r\n"))
	if !whole {
		if len(b) >= maxV1 || bytes.IndexByte(line, '\n') >= 0 {
			return Header{}, 0, ErrMalformed
		}
		return Header{}, 0, nil
	}
	h, err := readV1(line)
	return h, len(line) + 2, err
}

// readV1 reads "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443", with single spaces.
func readV1(line []byte) (Header, error) {
	words := bytes.Split(line, []byte{' '})
	if len(words) < 2 {
		return Header{}, ErrMalformed
	}
	h := Header{Version: V1}
	if string(words[1]) == "UNKNOWN" { // whatever follows
		return h, nil
	}
	if len(words) != 6 {
		return Header{}, ErrMalformed
	}
	is4 := string(words[1]) == "TCP4"
	if !is4 && string(words[1]) != "TCP6" {
		return Header{}, ErrMalformed
	}
	client, ok := endpoint(words[2], words[4], is4)
	local, okLocal := endpoint(words[3], words[5], is4)
	if !ok || !okLocal {
		return Header{}, ErrMalformed
	}
	h.Client, h.Local = client, local
	return h, nil
}

func endpoint(address, port []byte, is4 bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(string(address))
	if err != nil || a.Is4() != is4 || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	if len(port) > 1 && port[0] == '0' || len(port) > 0 && port[0] == '+' {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(string(port), 10, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), true
}

func parseV2(b []byte) (Header, int, error) {
	if len(b) < fixedV2 {
		return Header{}, 0, nil
	}
	version, command := b[12]>>4, b[12]&15
	rest := int(binary.BigEndian.Uint16(b[14:]))
	size := fixedV2 + rest
	if version != 2 || command > 1 || size > MaxHeader {
		return Header{}, 0, ErrMalformed
	}
	if len(b) < size {
		return Header{}, 0, nil
	}
	h := Header{Version: V2}
	if command == 0 { // LOCAL: the balancer speaks for itself
		return h, size, nil
	}
	tlvs, ok := h.readAddresses(b[13], b[fixedV2:size])
	if !ok || !checkTLVs(b[:size], fixedV2+rest-len(tlvs)) {
		return Header{}, 0, ErrMalformed
	}
	return h, size, nil
}

// readAddresses reads the address block of a family and transport, and returns
// the TLVs behind it.
func (h *Header) readAddresses(kind byte, b []byte) (tlvs []byte, ok bool) {
	family, transport := kind>>4, kind&15
	if transport > 2 {
		return nil, false
	}
	switch family {
	case 0: // UNSPEC: there is no telling where TLVs would begin
		return nil, true
	case 1:
		if len(b) < 12 {
			return nil, false
		}
		h.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[8:]))
		h.Local = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), binary.BigEndian.Uint16(b[10:]))
		b = b[12:]
	case 2:
		if len(b) < 36 {
			return nil, false
		}
		h.Client = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[32:]))
		h.Local = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[16:])).Unmap(), binary.BigEndian.Uint16(b[34:]))
		b = b[36:]
	case 3:
		if len(b) < 216 {
			return nil, false
		}
		b = b[216:]
	default:
		return nil, false
	}
	return b, true
}

const tlvChecksum = 3

// checkTLVs walks the TLVs of a header, which begin at from, and verifies its
// checksum, if there is one.
func checkTLVs(header []byte, from int) bool {
	for at := from; at < len(header); {
		if len(header)-at < 3 {
			return false
		}
		kind, size := header[at], int(binary.BigEndian.Uint16(header[at+1:]))
		at += 3
		if len(header)-at < size {
			return false
		}
		if kind == tlvChecksum && (size != 4 || checksum(header, at) != binary.BigEndian.Uint32(header[at:])) {
			return false
		}
		at += size
	}
	return true
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is that of a header whose own checksum, at the given place, is zero.
func checksum(header []byte, at int) uint32 {
	var zero [4]byte
	sum := crc32.Update(0, castagnoli, header[:at])
	sum = crc32.Update(sum, castagnoli, zero[:])
	return crc32.Update(sum, castagnoli, header[at+4:])
}

// Append writes the header of a connection from client to local. Where one of the
// two is not known it says so.
func Append(b []byte, v Version, client, local netip.AddrPort) []byte {
	known := client.IsValid() && local.IsValid()
	c, l := client.Addr().Unmap().WithZone(""), local.Addr().Unmap().WithZone("")
	is4 := c.Is4() && l.Is4()
	switch v {
	case V1:
		return appendV1(b, known, is4, netip.AddrPortFrom(c, client.Port()), netip.AddrPortFrom(l, local.Port()))
	case V2:
		return appendV2(b, known, is4, netip.AddrPortFrom(c, client.Port()), netip.AddrPortFrom(l, local.Port()))
	}
	return b
}

func appendV1(b []byte, known, is4 bool, client, local netip.AddrPort) []byte {
	switch {
	case !known:
		return append(b, "PROXY UNKNOWN\r\n"...)
	case is4:
		b = append(b, "PROXY TCP4 "...)
	default:
		b = append(b, "PROXY TCP6 "...)
		client, local = as6(client), as6(local)
	}
	b = client.Addr().AppendTo(b)
	b = append(b, ' ')
	b = local.Addr().AppendTo(b)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(client.Port()), 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(local.Port()), 10)
	return append(b, "\r\n"...)
}

func as6(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

func appendV2(b []byte, known, is4 bool, client, local netip.AddrPort) []byte {
	b = append(b, signature...)
	switch {
	case !known:
		return append(b, 0x20, 0, 0, 0) // LOCAL
	case is4:
		b = append(b, 0x21, 0x11, 0, 12)
		b = append(b, client.Addr().AsSlice()...)
		b = append(b, local.Addr().AsSlice()...)
	default:
		b = append(b, 0x21, 0x21, 0, 36)
		c, l := client.Addr().As16(), local.Addr().As16()
		b = append(append(b, c[:]...), l[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, client.Port())
	return binary.BigEndian.AppendUint16(b, local.Port())
}
