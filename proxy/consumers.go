package proxy

import (
	"slices"
	"sync"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Consumers is told who may call. It is met by consumer's Registry.
type Consumers interface {
	// Apply takes in Apps, Credentials, Plans and Subscriptions as they are now, and
	// that others are gone. When it returns, that is so for every request.
	Apply(puts []*weirv1.Resource, deletes []resource.Ref)
	// Restrict takes in of such a change what takes from somebody, and nothing else: keys
	// that are gone or end sooner, Subscriptions that are gone or suspended. It returns
	// what it concerns, whether it was known or not. With whole, what is not among puts is
	// gone.
	Restrict(whole bool, puts []*weirv1.Resource, deletes []resource.Ref) []resource.Ref
}

// ahead is what consumers were told before the update that it is of.
type ahead struct {
	mu sync.Mutex
	// by says of which revision that is, all from which one on nothing is missing from it.
	by  map[resource.Ref]uint64
	all uint64
}

// Revoke takes from consumers at once what an update that is still to come takes from
// them. It waits for no Update: one may be compiling a plugin for seconds, and a key
// that was revoked is refused meanwhile. Whom an earlier update admits that was under
// way is not let in by it.
func (p *Proxy) Revoke(u Update) {
	if p.cfg.Consumers == nil {
		return
	}
	p.ahead.mu.Lock()
	defer p.ahead.mu.Unlock()
	for _, ref := range p.cfg.Consumers.Restrict(u.Snapshot, u.Puts, u.Deletes) {
		p.ahead.by[ref] = max(p.ahead.by[ref], u.Revision)
	}
	if u.Snapshot {
		p.ahead.all = max(p.ahead.all, u.Revision)
	}
}

// tellConsumers brings into force who may call, before routes are compiled, which may
// take seconds or fail. Where Apis change with it, what goes waits for them, since the
// Apis in force may still ask for it; the caller calls what is returned once others are
// in force or will not be.
func (p *Proxy) tellConsumers(revision uint64) (later func()) {
	if p.cfg.Consumers == nil {
		clear(p.desired.consumers)
		return func() {}
	}
	p.ahead.mu.Lock()
	defer p.ahead.mu.Unlock()
	puts, deletes := p.consumerChanges(revision)
	if len(puts)+len(deletes) == 0 {
		return func() {}
	}
	if len(deletes) > 0 && p.desired.apisChanged() {
		revoked := slices.DeleteFunc(slices.Clone(deletes), func(ref resource.Ref) bool { return ref.Kind != resource.KindCredential })
		p.cfg.Consumers.Apply(puts, revoked) // a key waits for nothing
		return func() { p.cfg.Consumers.Apply(nil, deletes) }
	}
	p.cfg.Consumers.Apply(puts, deletes)
	return func() {}
}

// consumerChanges is what consumers are to be told up to a revision. What they know from
// a later one is left until that has come. The lock of ahead is held.
func (p *Proxy) consumerChanges(revision uint64) (puts []*weirv1.Resource, deletes []resource.Ref) {
	d := p.desired
	if revision < p.ahead.all {
		return nil, nil
	}
	p.ahead.all = 0
	for ref, from := range p.ahead.by {
		if from <= revision { // it may be there again, as it was before
			d.consumers[ref] = struct{}{}
			delete(p.ahead.by, ref)
		}
	}
	changed := d.consumers
	d.consumers = map[resource.Ref]struct{}{} // to clear one that held very many costs as if it still did
	for ref := range changed {
		r := d.resources[ref]
		switch _, later := p.ahead.by[ref]; {
		case later:
			d.consumers[ref] = struct{}{}
		case r != nil:
			puts = append(puts, r)
		default:
			deletes = append(deletes, ref)
		}
	}
	return puts, deletes
}

// apisChanged: Apis came, went or are others.
func (d *desired) apisChanged() bool {
	for ref := range d.changed {
		if ref.Kind == resource.KindApi {
			return true
		}
	}
	return false
}
