package proxy

import (
	"bytes"
	"math/rand/v2"
	"strconv"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/balancer"
	"github.com/weirmesh/weir/proxy/exchange"
)

// affinity is what tells requests apart that are to go to different endpoints:
// one of these.
type affinity struct {
	header, query string
	address       bool
	cookie        string
	attributes    string // of the cookie that a new session is given
}

func compileAffinity(spec *weirv1.HashPolicy) *affinity {
	if spec == nil {
		return nil
	}
	a := &affinity{header: spec.GetHeader(), query: spec.GetQuery(), address: spec.GetAddress(), cookie: spec.GetCookie().GetName()}
	if a.cookie != "" {
		path := spec.GetCookie().GetPath()
		if path == "" {
			path = "/"
		}
		a.attributes = "; Path=" + path + "; HttpOnly; SameSite=Lax"
		if ttl := spec.GetCookie().GetTtl().AsDuration(); ttl > 0 {
			a.attributes += "; Max-Age=" + strconv.Itoa(int(ttl.Seconds()))
		}
	}
	return a
}

// key is what a hash goes by for this request; a request that cannot be told
// apart goes anywhere. The session is what a new one's cookie is to say.
func (a *affinity) key(x *exchange.Exchange) (key uint64, session []byte) {
	switch {
	case a == nil:
		return 0, nil
	case a.address:
		ip := x.Client.Addr().Unmap().As16()
		return balancer.Hash(ip[:]), nil
	case a.cookie != "":
		if value := cookie(x, a.cookie); len(value) > 0 {
			return balancer.Hash(value), nil
		}
		value := x.Copy(strconv.FormatUint(rand.Uint64(), 36), strconv.FormatUint(rand.Uint64(), 36))
		return balancer.Hash(value), value
	case a.header != "":
		if value := x.Request.Fields.Get(a.header); len(value) > 0 {
			return balancer.Hash(value), nil
		}
	default:
		if value := parameter(x.Request.Path, a.query); len(value) > 0 {
			return balancer.Hash(value), nil
		}
	}
	return rand.Uint64(), nil
}

// stick gives the client of a new session its cookie.
func (a *affinity) stick(x *exchange.Exchange, session []byte) {
	if session == nil {
		return
	}
	secure := ""
	if string(x.Request.Scheme) == "https" {
		secure = "; Secure"
	}
	x.Response.Fields.Add(headerSetCookie, x.Copy(a.cookie, "=", string(session), a.attributes, secure))
}

var headerSetCookie = []byte("Set-Cookie")

// cookie returns the value of a cookie that the client sent.
func cookie(x *exchange.Exchange, name string) []byte {
	for i := range x.Request.Fields.Len() {
		f := x.Request.Fields.At(i)
		if !exchange.EqualFold(f.Name, "cookie") {
			continue
		}
		for rest := f.Value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte{';'})
			if key, value, ok := bytes.Cut(bytes.TrimSpace(pair), []byte{'='}); ok && string(key) == name {
				return bytes.Trim(value, `"`)
			}
		}
	}
	return nil
}

// parameter returns the value of a query parameter, as it was sent. Its name may
// not be sent in another spelling.
func parameter(path []byte, name string) []byte {
	_, query, _ := bytes.Cut(path, []byte{'?'})
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte{'&'})
		if key, value, _ := bytes.Cut(pair, []byte{'='}); string(key) == name {
			return value
		}
	}
	return nil
}
