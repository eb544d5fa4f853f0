package proxy

import (
	"slices"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Consumers is told who may call. It is met by consumer's Registry.
type Consumers interface {
	// Apply takes in Apps, Credentials, Plans and Subscriptions as they are now, and
	// that others are gone. When it returns, that is so for every request.
	Apply(puts []*weirv1.Resource, deletes []resource.Ref)
}

// tellConsumers brings into force who may call, before routes are compiled, which may
// take seconds or fail. Where Apis change with it, what goes waits for them, since the
// Apis in force may still ask for it; the caller calls what is returned once others are
// in force or will not be.
func (p *Proxy) tellConsumers() (later func()) {
	d := p.desired
	changed := d.consumers
	d.consumers = map[resource.Ref]struct{}{} // to clear one that held very many costs as if it still did
	if p.cfg.Consumers == nil || len(changed) == 0 {
		return func() {}
	}
	var puts []*weirv1.Resource
	var deletes []resource.Ref
	for ref := range changed {
		if r := d.resources[ref]; r != nil {
			puts = append(puts, r)
		} else {
			deletes = append(deletes, ref)
		}
	}
	if len(deletes) > 0 && d.apisChanged() {
		revoked := slices.DeleteFunc(slices.Clone(deletes), func(ref resource.Ref) bool { return ref.Kind != resource.KindCredential })
		p.cfg.Consumers.Apply(puts, revoked) // a key waits for nothing
		return func() { p.cfg.Consumers.Apply(nil, deletes) }
	}
	p.cfg.Consumers.Apply(puts, deletes)
	return func() {}
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
