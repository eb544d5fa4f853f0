package consumer

import (
	"encoding/hex"
	"slices"
	"strings"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Restrict takes in of a change what takes from somebody, and nothing else: keys that
// are gone, others or end sooner, Subscriptions that are gone or suspended. It returns
// which resources that concerns, whether they were known or not: Apply is to be told of
// them when the rest of the change is. With whole, keys that are not among puts are gone.
//
// A Subscription that goes together with Apis waits for Apply, as the Apis in force may
// still ask for it.
func (r *Registry) Restrict(whole bool, puts []*weirv1.Resource, deletes []resource.Ref) (concerned []resource.Ref) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var fewer restriction
	apis := touchesApis(puts, deletes)
	for _, ref := range deletes {
		if ref.Kind == resource.KindCredential || ref.Kind == resource.KindSubscription && !apis {
			fewer.deletes = append(fewer.deletes, ref)
		}
	}
	for _, put := range puts {
		r.restrict(&fewer, put)
	}
	if whole {
		fewer.deletes = append(fewer.deletes, r.missing(puts)...)
	}
	if len(fewer.puts)+len(fewer.deletes) == 0 {
		return nil
	}
	r.apply(fewer.puts, fewer.deletes)
	concerned = fewer.deletes
	for _, put := range fewer.puts {
		concerned = append(concerned, resource.Of(put))
	}
	return concerned
}

type restriction struct {
	puts    []*weirv1.Resource
	deletes []resource.Ref
}

// restrict adds what a resource takes from who is known.
func (r *Registry) restrict(to *restriction, put *weirv1.Resource) {
	ref := resource.Of(put)
	switch {
	case put.GetSubscription() != nil:
		if !isActive(put.GetSubscription().GetSpec()) {
			to.puts = append(to.puts, put)
		}
	case put.GetCredential() != nil && r.tenants[ref.Tenant] != nil:
		known := r.tenants[ref.Tenant].credentials[ref.Name]
		switch spec := put.GetCredential().GetSpec(); {
		case known == nil:
		case !known.is(spec):
			to.deletes = append(to.deletes, ref) // the other key comes with the rest
		case spec.GetExpireTime() != nil && endsSooner(spec.GetExpireTime().AsTime(), known.expires):
			to.puts = append(to.puts, put)
		}
	}
}

// is tells whether a credential is of the same key, and of the same App.
func (c *credential) is(spec *weirv1.CredentialSpec) bool {
	return strings.EqualFold(hex.EncodeToString(c.sum[:]), spec.GetSha256()) && c.app.text == spec.GetApp()
}

func endsSooner(end, than time.Time) bool { return than.IsZero() || end.Before(than) }

// missing are the keys that are known and not among puts.
func (r *Registry) missing(puts []*weirv1.Resource) (refs []resource.Ref) {
	there := map[resource.Ref]struct{}{}
	for _, put := range puts {
		if put.GetCredential() != nil {
			there[resource.Of(put)] = struct{}{}
		}
	}
	for tenant, t := range r.tenants {
		for name := range t.credentials {
			ref := resource.Ref{Kind: resource.KindCredential, Tenant: tenant, Name: name}
			if _, ok := there[ref]; !ok {
				refs = append(refs, ref)
			}
		}
	}
	return refs
}

func touchesApis(puts []*weirv1.Resource, deletes []resource.Ref) bool {
	return slices.ContainsFunc(deletes, func(ref resource.Ref) bool { return ref.Kind == resource.KindApi }) ||
		slices.ContainsFunc(puts, func(r *weirv1.Resource) bool { return r.GetApi() != nil })
}
