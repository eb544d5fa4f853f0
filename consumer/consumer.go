// Package consumer is what a proxy knows of who calls: whose a key is, and what lets
// its App call an Api.
//
//	Apps, Credentials, Plans, Subscriptions ─▶ Registry.Apply
//	key ─SHA-256─▶ Credential ─▶ App ─▶ its Subscriptions, by name ─▶ Plan ─▶ Api?
//
// Keys themselves are nowhere, only their sums.
//
// # Promises
//
//   - [Tenant.Find] takes no lock and allocates nothing, however many keys there are,
//     but for the first call after something has changed for that key.
//   - A change costs what it touches: one key among a hundred thousand some
//     microseconds, a Plan the same however many have it.
//   - What one Apply says of a tenant is seen as a whole or not at all, and from the
//     moment on at which Apply returns.
//   - What is not known lets nobody call: a key whose App is missing, a Subscription
//     whose Plan is.
//   - Which Subscription counts where several let an App call an Api: the active one
//     whose name comes first. It is so on every proxy.
package consumer

import (
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/consumer/apikey"
	"github.com/weirmesh/weir/proxy/exchange"
)

// Verdict is what is said of a key that calls an Api.
type Verdict uint8

// The verdicts.
const (
	// Unknown: no App has the key.
	Unknown Verdict = iota
	// Expired: an App had it.
	Expired
	// NoSubscription: its App has no active Subscription to a Plan with the Api.
	NoSubscription
	// Accepted: it may call.
	Accepted
)

// String is a word for each.
func (v Verdict) String() string {
	return [...]string{"unknown", "expired", "no_subscription", "accepted"}[v]
}

// Tenant is whose keys, Apps, Plans and Subscriptions belong together.
type Tenant struct {
	name  string
	seed  maphash.Seed
	state atomic.Pointer[state]
	declared
}

// state is what is known at a time. It never changes.
type state struct {
	// keys are by their sums. Several Credentials may be of one key: the first that has
	// not expired counts.
	keys  trie[sum, []*credential]
	apps  trie[string, *app]
	plans trie[string, *plan]
}

type sum [32]byte

// name is one of an App or a Plan, and its hash.
type name struct {
	text string
	hash uint64
}

type credential struct {
	name    string
	sum     sum
	app     name
	expires time.Time // zero: never
	// ready are the consumers that this key was last found to be, one for each
	// Subscription.
	ready atomic.Pointer[[]*consumer]
}

// app is immutable, as are what it is subscribed by.
type app struct {
	organization  string
	subscriptions []*subscription // the active ones, by name
}

type subscription struct {
	name   string
	plan   name
	active bool
	app    string
}

type plan struct {
	apis   map[string]struct{}
	limits []exchange.Limit
}

// consumer is ready while what it was made of is still so.
type consumer struct {
	exchange.Consumer
	by   *subscription
	plan *plan
}

// Find says who has a key, and whether and by what it may call an Api. The consumer
// is nil unless it is accepted; it is shared, and never changes.
func (t *Tenant) Find(api string, key []byte, now time.Time) (*exchange.Consumer, Verdict) {
	s := t.state.Load()
	if s == nil || len(key) > apikey.MaxBytes {
		return nil, Unknown
	}
	digest := sum(apikey.Sum(key))
	found, _ := s.keys.get(maphash.Bytes(t.seed, digest[:]), digest)
	verdict := Unknown
	for _, c := range found {
		if !c.expires.IsZero() && !now.Before(c.expires) {
			verdict = Expired
			continue
		}
		a, there := s.apps.get(c.app.hash, c.app.text)
		if !there {
			continue
		}
		by, p := s.grant(a, api)
		if by == nil {
			return nil, NoSubscription
		}
		return c.as(t.name, a, by, p), Accepted
	}
	return nil, verdict
}

// Allows tells whether an App may call an Api.
func (t *Tenant) Allows(appName, api string) bool {
	s := t.state.Load()
	if s == nil {
		return false
	}
	a, there := s.apps.get(maphash.String(t.seed, appName), appName)
	if !there {
		return false
	}
	by, _ := s.grant(a, api)
	return by != nil
}

// grant is by what an App may call an Api; nil: nothing.
func (s *state) grant(a *app, api string) (*subscription, *plan) {
	for _, by := range a.subscriptions {
		p, there := s.plans.get(by.plan.hash, by.plan.text)
		if !there {
			continue
		}
		if _, has := p.apis[api]; has {
			return by, p
		}
	}
	return nil, nil
}

// as is the credential's consumer by a subscription: what is ready, or made now.
func (c *credential) as(tenant string, a *app, by *subscription, p *plan) *exchange.Consumer {
	ready := c.ready.Load()
	if ready != nil {
		for _, r := range *ready {
			if r.by == by && r.plan == p && r.Organization == a.organization {
				return &r.Consumer
			}
		}
	}
	made := &consumer{by: by, plan: p, Consumer: exchange.Consumer{
		Tenant: tenant, Organization: a.organization, App: c.app.text, Credential: c.name,
		Subscription: by.name, Plan: by.plan.text, Limits: p.limits,
	}}
	next := []*consumer{made}
	if ready != nil {
		for _, r := range *ready {
			if r.by != by && r.Organization == a.organization && a.has(r.by) {
				next = append(next, r)
			}
		}
	}
	c.ready.CompareAndSwap(ready, &next) // else another request has made one
	return &made.Consumer
}

func (a *app) has(by *subscription) bool {
	for _, s := range a.subscriptions {
		if s == by {
			return true
		}
	}
	return false
}
