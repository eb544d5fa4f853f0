package store

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/quota/ledger"
	"github.com/weirmesh/weir/resource"
)

// What is granted of limits lies beside what is declared, and is no declaration: it has
// no revision, and nobody who watches is told.
//
// A grant is remembered by no id: one that is decided twice changes nothing the second
// time, by its proxy's sequence.

// keyClock is where the ledger's time is. No limit has such a key.
var keyClock = []byte("clock")

// maxAsks bounds what one command decides.
const maxAsks = 4096

// LimitRef names a limit of a subscription.
type LimitRef struct{ Tenant, Subscription, Limit string }

func (r LimitRef) key() []byte {
	return []byte(r.Tenant + separator + r.Subscription + separator + r.Limit)
}

// grantLeases decides what a proxy asks for.
func (d *draft) grantLeases(c *weirv1.GrantLeases, wall time.Time) (*weirv1.LeaseTokensResponse, *RefusedError) {
	m := c.GetRequest()
	if c.GetSource() == "" || c.GetNode() == "" || len(c.GetSource()) > longestPart || len(c.GetNode()) > longestPart {
		return nil, refuse(resource.Ref{Kind: "Lease", Name: c.GetNode()}, Invalid, "a grant names who proposes it and the proxy that it is for")
	}
	if len(m.GetAsks()) > maxAsks {
		return nil, refuse(resource.Ref{Kind: "Lease", Name: c.GetNode()}, Invalid, "it has %d asks; the most is %d", len(m.GetAsks()), maxAsks)
	}
	d.clock = ledger.Tick(d.clock, c.GetSource(), wall, c.GetElapsed().AsDuration())
	d.put(bucketLeases, keyClock, encoded(d.clock))
	answer := &weirv1.LeaseTokensResponse{Grants: make([]*weirv1.LeaseGrant, 0, len(m.GetAsks()))}
	for _, ask := range m.GetAsks() {
		answer.Grants = append(answer.Grants, d.grantLease(ledger.Ask{Node: c.GetNode(), Epoch: m.GetEpoch(), Sequence: m.GetSequence(), LeaseAsk: ask}))
	}
	return answer, nil
}

// leaseResult is grantLeases, as a result.
func (d *draft) leaseResult(c *weirv1.GrantLeases, wall time.Time) any {
	answer, refused := d.grantLeases(c, wall)
	if refused != nil {
		return refused
	}
	return answer
}

func (d *draft) grantLease(ask ledger.Ask) *weirv1.LeaseGrant {
	ref := LimitRef{ask.GetTenant(), ask.GetSubscription(), ask.GetLimit()}
	limit, active := limitOf(d.resources.Get, ref)
	if !active {
		return &weirv1.LeaseGrant{Unknown: true}
	}
	key := ref.key()
	record, _ := d.leases.Get(key)
	next, grant := ledger.Grant(record, limit, ledger.Now(d.clock), ask)
	d.leases.Insert(key, next)
	d.put(bucketLeases, key, encoded(next))
	return grant
}

// limitOf is a limit of a subscription that is active.
func limitOf(get func([]byte) (*weirv1.Resource, bool), ref LimitRef) (l ledger.Limit, active bool) {
	if !validPart(ref.Tenant) || !validPart(ref.Subscription) {
		return l, false
	}
	r, _ := get(resourceKey(resource.Ref{Kind: resource.KindSubscription, Tenant: ref.Tenant, Name: ref.Subscription}))
	s := r.GetSubscription().GetSpec()
	if s == nil || s.GetState() > weirv1.SubscriptionSpec_ACTIVE {
		return l, false
	}
	r, _ = get(resourceKey(resource.Ref{Kind: resource.KindPlan, Tenant: ref.Tenant, Name: s.GetPlan()}))
	for _, declared := range r.GetPlan().GetSpec().GetLimits() {
		if declared.GetName() == ref.Limit {
			return ledger.Limit{Requests: declared.GetRequests(), Window: declared.GetWindow().AsDuration()}, true
		}
	}
	return l, false
}

