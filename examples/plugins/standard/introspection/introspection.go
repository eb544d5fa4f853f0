// Package introspection is a policy that asks an authorization server about bearer tokens
// (RFC 7662), whatever they are made of.
//
//	config:
//	  service: idp
//	  url: https://issuer.example/introspect
//	  client: {id: gateway, secret: "…"}
//	  require: {scope: [orders]}
//	  headers: {x-email: email}
//
// The server is asked about a token once for all requests that bear it and all sandboxes
// of a proxy. What it answers is kept under a hash of the token: if the token is good, for
// cache.seconds and never longer than its exp, so that is how long it takes until one
// that was revoked is refused; if it is not, for cache.negative.
//
// When the server cannot be asked, requests are answered 503, but for tokens that were
// good less than stale seconds ago.
package introspection

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/url"
	"strings"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"

	"github.com/weirmesh/weir/examples/plugins/standard/bearer"
	"github.com/weirmesh/weir/examples/plugins/standard/consumer"
	"github.com/weirmesh/weir/examples/plugins/standard/once"
)

// Plugin is the policy.
func Plugin() sdk.Plugin { return sdk.Define(newIntrospection) }

const (
	// maxToken is how long a token may be, and maxAnswer what is said of it.
	maxToken  = 16 << 10
	maxAnswer = 32 << 10
)

type introspection struct {
	*bearer.Bearer
	config config
	call   sdk.Call // but for its body
	form   string   // what follows the token there
	cache  once.Cache
}

func newIntrospection(c config) (sdk.Handler, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	policy, _ := sdk.Property("plugin_name")
	depends, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	sum := fnv.New32a()
	sum.Write(depends)
	p := &introspection{
		Bearer: bearer.New(c.Config), config: c,
		call: sdk.Call{
			Service: c.Service, Method: "POST", Authority: u.Host, Path: u.RequestURI(), Timeout: seconds(c.Timeout),
			Header: []sdk.Field{{Name: "content-type", Value: "application/x-www-form-urlencoded"}, {Name: "accept", Value: "application/json"}},
		},
		form:  "&token_type_hint=access_token",
		cache: once.Cache{Name: "weir.introspection/" + policy, Slots: c.Cache.Entries, Config: sum.Sum32(), Timeout: seconds(c.Timeout)},
	}
	switch c.Client.Method {
	case "basic":
		both := url.QueryEscape(c.Client.ID) + ":" + url.QueryEscape(c.Client.Secret)
		p.call.Header = append(p.call.Header, sdk.Field{Name: "authorization", Value: "Basic " + base64.StdEncoding.EncodeToString([]byte(both))})
	case "post":
		p.form += "&" + url.Values{"client_id": {c.Client.ID}, "client_secret": {c.Client.Secret}}.Encode()
	}
	return p, nil
}

func (p *introspection) OnRequest(r *sdk.Request) sdk.Action {
	token, err := p.Token(r)
	switch {
	case err != nil:
		return p.Confused(r, err)
	case token == "":
		return p.None(r)
	case len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return p.Refuse(r, "the token is malformed")
	}
	digest, err := sdk.Digest(sdk.SHA256, []byte(token))
	if err != nil {
		return consumer.Broken(r.Exchange, err)
	}
	token = strings.Clone(token)
	return p.cache.Ask(r, string(digest),
		func(done func(once.Answer)) { p.ask(token, done) },
		func(a once.Answer) sdk.Action { return p.decide(r, a) })
}

// decide does what an answer says.
func (p *introspection) decide(r *sdk.Request, a once.Answer) sdk.Action {
	if a.Failed || a.Text == "" {
		sdk.Warnf("the service %s cannot be asked about a token: %s", p.config.Service, a.Text)
		return p.Unavailable(r, "the authorization server cannot be asked")
	}
	switch text := a.Text[1:]; a.Text[0] {
	case good:
		return p.Accept(r, told(text, len(p.Claims())))
	case insufficient:
		return p.Forbid(r, text)
	default:
		return p.Refuse(r, text)
	}
}

// ask asks the server about a token.
func (p *introspection) ask(token string, done func(once.Answer)) {
	call := p.call
	call.Body = []byte("token=" + url.QueryEscape(token) + p.form)
	err := sdk.Send(call, func(reply *sdk.Reply) {
		a, err := p.answered(reply)
		if err != nil {
			a = once.Answer{Failed: true, Text: err.Error()}
		}
		done(a)
	})
	if err != nil {
		done(once.Answer{Failed: true, Text: err.Error()})
	}
}

func (p *introspection) answered(reply *sdk.Reply) (once.Answer, error) {
	switch {
	case reply.Err != nil:
		return once.Answer{}, reply.Err
	case reply.Status() == 401 || reply.Status() == 403:
		return once.Answer{}, fmt.Errorf("it does not accept the client's credentials: it answers %d", reply.Status())
	case reply.Status() != 200:
		return once.Answer{}, fmt.Errorf("it answers %d", reply.Status())
	case reply.Size() > maxAnswer:
		return once.Answer{}, errors.New("its answer is too long")
	}
	return p.judge(reply.Body(), time.Unix(0, sdk.NowNanos()))
}
