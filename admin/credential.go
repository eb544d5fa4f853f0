package admin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/consumer/apikey"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// CreateCredential makes a key here, where its randomness does not depend on the
// caller's, and stores what is kept of it as any Apply would.
func (s *service) CreateCredential(ctx context.Context, req *weirv1.CreateCredentialRequest) (*weirv1.CreateCredentialResponse, error) {
	key := apikey.New()
	sum := apikey.Sum(key)
	credential := &weirv1.Credential{
		Metadata: &weirv1.Metadata{Tenant: req.GetTenant(), Name: req.GetName()},
		Spec:     &weirv1.CredentialSpec{App: req.GetApp(), Sha256: hex.EncodeToString(sum[:]), Prefix: apikey.Prefix(key), ExpireTime: req.GetExpireTime()},
	}
	wrapped := resource.Wrap(credential)
	resource.Normalize(wrapped)
	if err := s.sync(ctx); err != nil {
		return nil, err
	}
	if req.GetName() == "" {
		credential.Metadata.Name = s.freeName(resource.Of(wrapped).Tenant, req.GetApp())
	}
	if err := s.checkCredential(wrapped); err != nil {
		return nil, err
	}
	done, err := s.create(ctx, wrapped)
	var refused *Refused
	if errors.As(err, &refused) {
		s.Logger.Info("change refused", "actor", Actor(ctx), "reason", refused.Error())
		if codeOf(refused) == connect.CodeAlreadyExists { // somebody was faster
			return nil, taken(resource.Of(wrapped))
		}
		return nil, refusal(refused, func(resource.Ref) resource.Path { return "credential" })
	}
	if err != nil {
		return nil, fmt.Errorf("create credential: %w", err)
	}
	s.audit(ctx, done)
	for _, result := range done.GetResults() {
		credential = result.GetResource().GetCredential()
	}
	return &weirv1.CreateCredentialResponse{Key: key, Credential: credential, Revision: done.GetRevision()}, nil
}

// create proposes a resource that must be new. While members of earlier versions do not
// know of that, what was looked up before has to do, and of two who make one of the same
// name at once the last one wins.
func (s *service) create(ctx context.Context, r *weirv1.Resource) (*weirv1.ApplyResponse, error) {
	tx := &weirv1.Transact{Puts: []*weirv1.Resource{r}}
	done, err := s.propose(ctx, &weirv1.Command{Action: &weirv1.Command_Create{Create: tx}})
	if errors.Is(err, ErrTooNew) {
		return s.propose(ctx, &weirv1.Command{Action: &weirv1.Command_Transact{Transact: tx}})
	}
	return done, err
}

func taken(ref resource.Ref) *connect.Error {
	return connect.Errorf(connect.CodeAlreadyExists, "there is a Credential %s already; give another name, or none", ref.Name)
}

// checkCredential refuses what cannot be made, in the words of the request.
func (s *service) checkCredential(wrapped *weirv1.Resource) error {
	ref, spec := resource.Of(wrapped), wrapped.GetCredential().GetSpec()
	if spec.GetApp() == "" {
		return invalid("app", "is required: which App is the key for?")
	}
	view := s.Store.View()
	if _, there := view.Get(resource.Ref{Kind: resource.KindApp, Tenant: ref.Tenant, Name: spec.GetApp()}); !there {
		return invalid("app", "there is no App %s in tenant %s; apply one first", spec.GetApp(), ref.Tenant)
	}
	for _, v := range resource.Validate(wrapped) {
		return invalid(credentialField(v.Field), "%s", v.Message)
	}
	if t := spec.GetExpireTime(); t != nil && !t.AsTime().After(time.Now()) {
		return invalid("expire_time", "must be to come, not %s", t.AsTime().Format(time.RFC3339))
	}
	if _, there := view.Get(ref); there {
		return taken(ref)
	}
	return nil
}

// credentialField is the request's name for a field of the Credential.
func credentialField(field string) string {
	switch field {
	case "metadata.name":
		return "name"
	case "metadata.tenant":
		return "tenant"
	case "spec.app":
		return "app"
	case "spec.expireTime":
		return "expire_time"
	}
	return field
}

const (
	nameEnd    = 6 // letters after the App's name
	longestApp = 63 - 1 - nameEnd
)

// freeName is what a Credential of an App is called that is given no name.
func (s *service) freeName(tenant, app string) string {
	stem := strings.TrimRight(app[:min(len(app), longestApp)], "-")
	for {
		name := stem + "-" + strings.ToLower(rand.Text()[:nameEnd])
		if _, there := s.Store.View().Get(resource.Ref{Kind: resource.KindCredential, Tenant: tenant, Name: name}); !there {
			return name
		}
	}
}