// dropLeases forgets what was granted of limits that a change took away.
func (p *plan) dropLeases() {
	for _, c := range p.changes {
		switch {
		case !c.changed() || c.old == nil:
		case c.ref.Kind == resource.KindSubscription:
			p.pruneLeases(c.ref.Tenant, c.ref.Name)
		case c.ref.Kind == resource.KindPlan && lostLimits(c.old.GetPlan(), c.now.GetPlan()):
			for _, from := range scan(p.referrers.Root(), referrersPrefix(c.ref), nil) {
				if from.Kind == resource.KindSubscription {
					p.pruneLeases(from.Tenant, from.Name)
				}
			}
		}
	}
}

func lostLimits(old, now *weirv1.Plan) bool {
	return slices.ContainsFunc(old.GetSpec().GetLimits(), func(l *weirv1.PlanLimit) bool {
		return !slices.ContainsFunc(now.GetSpec().GetLimits(), func(n *weirv1.PlanLimit) bool { return n.GetName() == l.GetName() })
	})
}

// pruneLeases keeps of a subscription's records those of limits that it has. One that
// is suspended keeps what it had: made active again, it has no second window.
func (d *draft) pruneLeases(tenant, subscription string) {
	var gone [][]byte
	prefix := LimitRef{tenant, subscription, ""}.key()
	limits := limitsOf(d.resources.Get, tenant, subscription)
	for key := range scan(d.leases.Root(), prefix, nil) {
		if name := string(key[len(prefix):]); !slices.ContainsFunc(limits, func(l *weirv1.PlanLimit) bool { return l.GetName() == name }) {
			gone = append(gone, bytes.Clone(key))
		}
	}
	for _, key := range gone {
		d.leases.Delete(key)
		d.drop(bucketLeases, key)
	}
}

func limitsOf(get func([]byte) (*weirv1.Resource, bool), tenant, subscription string) []*weirv1.PlanLimit {
	r, _ := get(resourceKey(resource.Ref{Kind: resource.KindSubscription, Tenant: tenant, Name: subscription}))
	if r == nil {
		return nil
	}
	r, _ = get(resourceKey(resource.Ref{Kind: resource.KindPlan, Tenant: tenant, Name: r.GetSubscription().GetSpec().GetPlan()}))
	return r.GetPlan().GetSpec().GetLimits()
}

func encoded(m proto.Message) []byte {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic("store: " + err.Error()) // names that are no UTF-8 cannot come out of a command
	}
	return data
}

// loadLease reads what was written.
func (d *draft) loadLease(key, value []byte) error {
	if bytes.Equal(key, keyClock) {
		d.clock = new(weirv1.LeaseClock)
		if err := reading.Unmarshal(value, d.clock); err != nil {
			return fmt.Errorf("read the clock of leases: %w", err)
		}
		return nil
	}
	record := new(weirv1.LeaseRecord)
	if err := reading.Unmarshal(value, record); err != nil {
		return fmt.Errorf("read the leases of %q: %w", key, err)
	}
	if bytes.Count(key, []byte(separator)) != 2 {
		return fmt.Errorf("read the leases of %q: it names no limit", key)
	}
	d.leases.Insert(bytes.Clone(key), record)
	return nil
}

// LeaseTime is the ledger's time, in nanoseconds since the epoch.
func (v *View) LeaseTime() int64 { return ledger.Now(v.clock) }

// Leases is what is granted of a limit, nil where nothing ever was.
func (v *View) Leases(ref LimitRef) *weirv1.LeaseRecord {
	r, _ := v.leases.Get(ref.key())
	return r
}

// AllLeases yields all that is granted, by tenant, subscription and limit.
func (v *View) AllLeases() iter.Seq2[LimitRef, *weirv1.LeaseRecord] {
	return func(yield func(LimitRef, *weirv1.LeaseRecord) bool) {
		for key, r := range scan(v.leases.Root(), nil, nil) {
			parts := bytes.SplitN(key, []byte(separator), 3)
			if !yield(LimitRef{string(parts[0]), string(parts[1]), string(parts[2])}, r) {
				return
			}
		}
	}
}
