package consumer

import (
	"encoding/hex"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/resource"
)

// Registry is the tenants. Make it with [NewRegistry]; it is safe for concurrent use.
type Registry struct {
	seed    maphash.Seed
	mu      sync.Mutex
	tenants map[string]*Tenant
}

// NewRegistry returns one that knows nobody.
func NewRegistry() *Registry {
	return &Registry{seed: maphash.MakeSeed(), tenants: map[string]*Tenant{}}
}

// Tenant is one of them. It is the same for the same name, whether anything is known
// of it yet or not.
func (r *Registry) Tenant(name string) *Tenant {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tenant(name)
}

func (r *Registry) tenant(name string) *Tenant {
	t := r.tenants[name]
	if t == nil {
		t = &Tenant{name: name, seed: r.seed, declared: newDeclared()}
		r.tenants[name] = t
	}
	return t
}

// Apply takes in Apps, Credentials, Plans and Subscriptions as they are now, and that
// others are gone. Other kinds are not its concern.
func (r *Registry) Apply(puts []*weirv1.Resource, deletes []resource.Ref) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.apply(puts, deletes)
}

// apply is Apply, with the lock held.
func (r *Registry) apply(puts []*weirv1.Resource, deletes []resource.Ref) {
	edits := map[*Tenant]*edit{}
	of := func(tenant string) *edit {
		t := r.tenant(tenant)
		if edits[t] == nil {
			edits[t] = t.edit()
		}
		return edits[t]
	}
	for _, ref := range deletes {
		if resource.IsConsumer(ref.Kind) {
			of(ref.Tenant).delete(ref)
		}
	}
	for _, put := range puts {
		if ref := resource.Of(put); resource.IsConsumer(ref.Kind) {
			of(ref.Tenant).put(ref.Name, put)
		}
	}
	for _, e := range edits {
		e.finish()
	}
}

// declared is what edits look up, by name. The Registry's lock guards it.
type declared struct {
	organizations map[string]string // of Apps
	credentials   map[string]*credential
	subscriptions map[string]*subscription
	ofApp         map[string]map[string]*subscription // the same, by App
}

func newDeclared() declared {
	return declared{map[string]string{}, map[string]*credential{}, map[string]*subscription{}, map[string]map[string]*subscription{}}
}

// edit is what becomes of a tenant's state.
type edit struct {
	*Tenant
	next  state
	owner *owner
	apps  map[string]struct{} // that look different
}

func (t *Tenant) edit() *edit {
	e := &edit{Tenant: t, owner: new(owner), apps: map[string]struct{}{}}
	if now := t.state.Load(); now != nil {
		e.next = *now
	}
	return e
}

func (e *edit) named(text string) name { return name{text, maphash.String(e.seed, text)} }

func (e *edit) put(of string, r *weirv1.Resource) {
	switch {
	case r.GetApp() != nil:
		e.organizations[of] = r.GetApp().GetSpec().GetOrganization()
		e.apps[of] = struct{}{}
	case r.GetPlan() != nil:
		at := e.named(of)
		e.next.plans = e.next.plans.with(e.owner, at.hash, at.text, newPlan(r.GetPlan().GetSpec()))
	case r.GetSubscription() != nil:
		e.forget(of)
		spec := r.GetSubscription().GetSpec()
		e.subscribe(&subscription{name: of, app: spec.GetApp(), plan: e.named(spec.GetPlan()),
			active: isActive(spec)})
	case r.GetCredential() != nil:
		e.revoke(of)
		e.admit(of, r.GetCredential().GetSpec())
	}
}

func (e *edit) delete(ref resource.Ref) {
	switch ref.Kind {
	case resource.KindApp:
		delete(e.organizations, ref.Name)
		e.apps[ref.Name] = struct{}{}
	case resource.KindPlan:
		at := e.named(ref.Name)
		e.next.plans = e.next.plans.without(e.owner, at.hash, at.text)
	case resource.KindSubscription:
		e.forget(ref.Name)
	case resource.KindCredential:
		e.revoke(ref.Name)
	}
}

