package section

import (
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
)

// Answer takes in the head of an answer, into an exchange's response. Its trailers
// are a [Reader]'s, as those of a request.
type Answer struct {
	into *exchange.Exchange

	bad    error
	size   int
	fields bool // the pseudo-fields are over
	length int64
}

// Begin starts a head, in place of the one that x's response has.
func (a *Answer) Begin(x *exchange.Exchange) {
	*a = Answer{into: x, length: -1}
	x.Response.Status = 0
	x.Response.Fields.Reset()
}

// Length is the length of the body as announced, -1 when it is not.
func (a *Answer) Length() int64 { return a.length }

// Field takes in the next field. It is false once something is wrong: those that
// follow need not be given.
func (a *Answer) Field(name, value string) (more bool) {
	a.size += len(name) + len(value) + Overhead
	switch {
	case a.size > http1.MaxHead:
		a.bad = Malformed("its head is too large")
	case len(name) > 0 && name[0] == ':':
		a.bad = a.pseudo(name, value)
	default:
		a.fields = true
		if a.bad = CheckField(name, value); a.bad == nil {
			a.bad = a.regular(name, value)
		}
	}
	return a.bad == nil
}

func (a *Answer) pseudo(name, value string) error {
	r := &a.into.Response
	switch {
	case a.fields:
		return Malformed("a pseudo-field stands behind other fields")
	case name != ":status":
		return Malformed("a pseudo-field is unknown")
	case r.Status != 0:
		return Malformed("a pseudo-field is repeated")
	}
	var err error
	r.Status, err = ParseStatus(value)
	return err
}

// ParseStatus reads the status of an answer, 0 where it is none.
func ParseStatus(value string) (int, error) {
	switch {
	case len(value) != 3 || value[0] < '1' || value[0] > '9' || value[1] < '0' || value[1] > '9' || value[2] < '0' || value[2] > '9':
		return 0, Malformed("its status is no number of three digits")
	case value == "101":
		return 0, Malformed("its status is one of HTTP/1.1 alone")
	}
	return int(value[0]-'0')*100 + int(value[1]-'0')*10 + int(value[2]-'0'), nil
}

func (a *Answer) regular(name, value string) error {
	if name == "content-length" {
		n, err := ParseLength(value)
		if err != nil {
			return err
		}
		if a.length >= 0 && a.length != n {
			return Malformed("the length of the body is given twice")
		}
		a.length = n
	}
	fields := &a.into.Response.Fields
	if fields.Len() >= http1.MaxFields {
		return Malformed("its head has too many fields")
	}
	fields.AddParsed(a.into.Copy(name), a.into.Copy(value))
	return nil
}

// Finish draws the conclusions from a whole head.
func (a *Answer) Finish() error {
	if a.bad == nil && a.into.Response.Status == 0 {
		a.bad = Malformed("it has no status")
	}
	return a.bad
}
