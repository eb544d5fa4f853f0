package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeapi"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/store"
)

// adminHandler introduces the admin API to all that it asks for. Each
// introduction below is one type; what they translate is words, not meaning.
func (s *server) adminHandler(cfg Config, sc ServerConfig, host *host) (http.Handler, error) {
	return admin.New(admin.Config{
		Store: declared{s.store}, Cluster: log{s.cluster, s.identity},
		Servers: servers{s, cfg.Version}, Metrics: servers{s, cfg.Version}.metrics(),
		Proxies: s.fleet, Keys: clusterKeys{s}, Limits: limits{s.store}, Admission: host, JoinTokens: joinTokens{s.registrar.Tokens()},
		Sealer: s.keyring, Tokens: adminTokens{s.registrar.Tokens()}, AllowLoopback: sc.Open,
		Logger: cfg.Logger.With("part", "admin API"), Version: cfg.Version,
	})
}

// declared is the store as the admin API sees it.
type declared struct{ *store.Store }

func (d declared) View() admin.View { return d.Store.View() }

func (d declared) DryRun(t *weirv1.Transact) (*weirv1.ApplyResponse, error) {
	answer, err := d.Store.DryRun(t, time.Now())
	var refused *store.RefusedError
	if errors.As(err, &refused) {
		return nil, translate(refused)
	}
	return answer, err
}

