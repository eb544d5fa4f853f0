package hello_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy/hello"
)

// canned is a connection that has been said something, and takes no answer.
type canned struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (c *canned) Read(p []byte) (int, error) {
	if c.in == nil {
		return 0, io.EOF
	}
	return c.in.Read(p)
}
func (c *canned) Write(p []byte) (int, error)    { return c.out.Write(p) }
func (*canned) Close() error                     { return nil }
func (*canned) SetDeadline(time.Time) error      { return nil }
func (*canned) SetReadDeadline(time.Time) error  { return nil }
func (*canned) SetWriteDeadline(time.Time) error { return nil }
func (*canned) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*canned) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// said is what crypto/tls says as a client.
func said(cfg *tls.Config) []byte {
	c := &canned{}
	cfg.InsecureSkipVerify = true
	_ = tls.Client(c, cfg).Handshake() // nobody answers
	return c.out.Bytes()
}

// understood is what crypto/tls makes of bytes as a server.
func understood(b []byte) (info hello.Info, ok bool) {
	c := &canned{in: bytes.NewReader(b)}
	_ = tls.Server(c, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		info, ok = hello.Info{ServerName: strings.ToLower(h.ServerName), Protocols: h.SupportedProtos}, true
		return nil, errors.New("that is all")
	}}).Handshake()
	return info, ok
}

// inRecords puts a hello, which is one record, into records of at most n bytes.
func inRecords(b []byte, n int) (all []byte) {
	for part := range slices.Chunk(b[5:], n) {
		all = append(all, b[0], b[1], b[2])
		all = binary.BigEndian.AppendUint16(all, uint16(len(part)))
		all = append(all, part...)
	}
	return all
}

// message is a hello of one's own making: what follows the compressions.
func message(extensions ...[]byte) []byte {
	all := slices.Concat(extensions...)
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 0x01, 1, 0)
	body = binary.BigEndian.AppendUint16(body, uint16(len(all)))
	body = append(body, all...)
	b := []byte{22, 3, 1}
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)+4))
	b = append(b, 1, 0, byte(len(body)>>8), byte(len(body)))
	return append(b, body...)
}

func extension(kind uint16, body []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, kind)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

func names(list ...string) []byte {
	var all []byte
	for _, n := range list {
		all = append(all, 0)
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(n))), n...)
	}
	return extension(0, append(binary.BigEndian.AppendUint16(nil, uint16(len(all))), all...))
}

var (
	grease = extension(0x2a2a, nil)
	ech    = extension(0xfe0d, bytes.Repeat([]byte{7}, 250))
)

func TestWhatClientsSay(t *testing.T) {
	withName := said(&tls.Config{ServerName: "Shop.example", NextProtos: []string{"h2", "http/1.1"}})
	old := said(&tls.Config{ServerName: "old.example", MaxVersion: tls.VersionTLS12})
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"a name, in any case", withName, "shop.example"},
		{"TLS 1.2", old, "old.example"},
		{"no name", said(&tls.Config{}), ""},
		{"in records of one byte", inRecords(withName, 1), "shop.example"},
		{"in records of 100", inRecords(withName, 100), "shop.example"},
		{"with something behind it", append(slices.Clone(withName), "more"...), "shop.example"},
		{"GREASE", message(grease, names("a.example"), extension(0x5a5a, []byte{0})), "a.example"},
		{"ECH: the outer name", message(ech, names("outer.example")), "outer.example"},
		{"no extensions at all", message(), ""},
		{"a name of another kind first", message(extension(0, []byte{0, 11, 9, 0, 1, 'x', 0, 0, 4, 'a', '.', 'b', 'c'})), "a.bc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			info, more, err := hello.Parse(c.b)
			if err != nil || more || info.ServerName != c.want {
				t.Errorf("got %q, more %v, %v", info.ServerName, more, err)
			}
			for n := range min(len(c.b), 300) {
				if _, more, err := hello.Parse(c.b[:n]); !more || err != nil {
					t.Fatalf("the first %d bytes: more %v, %v", n, more, err)
				}
			}
		})
	}
	if info, _, _ := hello.Parse(withName); !slices.Equal(info.Protocols, []string{"h2", "http/1.1"}) {
		t.Errorf("protocols %v", info.Protocols)
	}
}

func TestWhatIsNoHello(t *testing.T) {
	long := message(extension(0x1111, make([]byte, 15<<10)), extension(0x1112, make([]byte, 1000)))
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), hello.ErrNotTLS},
		{"one byte that cannot begin one", []byte("G"), hello.ErrNotTLS},
		{"an alert", []byte{21, 3, 3, 0, 2, 1, 0}, hello.ErrNotTLS},
		{"another message", []byte{22, 3, 3, 0, 4, 2, 0, 0, 0}, hello.ErrMalformed},
		{"an empty record", []byte{22, 3, 1, 0, 0}, hello.ErrMalformed},
		{"an empty hello", []byte{22, 3, 1, 0, 4, 1, 0, 0, 0}, hello.ErrMalformed},
		{"a record that is too long", []byte{22, 3, 1, 0x40, 1}, hello.ErrMalformed},
		{"a hello that says that it is too long", []byte{22, 3, 1, 0, 4, 1, 1, 0, 0}, hello.ErrTooLong},
		{"two names", message(names("a.example", "b.example")), hello.ErrMalformed},
		{"the extension twice", message(names("a.example"), names("a.example")), hello.ErrMalformed},
		{"an empty name", message(names("")), hello.ErrMalformed},
		{"a trailing dot", message(names("a.example.")), hello.ErrMalformed},
		{"an empty protocol", message(extension(16, []byte{0, 1, 0})), hello.ErrMalformed},
		{"something behind the names", message(extension(0, []byte{0, 4, 0, 0, 1, 'a', 9})), hello.ErrMalformed},
		{"no end within the bound", inRecords(long, 1)[:hello.MaxHello], hello.ErrTooLong},
	} {
		if _, more, err := hello.Parse(c.b); !errors.Is(err, c.want) || more {
			t.Errorf("%s: more %v, %v", c.name, more, err)
		}
	}
}

// What both take for a hello they understand alike.
func FuzzAgainstCryptoTLS(f *testing.F) {
	f.Add(said(&tls.Config{ServerName: "a.example", NextProtos: []string{"h2"}}))
	f.Add(inRecords(said(&tls.Config{ServerName: "a.example"}), 50))
	f.Add(message(grease, names("a.example"), ech))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		info, more, err := hello.Parse(b)
		want, ok := understood(b)
		if !ok || len(b) > hello.MaxHello {
			return
		}
		if err != nil && b[0] != 22 {
			return // it forgives a warning before the hello
		}
		if err != nil || more {
			t.Fatalf("more %v, %v; crypto/tls has %+v", more, err, want)
		}
		if info.ServerName != want.ServerName || !slices.Equal(info.Protocols, want.Protocols) {
			t.Fatalf("got %+v, crypto/tls has %+v", info, want)
		}
	})
}
