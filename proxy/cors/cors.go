// Package cors is the server's side of the CORS protocol (Fetch standard,
// section 3.3): which pages of other origins may read what a route serves.
//
//	OPTIONS with Origin, Access-Control-Request-Method ─▶ Preflight ─▶ 204
//	any other request ─▶ service ─▶ Stamp ─▶ client
//
// A [Policy] is one declaration, compiled. It never changes.
//
// # Promises
//
//   - A preflight never reaches a service, nor a policy: it bears no
//     credentials, so it could not pass one.
//   - The fields of the protocol in an answer are the policy's alone. What a
//     service sends under their names is dropped: two opinions are none to a
//     browser.
//   - An origin that is not allowed gets an answer without these fields, and its
//     preflight 403.
//   - "*" is written only where there are no credentials, since it means nothing
//     beside them. Otherwise what was asked for is repeated.
//   - Vary says by what the answer differs, so that no cache hands one origin's
//     to another.
package cors

import (
	"slices"
	"strconv"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// Policy says which origins may do what.
type Policy struct {
	origins     []origin
	anyOrigin   bool
	credentials bool
	anyMethod   bool
	anyHeader   bool
	anyExposed  bool

	// What the fields say, where that does not depend on the request; nil: they
	// are left out.
	methods, headers, exposed, maxAge []byte
}

// origin is one that is allowed, in two parts between which there may be
// anything. Ports are always there.
type origin struct {
	scheme string
	suffix string // of host and port
	wild   bool   // more may stand before the suffix
}

// defaultMaxAge is the Gateway API's.
const defaultMaxAge = 5

// New compiles a declaration.
func New(spec *weirv1.Cors) *Policy {
	p := &Policy{
		credentials: spec.GetAllowCredentials(),
		anyOrigin:   slices.Contains(spec.GetAllowOrigins(), "*"),
		anyMethod:   slices.Contains(spec.GetAllowMethods(), "*"),
		anyHeader:   slices.Contains(spec.GetAllowHeaders(), "*"),
		anyExposed:  slices.Contains(spec.GetExposeHeaders(), "*"),
		methods:     join(spec.GetAllowMethods()),
		headers:     join(spec.GetAllowHeaders()),
		exposed:     join(spec.GetExposeHeaders()),
	}
	for _, text := range spec.GetAllowOrigins() {
		if text != "*" {
			p.origins = append(p.origins, parse(text))
		}
	}
	age := spec.GetMaxAge()
	if age == 0 {
		age = defaultMaxAge
	}
	p.maxAge = strconv.AppendUint(nil, uint64(age), 10)
	return p
}

func join(values []string) []byte {
	if len(values) == 0 {
		return nil
	}
	return []byte(strings.Join(values, ", "))
}

func parse(text string) origin {
	scheme, host, _ := strings.Cut(text, "://")
	rest, wild := strings.CutPrefix(host, "*")
	return origin{scheme, withPort(scheme, rest), wild}
}

// withPort adds the scheme's own port to a host that has none.
func withPort(scheme, host string) string {
	if colon := strings.LastIndexByte(host, ':'); colon >= 0 && !strings.HasSuffix(host, "]") {
		return host
	}
	if scheme == "https" {
		return host + ":443"
	}
	return host + ":80"
}

// allows reports whether pages of an origin, as a browser sends it, may.
func (p *Policy) allows(sent []byte) bool {
	if p.anyOrigin {
		return true
	}
	scheme, host, ok := strings.Cut(string(sent), "://")
	if !ok {
		return false // "null", or none
	}
	host = withPort(scheme, host)
	return slices.ContainsFunc(p.origins, func(o origin) bool {
		if o.wild {
			return scheme == o.scheme && len(host) > len(o.suffix) && strings.HasSuffix(host, o.suffix)
		}
		return scheme == o.scheme && host == o.suffix
	})
}

// IsPreflight reports whether a browser asks what it may ask.
func IsPreflight(x *exchange.Exchange) bool {
	return string(x.Request.Method) == "OPTIONS" && x.Request.Fields.Has("origin") && len(Wanted(x)) > 0
}

// Wanted is the method that a preflight is about.
func Wanted(x *exchange.Exchange) []byte {
	return x.Request.Fields.Get("access-control-request-method")
}

// Preflight answers one, with 204, and reports whether its origin is allowed;
// if it is not, there is no answer yet.
func (p *Policy) Preflight(x *exchange.Exchange) bool {
	if !p.allows(x.Request.Fields.Get("origin")) {
		return false
	}
	x.Answer(204, nil)
	f := &x.Response.Fields
	switch {
	case p.anyMethod:
		f.Add(nameMethods, Wanted(x))
	case p.methods != nil:
		f.Add(nameMethods, p.methods)
	}
	switch asked := x.Request.Fields.Get("access-control-request-headers"); {
	case p.anyHeader && len(asked) > 0: // not "*", which leaves Authorization out
		f.Add(nameHeaders, asked)
	case !p.anyHeader && p.headers != nil:
		f.Add(nameHeaders, p.headers)
	}
	f.Add(nameMaxAge, p.maxAge)
	return true
}

// Stamp writes the fields of any answer, a preflight's too, that depend on the
// origin. It comes last, whoever made the answer.
func (p *Policy) Stamp(x *exchange.Exchange, preflight bool) {
	f := &x.Response.Fields
	if !preflight {
		drop(f)
	}
	if preflight {
		f.AddVary("Origin")
		f.AddVary("Access-Control-Request-Method")
		f.AddVary("Access-Control-Request-Headers")
	} else if !p.anyOrigin || p.credentials {
		f.AddVary("Origin")
	}
	sent := x.Request.Fields.Get("origin")
	if sent == nil || !p.allows(sent) {
		return
	}
	if p.anyOrigin && !p.credentials {
		f.Add(nameOrigin, star)
	} else {
		f.Add(nameOrigin, sent)
	}
	if p.credentials {
		f.Add(nameCredentials, yes)
	}
	if preflight {
		return
	}
	if exposed := p.expose(x); exposed != nil {
		f.Add(nameExpose, exposed)
	}
}

// expose is what a page may read. Beside credentials "*" would be the name of a
// field, so the fields that there are are named.
func (p *Policy) expose(x *exchange.Exchange) []byte {
	if !p.anyExposed || !p.credentials {
		return p.exposed
	}
	var names []byte
	for i := range x.Response.Fields.Len() {
		name := x.Response.Fields.At(i).Name
		if exchange.EqualFold(name, "set-cookie") || isCORS(name) {
			continue
		}
		if names != nil {
			names = append(names, ", "...)
		}
		names = append(names, name...)
	}
	return names
}

var (
	nameOrigin      = []byte("Access-Control-Allow-Origin")
	nameCredentials = []byte("Access-Control-Allow-Credentials")
	nameMethods     = []byte("Access-Control-Allow-Methods")
	nameHeaders     = []byte("Access-Control-Allow-Headers")
	nameExpose      = []byte("Access-Control-Expose-Headers")
	nameMaxAge      = []byte("Access-Control-Max-Age")
	star, yes       = []byte("*"), []byte("true")
)

// drop takes out what a service says of the matter.
func drop(f *exchange.Fields) {
	for i := f.Len() - 1; i >= 0; i-- {
		if name := f.At(i).Name; isCORS(name) {
			f.Del(string(name))
			i = min(i, f.Len())
		}
	}
}

const prefix = "Access-Control-"

func isCORS(name []byte) bool {
	return len(name) > len(prefix) && exchange.EqualFold(name[:len(prefix)], prefix)
}