func (d declared) Watch(ctx context.Context, after uint64) iter.Seq2[admin.Change, error] {
	return func(yield func(admin.Change, error) bool) {
		for e, err := range d.Store.Watch(ctx, after) {
			var c admin.Change
			if e != nil {
				c = admin.Change{Revision: e.Revision, Reset: e.Reset, Puts: e.Puts, Deletes: e.Deletes}
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

func (d declared) Blob(digest string) ([]byte, error) {
	blob, ok := d.Store.Blob(digest)
	if !ok {
		return nil, nil
	}
	data := make([]byte, blob.Size)
	if _, err := io.ReadFull(blob, data); err != nil {
		return nil, err
	}
	return data, nil
}

// source is the store as the node API sees it.
type source struct {
	store   *store.Store
	keyring *identity.Keyring
	log     *slog.Logger
}

func (s source) Watch(ctx context.Context, after uint64) iter.Seq2[nodeapi.Change, error] {
	return func(yield func(nodeapi.Change, error) bool) {
		for e, err := range s.store.Watch(ctx, after) {
			var c nodeapi.Change
			if e != nil {
				c = nodeapi.Change{Revision: e.Revision, Reset: e.Reset, Puts: s.open(e.Puts), Deletes: e.Deletes}
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

// open gives Certificates the key that is sealed in the store. One that cannot be
// opened goes out without: the proxies that need it then say so.
func (s source) open(puts []*weirv1.Resource) []*weirv1.Resource {
	opened := puts
	for i, r := range puts {
		material := r.GetCertificate().GetMaterial()
		if material == nil {
			continue
		}
		if &opened[0] == &puts[0] {
			opened = slices.Clone(puts)
		}
		ref := resource.Of(r)
		key, err := s.keyring.Open(admin.SealPurpose(ref), material.GetSealedKey())
		if err != nil {
			s.log.Error("key not opened", "certificate", ref.String(), "error", err)
		}
		whole := proto.CloneOf(r.GetCertificate())
		whole.Material.SealedKey, whole.Material.Key = nil, key
		whole.Material.SealedHmacKey, whole.Material.AcmeProblem = nil, "" // no proxy's business
		opened[i] = resource.Wrap(whole)
	}
	return opened
}

func (s source) Blob(digest string) io.Reader {
	if blob, ok := s.store.Blob(digest); ok {
		return blob
	}
	return nil
}

// log is the cluster as the admin API sees it.
type log struct {
	node     *cluster.Node
	identity *identity.Identity
}

func (l log) Propose(ctx context.Context, c *weirv1.Command) (*weirv1.ApplyResponse, error) {
	result, err := l.propose(ctx, c)
	if errors.Is(err, cluster.ErrTooLarge) {
		return nil, &admin.Refused{Violations: []admin.Violation{{Reason: admin.ReasonInvalid,
			Message: fmt.Sprintf("the change is too big for one transaction (at most %d KiB): apply it in parts", cluster.MaxCommand>>10)}}}
	}
	if err != nil {
		return nil, outcome(err)
	}
	switch r := result.(type) {
	case *store.RefusedError:
		return nil, translate(r)
	case *weirv1.ApplyResponse:
		return r, nil
	case error: // it is agreed on, and what came of it is not known here
		return nil, fmt.Errorf("%w: %w", admin.ErrUnknown, r)
	}
	return nil, nil
}

// proposals bounds how often a command is proposed of which nobody knows.
const proposals = 3

// propose proposes a command again of which it is not known whether it was done: the
// leader has died, say. The store does a command of one id once, and answers alike.
func (l log) propose(ctx context.Context, c *weirv1.Command) (any, error) {
	result, err := l.node.Propose(ctx, c)
	for n := 1; n < proposals && errors.Is(err, cluster.ErrUnknown) && c.GetId() != "" && ctx.Err() == nil; n++ {
		again, errAgain := l.node.Propose(ctx, c)
		switch {
		case errAgain == nil:
			return again, nil
		case !errors.Is(errAgain, cluster.ErrUnknown):
			return nil, fmt.Errorf("%w; proposed again: %v", err, errAgain) // it says nothing of the first time
		}
		err = errAgain
	}
	return result, err
}

func (l log) Sync(ctx context.Context) error { return outcome(l.node.ReadBarrier(ctx)) }

func (l log) Status(_ context.Context, m *weirv1.GetStatusResponse) error {
	status := l.node.Status()
	m.Leader, m.Term, m.CommitIndex, m.AppliedIndex = status.Leader, status.Term, status.Commit, status.Applied
	m.TrustDomain = l.identity.TrustDomain()
	for _, member := range status.Members {
		m.Members = append(m.Members, &weirv1.Member{
			Name: member.Name, Address: member.Address,
			Role: weirv1.Member_Role(weirv1.Member_Role_value[string(member.Role)]),
		})
	}
	return nil
}

// outcome says in the admin API's words whether a call was done, not done, or
// nobody knows.
func outcome(err error) error {
	switch {
	case errors.Is(err, cluster.ErrUnknown):
		return fmt.Errorf("%w: %w", admin.ErrUnknown, err)
	case errors.Is(err, cluster.ErrTooNew):
		return fmt.Errorf("%w: %w", admin.ErrTooNew, err)
	case errors.Is(err, cluster.ErrNotLeader), errors.Is(err, cluster.ErrClosed), errors.Is(err, cluster.ErrNoSpace), errors.Is(err, cluster.ErrRemoved):
		return fmt.Errorf("%w: %w", admin.ErrUnavailable, err)
	}
	return err
}

func translate(refused *store.RefusedError) *admin.Refused {
	out := new(admin.Refused)
	for _, v := range refused.Violations {
		out.Violations = append(out.Violations, admin.Violation{Ref: v.Ref, Field: v.Field, Reason: admin.Reason(v.Reason), Message: v.Message})
	}
	return out
}

type joinTokens struct{ tokens *identity.Tokens }

var tokenRoles = map[weirv1.CreateJoinTokenRequest_Role]identity.Role{
	weirv1.CreateJoinTokenRequest_SERVER:  identity.RoleServer,
	weirv1.CreateJoinTokenRequest_EDGE:    identity.RoleEdge,
	weirv1.CreateJoinTokenRequest_SIDECAR: identity.RoleSidecar,
}

func (j joinTokens) Create(ctx context.Context, n admin.NewJoinToken) (admin.JoinToken, error) {
	token, expires, err := j.tokens.CreateJoin(ctx, identity.JoinTokenConfig{
		Role: tokenRoles[n.Role], TTL: n.TTL, Uses: int(n.Uses), By: n.Actor,
	})
	if err != nil {
		return admin.JoinToken{}, outcome(err)
	}
	return admin.JoinToken{Token: token.String(), ID: token.ID, Expires: expires}, nil
}

func (j joinTokens) List(ctx context.Context) ([]*weirv1.JoinToken, error) {
	tokens, err := j.tokens.ListJoin(ctx)
	if err != nil {
		return nil, outcome(err)
	}
	var list []*weirv1.JoinToken
	for _, t := range tokens {
		m := &weirv1.JoinToken{Id: t.ID, CreateTime: timestamppb.New(t.Created), ExpireTime: timestamppb.New(t.Expires),
			Uses: uint32(t.Uses), Used: uint32(t.Made), CreatedBy: t.By}
		for role, name := range tokenRoles {
			if name == t.Role {
				m.Role = role
			}
		}
		if t.Revoked.IsZero() {
			list = append(list, m)
		}
	}
	return list, nil
}

func (j joinTokens) Revoke(ctx context.Context, id string) error {
	err := j.tokens.RevokeJoin(ctx, id)
	if errors.Is(err, identity.ErrNoToken) {
		return &admin.Refused{Violations: []admin.Violation{{Field: "id", Reason: admin.ReasonNotFound, Message: "there is no token of that id"}}}
	}
	return outcome(err)
}

type adminTokens struct{ tokens *identity.Tokens }

func (a adminTokens) Authenticate(ctx context.Context, token string) (string, error) {
	name, err := a.tokens.CheckAdmin(ctx, token)
	if errors.Is(err, identity.ErrToken) {
		return "", fmt.Errorf("%w: %w", admin.ErrNoSuchToken, err)
	}
	return name, outcome(err)
}
