package identity

import (
	"context"
	"fmt"
	"time"

	"github.com/weirmesh/weir/identity/record"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// JoinRequest is what a node says that wants to join.
type JoinRequest struct {
	Token string
	Name  string
	// Role is what it means to be. Empty: whatever the token admits to.
	Role Role
	CSR  []byte
}

// Admission is what a node gets that was let in.
type Admission struct {
	ID          ID
	Credentials *weirv1.Credentials
	// Keyring is for servers alone: the cluster's keys, to be installed by
	// [InstallKeyring]. It may only travel to the node itself.
	Keyring []byte
}

// Join admits a node: the token says as what, the node says under which name.
//
// Sidecars of two services are never one node: while one is known, its name is
// refused to the other, until somebody removes it.
//
// A proxy's name goes to the newcomer, whose token proves that it may join and
// who may be the same machine with a new disk; the key that bore the name
// before is then good for nothing. While a node of that name is in use, it
// keeps it, and a server keeps its name until it is removed.
//
// The token's use and the node are recorded together, once all else has been
// checked. A node that asks again with the same key and token, because it did
// not hear the answer, gets it again, and that is no second use.
func (r *Registrar) Join(ctx context.Context, m JoinRequest, inUse func(ID) bool) (*Admission, error) {
	token, err := ParseToken(m.Token)
	if err != nil {
		return nil, fmt.Errorf("check join token: %w: %w", ErrToken, err)
	}
	select {
	case r.joining <- struct{}{}:
		defer func() { <-r.joining }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var admitted *Admission
	err = record.Retry(ctx, func() (err error) {
		admitted, err = r.join(ctx, token, m, inUse)
		return err
	})
	return admitted, err
}

func (r *Registrar) join(ctx context.Context, token Token, m JoinRequest, inUse func(ID) bool) (*Admission, error) {
	found, tokenValue, err := r.tokens.find(ctx, TableJoinToken, token.ID, token.Secret)
	if err != nil {
		return nil, fmt.Errorf("check join token %s: %w", token.ID, err)
	}
	if m.Role != "" && m.Role != found.Role {
		return nil, fmt.Errorf("join: %w: the token is for a node of role %s, this one is of role %s", ErrRequest, found.Role, m.Role)
	}
	authority, err := r.refresh(ctx)
	if err != nil {
		return nil, err
	}
	id := ID{TrustDomain: authority.trustDomain, Role: found.Role, Name: m.Name, Tenant: found.Tenant, Service: found.Service}
	admitted := &Admission{ID: id}
	if admitted.Credentials, err = authority.Issue(id, m.CSR, Names{}, r.lifetime); err != nil {
		return nil, err
	}
	if id.Role == RoleServer {
		admitted.Keyring = r.keyring.Export()
	}
	hash, err := requestKeyHash(m.CSR)
	if err != nil {
		return nil, err
	}
	known, nodeValue, err := r.nodeAndRecord(ctx, id)
	if err != nil {
		return nil, err
	}
	stays := known.bears(hash) && known.Removed.IsZero() && known.speaksFor(id)
	if stays && known.Token == token.ID {
		return admitted, nil // it asks again
	}
	if err := found.told(token.ID).Refusal(); err != nil {
		return nil, fmt.Errorf("check join token %s: %w", token.ID, err)
	}
	if err := r.isTaken(ctx, id); err != nil {
		return nil, err
	}
	if !known.speaksFor(id) && known.Removed.IsZero() {
		return nil, fmt.Errorf("join as %s of %s: %w, for another service", m.Name, id, ErrInUse)
	}
	if known != nil && known.Removed.IsZero() && !stays && (id.Role == RoleServer || inUse(id)) {
		return nil, fmt.Errorf("join as %s: %w", id, ErrInUse)
	}
	if id.Role != RoleServer && known.hadBorne(hash) { // proxies were told so, and hear nothing else
		return nil, fmt.Errorf("join as %s: %w: %w", id, ErrRequest, ErrRemoved)
	}
	now := time.Now().UTC()
	if found.Uses > 0 {
		found.Used = append(found.Used, use{Node: nodeKey(id), KeyHash: hash, Time: now})
	}
	is := nodeRecord{KeyHash: hash, Joined: now, Token: token.ID, Epoch: authority.epoch, Tenant: id.Tenant, Service: id.Service}
	if !known.bears(hash) {
		is.Former = known.givenUp(now)
	}
	return admitted, r.admit(ctx, token.ID, tokenValue, record.Encode(found), id, nodeValue, record.Encode(is))
}

// isTaken says that a proxy of another role bears the name: proxies are told apart by
// their names alone.
func (r *Registrar) isTaken(ctx context.Context, id ID) error {
	other := map[Role]Role{RoleEdge: RoleSidecar, RoleSidecar: RoleEdge}[id.Role]
	if other == "" {
		return nil
	}
	known, err := r.node(ctx, ID{TrustDomain: id.TrustDomain, Role: other, Name: id.Name})
	if err == nil && known != nil && known.Removed.IsZero() {
		err = fmt.Errorf("join as %s: %w, as %s", id.Name, ErrInUse, other)
	}
	return err
}

// admit records a node together with the token that lets it in, which may have
// been revoked meanwhile.
func (r *Registrar) admit(ctx context.Context, token string, was, is []byte, id ID, nodeWas, nodeIs []byte) error {
	err := r.records.Change(ctx,
		record.Change{Table: TableJoinToken, Key: token, Was: was, Is: is},
		record.Change{Table: TableNode, Key: nodeKey(id), Was: nodeWas, Is: nodeIs})
	if err != nil {
		return fmt.Errorf("record node %s: %w", id, err)
	}
	return nil
}
