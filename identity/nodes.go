package identity

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weirmesh/weir/identity/record"
)

// nodeRecord remembers the key behind a name. It is what lets a node renew
// long after its certificate ran out, and what shuts one out once it is marked
// as removed.
type nodeRecord struct {
	KeyHash []byte    `json:"keyHash"`
	Joined  time.Time `json:"joined"`
	// Token is the id of the one that admitted the node.
	Token string `json:"token,omitempty"`
	// Epoch is the authority's when the node was last given credentials.
	Epoch uint64 `json:"epoch,omitempty"`
	// Tenant and Service are whom a sidecar speaks for.
	Tenant    string    `json:"tenant,omitempty"`
	Service   string    `json:"service,omitempty"`
	Removed   time.Time `json:"removed,omitzero"`
	RemovedBy string    `json:"removedBy,omitempty"`
	// Former are the keys that bore the name before, while they may matter.
	Former []formerKey `json:"former,omitempty"`
}

// Why a node is not admitted, or no longer.
var (
	ErrInUse      = errors.New("a node of that name is there now")
	ErrRemoved    = errors.New("the node was removed; it must join again, with a new token and an empty data directory")
	ErrSuperseded = errors.New("another node has joined under that name since")
)

func (n *nodeRecord) bears(keyHash []byte) bool {
	return n != nil && subtle.ConstantTimeCompare(n.KeyHash, keyHash) == 1
}

// speaksFor tells whether the node is not known, or is of the same service.
func (n *nodeRecord) speaksFor(id ID) bool {
	return n == nil || n.Tenant == id.Tenant && n.Service == id.Service
}

// check says why a key does not bear the name; nil is no record.
func (n *nodeRecord) check(id ID, keyHash []byte) error {
	switch {
	case n == nil || !n.Removed.IsZero():
		return fmt.Errorf("check %s: %w", id, ErrRemoved)
	case !n.bears(keyHash), !n.speaksFor(id):
		return fmt.Errorf("check %s: %w", id, ErrSuperseded)
	}
	return nil
}

// at is the record of a node that has come to an epoch.
func (n *nodeRecord) at(epoch uint64) *nodeRecord {
	next := *n
	next.Epoch = max(n.Epoch, epoch)
	return &next
}

func nodeKey(id ID) string { return string(id.Role) + "/" + id.Name }

func (r *Registrar) node(ctx context.Context, id ID) (*nodeRecord, error) {
	known, _, err := r.nodeAndRecord(ctx, id)
	return known, err
}

func (r *Registrar) nodeAndRecord(ctx context.Context, id ID) (known *nodeRecord, value []byte, err error) {
	if value, err = r.records.Get(ctx, TableNode, nodeKey(id)); err == nil {
		known, err = record.Decode[nodeRecord](value)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read node %s: %w", id, err)
	}
	return known, value, nil
}

// updateNode records what next makes of a node's record. Where that is what it
// was, nothing is written.
func (r *Registrar) updateNode(ctx context.Context, id ID, next func(was *nodeRecord) (*nodeRecord, error)) error {
	err := record.Update(ctx, r.records, TableNode, nodeKey(id), func(value []byte) ([]byte, error) {
		was, err := record.Decode[nodeRecord](value)
		if err != nil {
			return nil, err
		}
		is, err := next(was)
		if err != nil {
			return nil, err
		}
		return record.Encode(is), nil
	})
	if err != nil {
		return fmt.Errorf("record node: %w", err)
	}
	return nil
}

// Remove shuts a node out until it joins anew: it is served by nobody, and
// cannot renew. What it did before, or who it was, is not asked: a node that is
// not known is marked all the same.
func (r *Registrar) Remove(ctx context.Context, role Role, name, by string) error {
	id := ID{TrustDomain: r.Authority().trustDomain, Role: role, Name: name}
	if err := ValidName(name); err != nil || !role.Valid() {
		return fmt.Errorf("remove node: %w: no %s can be named %q", ErrRequest, role, name)
	}
	return r.updateNode(ctx, id, func(was *nodeRecord) (*nodeRecord, error) {
		if was == nil {
			was = new(nodeRecord)
		}
		is := *was
		if is.Removed.IsZero() {
			is.Removed, is.RemovedBy = time.Now().UTC(), by
		}
		return &is, nil
	})
}

// Node is what the cluster remembers of a node.
type Node struct {
	ID     ID
	Joined time.Time
	// Token is the id of the join token that admitted it; empty for a founder.
	Token string
	// Removed is when it was removed, zero if it was not.
	Removed time.Time
	// Epoch is the authority's when the node was last given credentials.
	Epoch uint64
}

// Nodes lists who has joined, those that were removed among them.
func (r *Registrar) Nodes(ctx context.Context) ([]Node, error) {
	entries, err := r.records.List(ctx, TableNode)
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	var nodes []Node
	for _, e := range entries {
		n, err := record.Decode[nodeRecord](e.Value)
		if err != nil {
			return nil, fmt.Errorf("list nodes: %s: %w", e.Key, err)
		}
		role, name, _ := strings.Cut(e.Key, "/")
		nodes = append(nodes, Node{
			ID:     ID{TrustDomain: r.Authority().trustDomain, Role: Role(role), Name: name, Tenant: n.Tenant, Service: n.Service},
			Joined: n.Joined, Token: n.Token, Removed: n.Removed, Epoch: n.Epoch,
		})
	}
	return nodes, nil
}

// CheckServer says why the server that a certificate was issued to is one no
// longer, as this member's own state has it: it was removed, or another has joined
// under its name. The state may be old, and the certificate of a server that has
// joined since; so one that is newer than what is known of its name holds.
func CheckServer(own OwnRecords, leaf *x509.Certificate) error {
	id, err := leafID(leaf)
	if err != nil || id.Founding() {
		return err
	}
	value, ok := own.Value(TableNode, nodeKey(id))
	if !ok {
		return nil
	}
	known, err := record.Decode[nodeRecord](value)
	if err != nil {
		return fmt.Errorf("read node %s: %w", id, err)
	}
	hash, err := keyHash(leaf.PublicKey)
	if err != nil {
		return err
	}
	since := known.Joined
	if !known.Removed.IsZero() {
		since = known.Removed
	}
	if !known.bears(hash) && issuedAt(leaf).After(since) {
		return nil
	}
	return known.check(id, hash)
}

// CheckProxy says why a proxy is one no longer, as this member's own state has it. One
// that is not known there may have joined just now.
func CheckProxy(own OwnRecords, id ID, peer crypto.PublicKey) error {
	value, ok := own.Value(TableNode, nodeKey(id))
	if !ok {
		return nil
	}
	known, err := record.Decode[nodeRecord](value)
	if err != nil {
		return fmt.Errorf("read node %s: %w", id, err)
	}
	hash, err := keyHash(peer)
	if err != nil {
		return err
	}
	return known.check(id, hash)
}

// issuedAt is when a certificate was signed, up to a second or two: it is good from
// a little before (see Issue).
func issuedAt(leaf *x509.Certificate) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotBefore.Add(min(clockSkew, life/5) + 2*time.Second)
}

func requestKeyHash(csr []byte) ([]byte, error) {
	public, err := RequestKey(csr)
	if err != nil {
		return nil, err
	}
	return keyHash(public)
}

func keyHash(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("hash key: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:], nil
}
