// Package hello reads the first thing that a TLS client says, its ClientHello, for
// those who pass a connection on without ending TLS: the name that it asks for and
// the protocols that it speaks.
//
//	bytes ─▶ records ─▶ handshake message ─▶ Info{ServerName, Protocols}
//
// # Promises
//
//   - It agrees with crypto/tls: what that takes for a ClientHello with a name is
//     taken for the same one here. A test compares the two.
//   - A hello may lie in any number of records, and of reads.
//   - It looks at no more than [MaxHello] bytes, and never past the hello's end.
//   - A client that hides its name (ECH) is known by the outer one, which is all
//     that can be seen.
package hello

import (
	"encoding/binary"
	"errors"
	"strings"
)

// MaxHello is the longest ClientHello that is taken, with its records' headers.
// Those with post-quantum key shares have about 2 KiB.
const MaxHello = 16 << 10

// Info is what a ClientHello says.
type Info struct {
	// ServerName is in lower case; "" where the client asks for none.
	ServerName string
	// Protocols are those offered by ALPN, in the client's order.
	Protocols []string
}

// The errors of Parse. ErrNotTLS says that the client speaks something else,
// ErrTooLong that its hello has no end within MaxHello.
var (
	ErrNotTLS    = errors.New("not a TLS handshake")
	ErrMalformed = errors.New("malformed ClientHello")
	ErrTooLong   = errors.New("ClientHello is too long")
)

// The numbers of RFC 8446 and RFC 6066.
const (
	recordHandshake     = 22
	messageClientHello  = 1
	extensionServerName = 0
	extensionALPN       = 16
	nameHost            = 0
	recordHeader        = 5
	messageHeader       = 4
	maxRecord           = 16 << 10
	randomAndVersion    = 2 + 32
	noVersion           = 0x10 // a record's version does not count (RFC 8446, section 5.1), but this one is no TLS
)

// Parse reads the ClientHello that b begins with. more: there is more to come of
// it. What stands behind it is not looked at.
func Parse(b []byte) (info Info, more bool, err error) {
	message, more, err := gather(b)
	if more && err == nil && len(b) >= MaxHello {
		return Info{}, false, ErrTooLong
	}
	if more || err != nil {
		return Info{}, more && err == nil, err
	}
	info, ok := parseHello(message)
	if !ok {
		return Info{}, false, ErrMalformed
	}
	return info, false, nil
}

// gather puts the message together that the records carry.
func gather(b []byte) (message []byte, more bool, err error) {
	want := messageHeader
	for {
		if len(b) > 0 && b[0] != recordHandshake || len(b) > 1 && b[1] >= noVersion {
			if message == nil {
				return nil, false, ErrNotTLS
			}
			return nil, false, ErrMalformed
		}
		if len(b) < recordHeader {
			return nil, true, nil
		}
		size := int(binary.BigEndian.Uint16(b[3:]))
		if size == 0 || size > maxRecord {
			return nil, false, ErrMalformed
		}
		part := b[recordHeader:min(len(b), recordHeader+size)]
		message = append(message, part...)
		if len(message) > 0 && message[0] != messageClientHello {
			return nil, false, ErrMalformed
		}
		if len(message) >= messageHeader {
			want = messageHeader + int(message[1])<<16 + int(message[2])<<8 + int(message[3])
			if want > MaxHello {
				return nil, false, ErrTooLong
			}
		}
		if len(message) >= want && want > messageHeader {
			return message[messageHeader:want], false, nil
		}
		if len(message) >= messageHeader && want == messageHeader {
			return nil, false, ErrMalformed // an empty one
		}
		if len(part) < size {
			return nil, true, nil
		}
		b = b[recordHeader+size:]
	}
}

// reader takes a message apart; once it has failed everything is empty.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.b) {
		r.failed, r.b = true, nil
		return nil
	}
	part := r.b[:n]
	r.b = r.b[n:]
	return part
}

// list takes what is preceded by its length, of so many bytes.
func (r *reader) list(sizeBytes int) []byte {
	n := 0
	for _, c := range r.take(sizeBytes) {
		n = n<<8 | int(c)
	}
	return r.take(n)
}

func (r *reader) number() int {
	b := r.take(2)
	if b == nil {
		return 0
	}
	return int(binary.BigEndian.Uint16(b))
}

func parseHello(message []byte) (info Info, ok bool) {
	r := &reader{b: message}
	r.take(randomAndVersion)
	r.list(1) // session
	r.list(2) // suites
	r.list(1) // compressions
	if r.failed || len(r.b) == 0 {
		return info, !r.failed // before there were extensions
	}
	extensions := &reader{b: r.list(2)}
	if r.failed || len(r.b) > 0 {
		return info, false
	}
	seen := map[int]bool{}
	for len(extensions.b) > 0 {
		kind, body := extensions.number(), extensions.list(2)
		if extensions.failed || seen[kind] {
			return Info{}, false
		}
		seen[kind] = true
		switch kind {
		case extensionServerName:
			ok = info.readName(body)
		case extensionALPN:
			ok = info.readProtocols(body)
		default:
			ok = true
		}
		if !ok {
			return Info{}, false
		}
	}
	return info, true
}

// readName reads the list of names, of which one may be a host's.
func (i *Info) readName(body []byte) bool {
	outer := &reader{b: body}
	names := &reader{b: outer.list(2)}
	if outer.failed || len(outer.b) > 0 || len(names.b) == 0 {
		return false
	}
	for len(names.b) > 0 {
		kind, name := names.take(1), names.list(2)
		if names.failed || len(name) == 0 {
			return false
		}
		if kind[0] != nameHost {
			continue
		}
		if i.ServerName != "" || name[len(name)-1] == '.' { // RFC 6066, section 3
			return false
		}
		i.ServerName = strings.ToLower(string(name))
	}
	return true
}

func (i *Info) readProtocols(body []byte) bool {
	outer := &reader{b: body}
	list := &reader{b: outer.list(2)}
	if outer.failed || len(outer.b) > 0 || len(list.b) == 0 {
		return false
	}
	for len(list.b) > 0 {
		name := list.list(1)
		if list.failed || len(name) == 0 {
			return false
		}
		i.Protocols = append(i.Protocols, string(name))
	}
	return true
}
