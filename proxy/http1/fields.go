package http1

import (
	"bytes"

	"github.com/weirmesh/weir/proxy/exchange"
)

// parseFields reads field lines from b[at:] up to the empty line and returns
// where the head ends, 0 when that is not there yet. request is nil for a
// response.
func parseFields(b []byte, at int, fields *exchange.Fields, f *Framing, request *exchange.Request) (int, error) {
	absolute := request != nil && request.Authority != nil
	for {
		line, next, err := cutLine(b, at)
		if err != nil {
			return 0, err
		}
		if next == 0 {
			if len(b) >= MaxHead {
				return 0, &Error{Status: 431, Reason: "head is too large"}
			}
			return 0, nil
		}
		if next > MaxHead {
			return 0, &Error{Status: 431, Reason: "head is too large"}
		}
		if len(line) == 0 {
			return next, nil
		}
		at = next
		name, value, err := cutField(line)
		if err != nil {
			return 0, err
		}
		if fields.Len() >= MaxFields {
			return 0, &Error{Status: 431, Reason: "head has too many fields"}
		}
		if hopByHop[len(name)&31] {
			taken, err := f.take(name, value, request != nil)
			if err != nil {
				return 0, err
			}
			if taken {
				continue
			}
			if request != nil && len(name) == 4 && exchange.EqualFold(name, "host") {
				if f.host || !validAuthority(value) {
					return 0, malformed("Host is repeated or invalid")
				}
				f.host = true
				if !absolute { // an absolute target overrides it (RFC 9112, section 3.2.2)
					request.Authority = value
				}
				continue
			}
		}
		fields.AddParsed(name, value)
	}
}

// hopByHop tells by its length alone whether a name may be one that take or
// the host check looks for. Longer names than 31 fold onto short ones, which
// costs them the look and nothing else.
var hopByHop = func() (t [32]bool) {
	for _, name := range []string{"host", "connection", "content-length", "transfer-encoding", "te", "upgrade",
		"keep-alive", "expect", "proxy-connection"} {
		t[len(name)] = true
	}
	return t
}()

// take keeps in the framing what concerns this hop. A Content-Length is noted
// and left in place, for those who look at the fields.
func (f *Framing) take(name, value []byte, request bool) (taken bool, err error) {
	switch len(name) {
	case 2:
		return exchange.EqualFold(name, "te"), nil
	case 6:
		if request && exchange.EqualFold(name, "expect") {
			if !exchange.EqualFold(value, "100-continue") {
				return true, &Error{Status: 417, Reason: "this expectation cannot be met"}
			}
			f.Continue = true
			return true, nil
		}
	case 7:
		if exchange.EqualFold(name, "upgrade") {
			f.Upgrade = value
			return true, nil
		}
	case 10:
		if exchange.EqualFold(name, "connection") {
			f.takeConnection(value)
			return !f.connection, nil // with names in it, it stays until they were dropped
		}
		return exchange.EqualFold(name, "keep-alive"), nil
	case 14:
		if exchange.EqualFold(name, "content-length") {
			return false, f.takeLength(value)
		}
	case 16:
		return exchange.EqualFold(name, "proxy-connection"), nil
	case 17:
		if exchange.EqualFold(name, "transfer-encoding") {
			return true, f.takeCoding(value)
		}
	}
	return false, nil
}

func (f *Framing) takeConnection(value []byte) {
	switch {
	case exchange.EqualFold(value, "keep-alive"):
		f.keeping = true
	case exchange.EqualFold(value, "close"):
		f.closing = true
	default:
		for token := range bytes.SplitSeq(value, []byte(",")) {
			switch token = bytes.Trim(token, " \t"); {
			case exchange.EqualFold(token, "close"):
				f.closing = true
			case exchange.EqualFold(token, "keep-alive"):
				f.keeping = true
			case len(token) > 0:
				f.connection = true
				f.upgrading = f.upgrading || exchange.EqualFold(token, "upgrade")
			}
		}
	}
}

func (f *Framing) takeLength(value []byte) error {
	if f.Length >= 0 || f.Chunked {
		return malformed("the length of the body is given twice")
	}
	if len(value) == 0 || len(value) > 18 {
		return malformed("Content-Length is no number")
	}
	f.Length = 0
	for _, d := range value {
		if d < '0' || d > '9' {
			return malformed("Content-Length is no number")
		}
		f.Length = f.Length*10 + int64(d-'0')
	}
	return nil
}

func (f *Framing) takeCoding(value []byte) error {
	if f.Length >= 0 || f.Chunked {
		return malformed("the length of the body is given twice")
	}
	if exchange.EqualFold(value, "chunked") {
		f.Chunked = true
		return nil
	}
	// Another coding below a final, and only, "chunked" is well-formed.
	chunked, last := 0, false
	for coding := range bytes.SplitSeq(value, []byte(",")) {
		if last = exchange.EqualFold(bytes.Trim(coding, " \t"), "chunked"); last {
			chunked++
		}
	}
	if !last || chunked > 1 {
		return malformed("Transfer-Encoding does not end in one chunked")
	}
	return &Error{Status: 501, Reason: "this transfer coding is not known"}
}

// maxNominated is how many fields Connection may name. Nobody names as many;
// without a limit a head could make every name look at every field.
const maxNominated = 16

// dropNominated removes the fields that Connection names, and Connection. What
// frames a message cannot be named away: it is not taken from there.
func dropNominated(fields *exchange.Fields) error {
	var names [maxNominated][]byte
	n := 0
	for value := range fields.Values("connection") {
		for token := range bytes.SplitSeq(value, []byte(",")) {
			token = bytes.Trim(token, " \t")
			if len(token) == 0 || exchange.EqualFold(token, "content-length") {
				continue
			}
			if n == len(names) {
				return malformed("Connection names too many fields")
			}
			names[n] = token
			n++
		}
	}
	for _, name := range names[:n] {
		fields.Del(string(name))
	}
	fields.Del("connection")
	return nil
}

// cutField splits a field line and checks every byte of it.
func cutField(line []byte) (name, value []byte, err error) {
	colon := -1
	for i, c := range line {
		if !exchange.TokenByte(c) {
			if c == ':' {
				colon = i
			}
			break
		}
	}
	if colon <= 0 {
		return nil, nil, malformed("a field has no valid name")
	}
	name, value = line[:colon], line[colon+1:]
	for len(value) > 0 && (value[0] == ' ' || value[0] == '\t') {
		value = value[1:]
	}
	for len(value) > 0 && (value[len(value)-1] == ' ' || value[len(value)-1] == '\t') {
		value = value[:len(value)-1]
	}
	for _, c := range value {
		if control(c) {
			return nil, nil, malformed("a field value holds a control character")
		}
	}
	return name, value, nil
}
