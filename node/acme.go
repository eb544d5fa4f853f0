package node

import (
	"context"

	"github.com/weirmesh/weir/acme"
	"github.com/weirmesh/weir/admin"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// runIssuer orders certificates, while this member leads.
func (s *server) runIssuer(p *process) {
	issuer := acme.New(acme.Config{
		Store: certificates{s}, Accounts: s.accounts, Logger: p.log.With("part", "acme"),
		Leads:  func() bool { return s.cluster.Leads() },
		Spread: s.awaitSpread,
	})
	p.run("acme", issuer.Run)
}

var _ acme.Store = certificates{}

// Ordered lists the certificates that are declared with `acme:`.
func (c certificates) Ordered() (ordered []*weirv1.Certificate) {
	for _, certificate := range c.all() {
		if certificate.GetSpec().GetAcme() != nil {
			ordered = append(ordered, certificate)
		}
	}
	return ordered
}

// Get implements acme.Store.
func (c certificates) Get(ref resource.Ref) *weirv1.Certificate {
	r, _ := c.s.store.View().Get(ref)
	return r.GetCertificate()
}

// Put implements acme.Store.
func (c certificates) Put(ctx context.Context, certificate *weirv1.Certificate) error {
	return c.put(ctx, "acme", certificate)
}

// SealKey implements acme.Store.
func (c certificates) SealKey(ref resource.Ref, pkcs8 []byte) []byte {
	return c.s.keyring.Seal(admin.SealPurpose(ref), pkcs8)
}

// OpenHMAC implements acme.Store.
func (c certificates) OpenHMAC(ref resource.Ref, sealed []byte) ([]byte, error) {
	return c.s.keyring.Open(admin.HMACPurpose(ref), sealed)
}

// awaitSpread waits until every proxy that is connected, to whichever member,
// has taken in a revision.
func (s *server) awaitSpread(ctx context.Context, revision uint64) {
	for {
		statuses, changed := s.fleet.Statuses()
		behind := false
		for _, p := range statuses {
			behind = behind || p.GetConnected() && p.GetRevision() < revision
		}
		if !behind {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