func isActive(spec *weirv1.SubscriptionSpec) bool {
	return spec.GetState() == weirv1.SubscriptionSpec_STATE_UNSPECIFIED || spec.GetState() == weirv1.SubscriptionSpec_ACTIVE
}

func newPlan(spec *weirv1.PlanSpec) *plan {
	p := &plan{apis: make(map[string]struct{}, len(spec.GetApis()))}
	for _, api := range spec.GetApis() {
		p.apis[api] = struct{}{}
	}
	for _, l := range spec.GetLimits() {
		p.limits = append(p.limits, exchange.Limit{Name: l.GetName(), Requests: l.GetRequests(), Window: l.GetWindow().AsDuration(), Exact: l.GetExact()})
	}
	return p
}

func (e *edit) subscribe(s *subscription) {
	e.subscriptions[s.name] = s
	if e.ofApp[s.app] == nil {
		e.ofApp[s.app] = map[string]*subscription{}
	}
	e.ofApp[s.app][s.name] = s
	e.apps[s.app] = struct{}{}
}

// forget gives up a subscription, if there is one.
func (e *edit) forget(of string) {
	s := e.subscriptions[of]
	if s == nil {
		return
	}
	delete(e.subscriptions, of)
	delete(e.ofApp[s.app], of)
	if len(e.ofApp[s.app]) == 0 {
		delete(e.ofApp, s.app)
	}
	e.apps[s.app] = struct{}{}
}

// admit lets a key in. One whose sum cannot be read lets in nobody.
func (e *edit) admit(of string, spec *weirv1.CredentialSpec) {
	c := &credential{name: of, app: e.named(spec.GetApp())}
	digest, err := hex.DecodeString(spec.GetSha256())
	if err != nil || len(digest) != len(c.sum) {
		return
	}
	c.sum = sum(digest)
	if t := spec.GetExpireTime(); t != nil {
		c.expires = expiry(t.AsTime())
	}
	e.credentials[of] = c
	hash := maphash.Bytes(e.seed, c.sum[:])
	same, _ := e.next.keys.get(hash, c.sum)
	at, _ := slices.BinarySearchFunc(same, of, func(c *credential, of string) int { return strings.Compare(c.name, of) })
	e.next.keys = e.next.keys.with(e.owner, hash, c.sum, slices.Insert(slices.Clone(same), at, c))
}

// expiry is a time that is not zero, which means never.
func expiry(t time.Time) time.Time {
	if t.IsZero() {
		return t.Add(1)
	}
	return t
}

// revoke gives up a key, if there is one.
func (e *edit) revoke(of string) {
	c := e.credentials[of]
	if c == nil {
		return
	}
	delete(e.credentials, of)
	hash := maphash.Bytes(e.seed, c.sum[:])
	same, _ := e.next.keys.get(hash, c.sum)
	if len(same) == 1 {
		e.next.keys = e.next.keys.without(e.owner, hash, c.sum)
		return
	}
	at := slices.Index(same, c)
	e.next.keys = e.next.keys.with(e.owner, hash, c.sum, slices.Delete(slices.Clone(same), at, at+1))
}

// finish makes the Apps that look different and puts the state into force.
func (e *edit) finish() {
	for of := range e.apps {
		at := e.named(of)
		organization, there := e.organizations[of]
		if !there {
			e.next.apps = e.next.apps.without(e.owner, at.hash, at.text)
			continue
		}
		a := &app{organization: organization}
		for _, s := range e.ofApp[of] {
			if s.active {
				a.subscriptions = append(a.subscriptions, s)
			}
		}
		slices.SortFunc(a.subscriptions, func(a, b *subscription) int { return strings.Compare(a.name, b.name) })
		e.next.apps = e.next.apps.with(e.owner, at.hash, at.text, a)
	}
	e.state.Store(&e.next)
}
