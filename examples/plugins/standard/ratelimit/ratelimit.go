// Package ratelimit is a plugin that lets each caller make so many requests per
// window of time, and tells it how many are left.
//
//	config:
//	  name: orders                 # in the RateLimit headers
//	  limit: 100
//	  window: 60                   # seconds
//	  header: x-consumer           # who calls; without it, the client's address
//
// The count is shared by all sandboxes of a proxy, not between proxies: behind
// three proxies a caller may make up to three times as many. When the count
// cannot be kept, requests pass, and the log says why.
package ratelimit

import (
	"strconv"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// Plugin is the policy.
func Plugin() sdk.Plugin { return sdk.Define(newLimiter) }

type limiter struct {
	config  config
	table   table
	refused sdk.Counter
	// policy is the RateLimit-Policy field, which never changes.
	policy  string
	problem sdk.Problem
}

func newLimiter(c config) (sdk.Handler, error) {
	refused, err := sdk.NewCounter("ratelimit_refused_total")
	if err != nil {
		return nil, err
	}
	policyName, _ := sdk.Property("plugin_name")
	limit, window := strconv.FormatUint(uint64(c.Limit), 10), strconv.Itoa(c.Window)
	return &limiter{
		config:  c,
		table:   newTable("ratelimit/"+policyName+"/"+c.Name, c.Slots),
		refused: refused,
		policy:  `"` + c.Name + `";q=` + limit + `;w=` + window,
		problem: sdk.Problem{
			Status: 429,
			Type:   "https://iana.org/assignments/http-problem-types#quota-exceeded",
			Title:  "Too many requests",
			Detail: "No more than " + limit + " requests are let through in " + window + " s. Try again after the time in Retry-After.",
		},
	}, nil
}

// grant is what an exchange was let through with.
type grant struct {
	left  uint32
	reset int64 // seconds until the next window
}

// field is the RateLimit field of draft-ietf-httpapi-ratelimit-headers.
func (g grant) field(name string) string {
	f := append(make([]byte, 0, 64), '"')
	f = append(append(f, name...), `";r=`...)
	f = strconv.AppendUint(f, uint64(g.left), 10)
	f = append(f, `;t=`...)
	return string(strconv.AppendInt(f, g.reset, 10))
}

func (l *limiter) OnRequest(r *sdk.Request) sdk.Action {
	// Windows are counted from 1970, so that all sandboxes agree on them.
	now, length := sdk.NowNanos(), int64(l.config.Window)*int64(time.Second)
	window := now / length
	left, allowed, err := l.table.take(l.caller(r), window, l.config.Limit)
	if err != nil {
		sdk.Errorf("count a request: %v", err)
		return sdk.Continue
	}
	untilReset := time.Duration((window+1)*length - now)
	g := grant{left, int64((untilReset + time.Second - 1) / time.Second)}
	if !allowed {
		l.refused.Add(1)
		fields := []sdk.Field{
			{Name: "retry-after", Value: strconv.FormatInt(g.reset, 10)},
			{Name: "ratelimit-policy", Value: l.policy},
			{Name: "ratelimit", Value: g.field(l.config.Name)},
		}
		return r.Refuse(l.problem, append(fields, l.legacy(g)...)...)
	}
	r.State = &g
	return sdk.Continue
}

func (l *limiter) OnResponse(r *sdk.Response) sdk.Action {
	if g, ok := r.State.(*grant); ok {
		// Both are lists: other limits add theirs.
		r.Header.Add("ratelimit-policy", l.policy)
		r.Header.Add("ratelimit", g.field(l.config.Name))
		for _, f := range l.legacy(*g) {
			r.Header.Set(f.Name, f.Value)
		}
	}
	return sdk.Continue
}

// legacy are the fields that were usual before there was a draft of a standard.
func (l *limiter) legacy(g grant) []sdk.Field {
	if !l.config.Legacy {
		return nil
	}
	return []sdk.Field{
		{Name: "x-ratelimit-limit", Value: strconv.FormatUint(uint64(l.config.Limit), 10)},
		{Name: "x-ratelimit-remaining", Value: strconv.FormatUint(uint64(g.left), 10)},
		{Name: "x-ratelimit-reset", Value: strconv.FormatInt(g.reset, 10)},
	}
}
