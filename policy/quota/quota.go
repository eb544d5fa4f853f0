// Package quota is the policy that holds the consumers of an Api to the limits of their
// plans. It stands behind the policies that say who they are and what they may, and
// before those that limit in other ways.
//
//	Exchange.Consumer ─▶ quota.Client.Acquire ─▶ continue, with RateLimit-Policy and RateLimit
//	                                        └─▶ 429 quota_exceeded, 503 limit_unavailable
//
// An exchange without a consumer, or with one whose plan has no limits, passes as it is.
//
// The fields are those of draft-ietf-httpapi-ratelimit-headers-10, as package quota writes
// them. What a service says in fields of these names is replaced:
// it speaks of its own client, which is this proxy.
package quota

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/quota"
)

// Host makes the policy.
type Host struct{ client *quota.Client }

// NewHost returns a host whose policies take tokens from a client.
func NewHost(client *quota.Client) *Host { return &Host{client} }

var _ policy.Maker = (*Host)(nil)

// Make implements policy.Maker for the native policy policy.Quota.
func (h *Host) Make(_ context.Context, spec policy.Spec, _ policy.Services) (policy.Policy, error) {
	if spec.Native != policy.Quota {
		return nil, fmt.Errorf("make %q: it is not the policy of limits", spec.Native)
	}
	return &limits{spec, h.client}, nil
}

type limits struct {
	spec   policy.Spec
	client *quota.Client
}

func (l *limits) Spec() policy.Spec        { return l.spec }
func (l *limits) Phases() policy.Phases    { return policy.RequestHead | policy.ResponseHead }
func (l *limits) NewFilter() policy.Filter { return &filter{limits: l} }
func (l *limits) Release()                 {}

// filter holds one exchange to its consumer's limits.
type filter struct {
	*limits
	policy.NoBodies
	account *quota.Account // nil: nothing is limited
	line    []byte
}

// Begin implements policy.Filter.
func (f *filter) Begin(*exchange.Exchange) error {
	f.account = nil
	return nil
}

// OnRequest implements policy.Filter.
func (f *filter) OnRequest(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	if x.Consumer == nil || len(x.Consumer.Limits) == 0 {
		return policy.Continue, nil
	}
	f.account = f.client.Account(x.Consumer)
	d := f.account.Acquire(x.Deadline, x.Done)
	switch d.Outcome {
	case quota.Admitted:
		return policy.Continue, nil
	case quota.Exceeded:
		x.Refuse(exchange.Problem{
			Status: 429, Code: "quota_exceeded", Type: exceededType, Title: "Too Many Requests",
			Detail:  "The limit " + d.Limit + " of the subscription has been reached.",
			Members: `,"code":"quota_exceeded","violated-policies":["` + d.Limit + `"]`,
		})
	case quota.Left:
		return policy.Continue, fmt.Errorf("wait for the limit %s: %w", d.Limit, policy.ErrWaited)
	default:
		x.Refuse(exchange.Problem{
			Status: 503, Code: "limit_unavailable",
			Detail: "Whether the request is within the limit " + d.Limit + " cannot be said now.",
		})
	}
	x.Response.Fields.Add([]byte("Retry-After"), strconv.AppendInt(nil, retryAfter(d.After), 10))
	f.add(x)
	return policy.Respond, nil
}

// exceededType is the problem's type that the draft registers.
const exceededType = "https://iana.org/assignments/http-problem-types#quota-exceeded"

// retryAfter is in whole seconds, at least one.
func retryAfter(d time.Duration) int64 {
	return max(int64((d+time.Second-1)/time.Second), 1)
}

// OnResponse implements policy.Filter.
func (f *filter) OnResponse(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	if f.account != nil {
		f.add(x)
	}
	return policy.Continue, nil
}

var fieldPolicy, fieldLimit = []byte("RateLimit-Policy"), []byte("RateLimit")

// add puts the fields into the answer.
func (f *filter) add(x *exchange.Exchange) {
	x.Response.Fields.Del("RateLimit-Policy")
	x.Response.Fields.Del("RateLimit")
	x.Response.Fields.Add(fieldPolicy, x.Copy(f.account.Policy()))
	if f.line = f.account.AppendRemaining(f.line[:0]); len(f.line) > 0 {
		x.Response.Fields.Add(fieldLimit, x.CopyBytes(f.line))
	}
}
