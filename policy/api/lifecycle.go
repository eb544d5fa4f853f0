package api

import (
	"net/http"
	"strconv"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// lifecycle is the policy of a version that is not simply published.
type lifecycle struct {
	spec  policy.Spec
	state weirv1.ApiSpec_State
	// What answers bear; empty: nothing.
	deprecation, sunset, link []byte
	successor                 string
}

func newLifecycle(spec policy.Spec, declared *weirv1.ApiSpec) *lifecycle {
	l := &lifecycle{spec: spec, state: declared.GetState(), successor: declared.GetDeprecation().GetSuccessor()}
	d := declared.GetDeprecation()
	if l.successor != "" {
		l.link = []byte("<" + l.successor + `>; rel="successor-version"`)
	}
	if l.state != weirv1.ApiSpec_DEPRECATED {
		return l
	}
	if at := d.GetAt(); at != nil {
		l.deprecation = strconv.AppendInt([]byte("@"), at.GetSeconds(), 10) // RFC 9745, section 2.1
	}
	if sunset := d.GetSunset(); sunset != nil {
		l.sunset = sunset.AsTime().AppendFormat(nil, http.TimeFormat)
	}
	return l
}

func (l *lifecycle) Spec() policy.Spec        { return l.spec }
func (l *lifecycle) Phases() policy.Phases    { return policy.RequestHead | policy.ResponseHead }
func (l *lifecycle) NewFilter() policy.Filter { return lifecycleFilter{lifecycle: l} }
func (l *lifecycle) Release()                 {}

type lifecycleFilter struct {
	*lifecycle
	policy.NoBodies
}

func (l lifecycleFilter) OnRequest(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	switch l.state {
	case weirv1.ApiSpec_PUBLISHED, weirv1.ApiSpec_DEPRECATED:
		return policy.Continue, nil
	case weirv1.ApiSpec_RETIRED:
		p := exchange.Problem{Status: 410, Code: "api_retired", Detail: "This version of the API has been retired."}
		if l.successor != "" {
			p.Detail = "This version of the API has been retired; its successor is at " + l.successor
			p.Members = `,"successor":"` + l.successor + `"`
		}
		x.Refuse(p)
		l.add(x, "Link", l.link)
	default:
		x.Refuse(exchange.Problem{Status: 404, Code: "api_not_published", Detail: "This version of the API is not published."})
	}
	return policy.Respond, nil
}

func (l lifecycleFilter) OnResponse(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	if l.state == weirv1.ApiSpec_DEPRECATED {
		l.add(x, "Deprecation", l.deprecation)
		l.add(x, "Sunset", l.sunset)
		l.add(x, "Link", l.link)
	}
	return policy.Continue, nil
}

func (lifecycleFilter) add(x *exchange.Exchange, name string, value []byte) {
	if len(value) > 0 {
		x.Response.Fields.Add([]byte(name), value)
	}
}
