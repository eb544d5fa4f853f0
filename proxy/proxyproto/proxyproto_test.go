package proxyproto_test

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"strings"
	"testing"

	"github.com/weirmesh/weir/proxy/proxyproto"
)

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// v2 is a header of version 2: its command and version, its family and transport,
// and what follows.
func v2(command, kind byte, rest string) string {
	b := append([]byte(signature), command, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(rest)))
	return string(b) + rest
}

func tlv(kind byte, value string) string {
	return string(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value)))) + value
}

const (
	pair4 = "\xc0\x00\x02\x01\xc0\x00\x02\x02\xdc\x04\x01\xbb" // 192.0.2.1:56324 → 192.0.2.2:443
	pair6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\xdc\x04\x01\xbb"
)

// checked puts a checksum behind a header.
func checked(kind byte, rest string) string {
	whole := []byte(v2(0x21, kind, rest+tlv(3, "\x00\x00\x00\x00")))
	sum := crc32.Checksum(whole, crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(whole[len(whole)-4:], sum)
	return string(whole)
}

func TestHeaders(t *testing.T) {
	const four, six = "192.0.2.1:56324", "[2001:db8::1]:56324"
	for _, c := range []struct{ name, header, client, local string }{
		{"v1, IPv4", "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", four, "192.0.2.2:443"},
		{"v1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n", six, "[2001:db8::2]:443"},
		{"v1, mapped", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 56324 443\r\n", four, "192.0.2.2:443"},
		{"v1, unknown", "PROXY UNKNOWN\r\n", "", ""},
		{"v1, unknown, and more", "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "", ""},
		{"v2, IPv4", v2(0x21, 0x11, pair4), four, "192.0.2.2:443"},
		{"v2, IPv6", v2(0x21, 0x21, pair6), six, "[2001:db8::2]:443"},
		{"v2, UDP", v2(0x21, 0x12, pair4), four, "192.0.2.2:443"},
		{"v2, LOCAL", v2(0x20, 0x00, ""), "", ""},
		{"v2, LOCAL, whatever it says", v2(0x20, 0x11, pair4), "", ""},
		{"v2, UNSPEC", v2(0x21, 0x00, ""), "", ""},
		{"v2, UNSPEC with what cannot be read", v2(0x21, 0x00, "abc"), "", ""},
		{"v2, UNIX", v2(0x21, 0x31, strings.Repeat("\x00", 216)), "", ""},
		{"v2, TLVs", v2(0x21, 0x11, pair4+tlv(1, "h2")+tlv(2, "a.example")+tlv(0xee, "")), four, "192.0.2.2:443"},
		{"v2, a checksum", checked(0x11, pair4+tlv(5, "id")), four, "192.0.2.2:443"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, n, err := proxyproto.Parse([]byte(c.header + "GET / HTTP/1.1\r\n\r\n"))
			if err != nil || n != len(c.header) {
				t.Fatalf("took %d of %d bytes, %v", n, len(c.header), err)
			}
			if got := text(h.Client); got != c.client {
				t.Errorf("client %s", got)
			}
			if got := text(h.Local); got != c.local {
				t.Errorf("local %s", got)
			}
			for n := range len(c.header) {
				if _, took, err := proxyproto.Parse([]byte(c.header[:n])); took != 0 || err != nil {
					t.Fatalf("of the first %d bytes it takes %d, %v", n, took, err)
				}
			}
		})
	}
}

func text(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func TestMalformed(t *testing.T) {
	for _, header := range []string{
		"GET / HTTP/1.1\r\n", "P0", "\x16\x03\x01", "PROXY\r\n", "PROXY \r\n", "PROXY TCP4\r\n",
		"PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n", "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 1\r\n",
		"PROXY TCP4  192.0.2.1 192.0.2.2 56324 443\r\n", "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\n",
		"PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n", "PROXY TCP4 192.0.2.1 192.0.2.2 0443 443\r\n",
		"PROXY TCP4 192.0.2.1 192.0.2.2 +1 443\r\n", "PROXY TCP4 192.0.2.1 192.0.2.2 -1 443\r\n",
		"PROXY TCP4 ::1 ::2 1 2\r\n", "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", "PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
		"PROXY TCP4 192.0.2.1 192.0.2.256 1 2\r\n", "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
		"PROXY UNKNOWN " + strings.Repeat("x", 100) + "\r\n",
		v2(0x11, 0x11, pair4), v2(0x22, 0x11, pair4), v2(0x21, 0x13, pair4), v2(0x21, 0x41, pair4),
		v2(0x21, 0x11, pair4[:11]), v2(0x21, 0x21, pair4), v2(0x21, 0x31, pair6),
		v2(0x21, 0x11, pair4+"\x01"), v2(0x21, 0x11, pair4+"\x01\x00\x05abc"),
		v2(0x21, 0x11, pair4+tlv(3, "abcd")), v2(0x21, 0x11, pair4+tlv(3, "abc")),
		v2(0x21, 0x11, pair4+tlv(4, strings.Repeat("x", proxyproto.MaxHeader))),
	} {
		if h, n, err := proxyproto.Parse([]byte(header)); err == nil {
			t.Errorf("%.60q is taken for %+v, %d bytes", header, h, n)
		}
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	four, six := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1]:65535")
	mapped := netip.AddrPortFrom(netip.MustParseAddr("::ffff:192.0.2.9"), 7)
	none := netip.AddrPort{}
	for _, v := range []proxyproto.Version{proxyproto.V1, proxyproto.V2} {
		for _, p := range [][4]netip.AddrPort{
			{four, mapped, four, netip.MustParseAddrPort("192.0.2.9:7")}, {six, six, six, six}, {four, six, four, six},
			{none, four, none, none}, {four, none, none, none}, {none, none, none, none},
		} {
			b := proxyproto.Append(nil, v, p[0], p[1])
			h, n, err := proxyproto.Parse(b)
			if err != nil || n != len(b) || h.Client != p[2] || h.Local != p[3] || h.Version != v {
				t.Errorf("version %d, %v: %q is read as %+v, %d bytes, %v", v, p, b, h, n, err)
			}
		}
	}
	if b := proxyproto.Append(nil, proxyproto.None, four, four); len(b) != 0 {
		t.Errorf("nothing is %q", b)
	}
}

// What is taken is a header that can be written again, and neither more bytes nor
// fewer change what it says.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", "PROXY UNKNOWN\r\n", v2(0x21, 0x21, pair6),
		checked(0x11, pair4), v2(0x20, 0, "")} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := proxyproto.Parse(b)
		if err != nil || n == 0 {
			if n != 0 && err == nil || err == nil && len(b) >= proxyproto.MaxHeader {
				t.Fatalf("%d bytes of %d, no error", n, len(b))
			}
			return
		}
		if n > len(b) || n > proxyproto.MaxHeader {
			t.Fatalf("it takes %d of %d bytes", n, len(b))
		}
		if again, m, err := proxyproto.Parse(b[:n]); err != nil || m != n || again != h {
			t.Fatalf("alone it is %+v, %d, %v", again, m, err)
		}
		if _, m, err := proxyproto.Parse(b[:n-1]); err != nil || m != 0 {
			t.Fatalf("a byte short it is %d, %v", m, err)
		}
		written := proxyproto.Append(nil, h.Version, h.Client, h.Local)
		if again, _, err := proxyproto.Parse(written); err != nil || again != h {
			t.Fatalf("%+v is written as %q, read as %+v, %v", h, written, again, err)
		}
	})
}
