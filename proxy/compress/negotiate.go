package compress

import (
	"bytes"

	"github.com/weirmesh/weir/proxy/exchange"
)

// negotiate chooses the coding that the client likes best, and of those that it
// likes as much the one that the rule does. must: it does not want the answer as
// it is (identity;q=0).
func (r *Rule) negotiate(x *exchange.Exchange) (best Coding, must bool) {
	accepted := accept(&x.Request.Fields)
	quality := 0
	for _, c := range r.codings {
		if q := accepted.of(c); q > quality {
			best, quality = c, q
		}
	}
	plain := accepted.of(Identity)
	if accepted.says[Identity] && plain > quality {
		return Identity, false
	}
	return best, plain == 0 && best != Identity
}

// acceptance is what an Accept-Encoding says (RFC 9110, section 12.5.3): in
// thousandths how welcome each coding is.
type acceptance struct {
	quality [len(names)]int
	says    [len(names)]bool
	others  int // "*"
	star    bool
}

func (a *acceptance) of(c Coding) int {
	switch {
	case a.says[c]:
		return a.quality[c]
	case a.star:
		return a.others
	case c == Identity:
		return 1000 // welcome unless it is said not to be
	}
	return 0
}

// accept reads the fields of a request. What is malformed counts as not said.
func accept(f *exchange.Fields) (a acceptance) {
	for value := range f.Values("accept-encoding") {
		for one := range bytes.SplitSeq(value, []byte{','}) {
			name, parameters, _ := bytes.Cut(one, []byte{';'})
			q, ok := qvalue(parameters)
			if !ok {
				continue
			}
			a.note(bytes.TrimSpace(name), q)
		}
	}
	return a
}

func (a *acceptance) note(name []byte, q int) {
	if string(name) == "*" {
		a.star, a.others = true, q
		return
	}
	for c, known := range names {
		if exchange.EqualFold(name, known) || Coding(c) == Gzip && exchange.EqualFold(name, "x-gzip") {
			a.says[c], a.quality[c] = true, q
			return
		}
	}
}

// qvalue reads a weight: ";q=0.5". None is 1. A second parameter is none of
// Accept-Encoding's.
func qvalue(b []byte) (thousandths int, ok bool) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return 1000, true
	}
	key, value, ok := bytes.Cut(b, []byte{'='})
	if !ok || !exchange.EqualFold(bytes.TrimSpace(key), "q") {
		return 0, false
	}
	value = bytes.TrimSpace(value)
	if len(value) == 0 || len(value) > 5 || value[0] != '0' && value[0] != '1' || len(value) > 1 && value[1] != '.' {
		return 0, false
	}
	thousandths = int(value[0]-'0') * 1000
	scale := 100
	for _, c := range value[min(2, len(value)):] {
		if c < '0' || c > '9' {
			return 0, false
		}
		thousandths += int(c-'0') * scale
		scale /= 10
	}
	return thousandths, thousandths <= 1000
}
