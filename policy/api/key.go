package api

import (
	"cmp"
	"fmt"

	"github.com/weirmesh/weir/consumer"
	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/resource"
)

// keys is the policy that asks who calls. Nothing passes it that has not been found to
// be a key of an App which may call the Api.
type keys struct {
	spec      policy.Spec
	field     string
	told      []byte // the field in which the service is told the App; empty: it is not
	consumers *consumer.Tenant
	counts    *keyCounts
	release   func()
	// What those are told who show no key, or one that is not known. RFC 9110, section
	// 11.6.1, asks for a scheme with each 401, and none is registered for keys in a field
	// of their own: this is the one of the standard policy apikey.
	challenge []byte
	missing   exchange.Problem
}

func (h *Host) newKeys(spec policy.Spec, declared *weirv1.ApiSpec) (*keys, error) {
	if declared.GetAuthentication().GetApiKey() == nil {
		return nil, fmt.Errorf("make Api %s: it asks for no key", spec.Name)
	}
	if h.consumers == nil {
		return nil, fmt.Errorf("make Api %s: nobody knows any keys here", spec.Name)
	}
	k := &keys{spec: spec, field: keyField(declared), consumers: h.consumers.Tenant(spec.Tenant), challenge: []byte(`ApiKey realm="` + spec.Name + `"`)}
	k.told = []byte(declared.GetAuthentication().GetConsumerHeader())
	k.counts, k.release = h.meters.keysOf(spec.Tenant + "/" + spec.Name)
	k.missing = exchange.Problem{Status: 401, Code: "api_key_missing", Detail: "The API asks for a key in the field " + k.field + "."}
	return k, nil
}

// keyField is where requests bear their keys, empty where an Api asks for none.
func keyField(declared *weirv1.ApiSpec) string {
	key := declared.GetAuthentication().GetApiKey()
	if key == nil {
		return ""
	}
	return cmp.Or(key.GetHeader(), resource.DefaultKeyHeader)
}

func (k *keys) Spec() policy.Spec        { return k.spec }
func (k *keys) Phases() policy.Phases    { return policy.RequestHead }
func (k *keys) NewFilter() policy.Filter { return keyFilter{keys: k} }
func (k *keys) Release()                 { k.release() }

type keyFilter struct {
	*keys
	policy.NoBodies
}

var (
	unknownKey     = exchange.Problem{Status: 401, Code: "api_key_unknown", Detail: "The API key is not known, or is not any more."}
	severalKey     = exchange.Problem{Status: 401, Code: "api_key_unknown", Detail: "More than one API key was sent."}
	noSubscription = exchange.Problem{Status: 403, Code: "no_subscription", Detail: "The API key is known, but no active subscription of its app has this API."}
)

// OnRequest implements policy.Filter.
func (f keyFilter) OnRequest(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	key, fields := f.take(&x.Request.Fields)
	switch {
	case x.Consumer != nil && x.Consumer.Tenant == f.spec.Tenant: // found by another Api of the rule
		if !f.consumers.Allows(x.Consumer.App, f.spec.Name) {
			return f.refuse(x, resultNoSubscription, &noSubscription), nil
		}
		return f.accept(x), nil
	case len(key) == 0 && fields <= 1:
		return f.refuse(x, resultMissing, &f.missing), nil
	case fields > 1:
		return f.refuse(x, resultSeveral, &severalKey), nil
	}
	found, verdict := f.consumers.Find(f.called(x), key, x.Start)
	switch {
	case verdict == consumer.Accepted && found != nil && !f.consumers.Allows(found.App, f.spec.Name):
		return f.refuse(x, resultNoSubscription, &noSubscription), nil
	case verdict == consumer.Accepted && found != nil:
		x.Consumer = found
		return f.accept(x), nil
	case verdict == consumer.NoSubscription:
		return f.refuse(x, resultNoSubscription, &noSubscription), nil
	case verdict == consumer.Expired:
		return f.refuse(x, resultExpired, &unknownKey), nil
	}
	return f.refuse(x, resultUnknown, &unknownKey), nil
}

// called is the Api whose Subscription counts: of several on one rule the one that is
// called, if it asks for a key; else the first that does, whose policy this is.
func (f keyFilter) called(x *exchange.Exchange) string {
	n := len(f.spec.Tenant)
	if x.Keyed && len(x.Api) > n && x.Api[:n] == f.spec.Tenant && x.Api[n] == '/' {
		return x.Api[n+1:]
	}
	return f.spec.Name
}

// OnResponse implements policy.Filter.
func (keyFilter) OnResponse(*exchange.Exchange, bool) (policy.Verdict, error) {
	return policy.Continue, nil
}

// take removes the key from what goes to the service, and says how many fields bore one.
func (f keyFilter) take(from *exchange.Fields) (key []byte, fields int) {
	for i := range from.Len() {
		if at := from.At(i); exchange.EqualFold(at.Name, f.field) {
			if fields == 0 {
				key = at.Value
			}
			fields++
		}
	}
	if fields > 0 {
		from.Del(f.field)
	}
	return key, fields
}

// accept lets the request go on, and tells the service whose it is.
func (f keyFilter) accept(x *exchange.Exchange) policy.Verdict {
	f.counts[resultAccepted].Inc()
	if len(f.told) > 0 {
		x.Request.Fields.Set(f.told, x.Copy(x.Consumer.App))
	}
	return policy.Continue
}

func (f keyFilter) refuse(x *exchange.Exchange, result int, p *exchange.Problem) policy.Verdict {
	f.counts[result].Inc()
	x.Refuse(*p)
	if p.Status == 401 {
		x.Response.Fields.Add([]byte("WWW-Authenticate"), f.challenge)
	}
	return policy.Respond
}
