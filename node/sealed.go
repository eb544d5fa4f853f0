package node

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/acme"
	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/store"
)

// certificates are the private keys of what is declared, all sealed by the
// cluster's key.
type certificates struct{ s *server }

var _ identity.Sealed = certificates{}

// SealedBy counts them by the key that has sealed them.
func (c certificates) SealedBy(context.Context) (map[string]int, error) {
	count := map[string]int{}
	for _, certificate := range c.all() {
		for _, sealed := range sealedIn(certificate) {
			id, err := identity.SealedBy(*sealed.data)
			if err != nil {
				return nil, fmt.Errorf("look at certificate %s: %w", certificate.GetMetadata().GetName(), err)
			}
			count[id]++
		}
	}
	return count, nil
}

// sealed is a secret of a certificate, and what it is sealed for.
type sealed struct {
	data    *[]byte
	purpose string
}

func sealedIn(c *weirv1.Certificate) (all []sealed) {
	ref := resource.Of(resource.Wrap(c))
	if m := c.GetMaterial(); len(m.GetSealedKey()) > 0 {
		all = append(all, sealed{&m.SealedKey, admin.SealPurpose(ref)})
	}
	if m := c.GetMaterial(); len(m.GetSealedHmacKey()) > 0 {
		all = append(all, sealed{&m.SealedHmacKey, admin.HMACPurpose(ref)})
	}
	return all
}

// Reseal seals those anew that another key than the keyring's first has sealed.
// Who changes one meanwhile has sealed it with the first key himself.
func (c certificates) Reseal(ctx context.Context, k *identity.Keyring) error {
	for _, certificate := range c.all() {
		whole := proto.CloneOf(certificate)
		name, changed := whole.GetMetadata().GetName(), false
		for _, sealed := range sealedIn(whole) {
			if id, err := identity.SealedBy(*sealed.data); err != nil || id == k.ID() {
				continue
			}
			secret, err := k.Open(sealed.purpose, *sealed.data)
			if err != nil {
				return fmt.Errorf("open the key of certificate %s: %w", name, err)
			}
			*sealed.data, changed = k.Seal(sealed.purpose, secret), true
		}
		if !changed {
			continue
		}
		if err := c.put(ctx, "", whole); err != nil && !errors.Is(err, acme.ErrConflict) {
			return fmt.Errorf("seal the key of certificate %s anew: %w", name, err)
		}
	}
	return nil
}

// put replaces a certificate, unless it has changed since the revision that it
// bears.
func (c certificates) put(ctx context.Context, actor string, certificate *weirv1.Certificate) error {
	result, err := c.s.cluster.Propose(ctx, &weirv1.Command{Actor: actor,
		Action: &weirv1.Command_Transact{Transact: &weirv1.Transact{Puts: []*weirv1.Resource{resource.Wrap(certificate)}}}})
	if err != nil {
		return err
	}
	refused, ok := result.(*store.RefusedError)
	switch {
	case ok && conflict(refused):
		return fmt.Errorf("%w: %w", acme.ErrConflict, refused)
	case ok:
		return refused
	}
	return nil
}

func conflict(refused *store.RefusedError) bool {
	for _, v := range refused.Violations {
		if v.Reason != store.Conflict {
			return false
		}
	}
	return true
}

// all are the certificates that this member's state holds and that have a key.
func (c certificates) all() (all []*weirv1.Certificate) {
	list, more, after := []*weirv1.Resource(nil), true, resource.Ref{}
	for more {
		list, more = c.s.store.View().List(resource.KindCertificate, "*", after, 1000)
		for _, r := range list {
			after = resource.Of(r)
			if len(r.GetCertificate().GetMaterial().GetSealedKey()) > 0 {
				all = append(all, r.GetCertificate())
			}
		}
		more = more && len(list) > 0
	}
	return all
}
