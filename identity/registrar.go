package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/identity/record"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Registrar admits nodes: it checks tokens, remembers which key bears which
// name, and has the authority sign. Each member has one. They share nothing but
// the records, which each reads anew for whatever it is asked.
type Registrar struct {
	records Records
	keyring *Keyring
	tokens  *Tokens
	// lifetime is that of the certificates issued here.
	lifetime time.Duration
	// joining is held by whoever admits a node, so that those who come to the
	// same member at once do not get in each other's way.
	joining chan struct{}
	opened  atomic.Pointer[openedAuthority]
}

// openedAuthority is the authority and the record that it was read from. It is
// over once another record was read.
type openedAuthority struct {
	sealed    []byte
	authority *Authority
	over      chan struct{}
}

// OpenRegistrar reads the cluster's authority from its records, and makes it
// where there is none. Of two members that make one at the same time, one
// wins, and both use that. The lifetime is that of the certificates that this
// member issues: 0 is [LeafLifetime], the most there may be, since a rotation
// waits for so long.
func OpenRegistrar(ctx context.Context, records Records, keyring *Keyring, lifetime time.Duration) (*Registrar, error) {
	r := &Registrar{records: records, keyring: keyring, lifetime: lifetime, joining: make(chan struct{}, 1)}
	r.tokens = &Tokens{records: records, fingerprint: func() string { return r.Authority().Fingerprint() }}
	err := record.Update(ctx, records, TableAuthority, authorityKey, func(was []byte) ([]byte, error) {
		if was != nil {
			return was, nil
		}
		authority, err := NewAuthority(newTrustDomain())
		if err != nil {
			return nil, err
		}
		return authority.Seal(keyring)
	})
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	if _, err := r.refresh(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

const authorityKey = "root"

// refresh returns the authority as the records have it.
func (r *Registrar) refresh(ctx context.Context) (*Authority, error) {
	sealed, err := r.records.Get(ctx, TableAuthority, authorityKey)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	if sealed == nil {
		return nil, errors.New("read authority: the cluster has none")
	}
	if o := r.opened.Load(); o != nil && bytes.Equal(o.sealed, sealed) {
		return o.authority, nil
	}
	authority, err := OpenAuthority(r.keyring, sealed)
	if err != nil {
		return nil, err
	}
	was := r.opened.Swap(&openedAuthority{sealed: sealed, authority: authority, over: make(chan struct{})})
	if was != nil {
		close(was.over)
	}
	return authority, nil
}

// newTrustDomain names a cluster so that no other has the same name: two that
// meet must not take each other's nodes for their own.
func newTrustDomain() string {
	var b [4]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:]) + ".weir.internal"
}

// Authority is the cluster's, as last seen.
func (r *Registrar) Authority() *Authority { return r.opened.Load().authority }

// Tokens are the cluster's.
func (r *Registrar) Tokens() *Tokens { return r.tokens }

// Keyring is this member's.
func (r *Registrar) Keyring() *Keyring { return r.keyring }

// Enrol admits a node without a token. Names are where it is reached. The key
// takes over the name from any other key, but not from a node that was removed.
func (r *Registrar) Enrol(ctx context.Context, role Role, name string, csr []byte, names Names) (*weirv1.Credentials, error) {
	authority, err := r.refresh(ctx)
	if err != nil {
		return nil, err
	}
	id := ID{TrustDomain: authority.trustDomain, Role: role, Name: name}
	issued, err := authority.Issue(id, csr, names, r.lifetime)
	if err != nil {
		return nil, err
	}
	hash, err := requestKeyHash(csr)
	if err != nil {
		return nil, err
	}
	err = r.updateNode(ctx, id, func(was *nodeRecord) (*nodeRecord, error) {
		switch {
		case was == nil, was.Removed.IsZero() && !was.bears(hash):
			now := time.Now().UTC()
			return &nodeRecord{KeyHash: hash, Joined: now, Epoch: authority.epoch, Former: was.givenUp(now)}, nil
		case !was.Removed.IsZero():
			return nil, fmt.Errorf("enrol %s: %w", id, ErrRemoved)
		}
		return was.at(authority.epoch), nil
	})
	if err != nil {
		return nil, err
	}
	return issued, nil
}

// EnrolServer gives a server its certificate from the registrar that it runs
// itself, with the names under which it is reached today, and puts it in force.
// The record comes last: who reads it knows that the server has a certificate
// on its disk. A server that was removed, or whose name another has, is refused.
func (r *Registrar) EnrolServer(ctx context.Context, node *Identity, name string, names Names) error {
	authority, err := r.refresh(ctx)
	if err != nil {
		return err
	}
	id := ID{TrustDomain: authority.trustDomain, Role: RoleServer, Name: name}
	own := func(was *nodeRecord) error {
		if was == nil {
			return nil
		}
		return was.check(id, node.keyHash())
	}
	was, err := r.node(ctx, id)
	if err == nil {
		err = own(was)
	}
	if err == nil {
		err = issueTo(node, authority, id, names, r.lifetime)
	}
	if err != nil {
		return err
	}
	return r.updateNode(ctx, id, func(was *nodeRecord) (*nodeRecord, error) {
		if err := own(was); err != nil {
			return nil, err
		}
		if was == nil {
			was = &nodeRecord{KeyHash: node.keyHash(), Joined: time.Now().UTC()}
		}
		return was.at(authority.epoch), nil
	})
}

// issueTo gives a node that runs here a certificate.
func issueTo(node *Identity, authority *Authority, id ID, names Names, lifetime time.Duration) error {
	csr, err := node.Request()
	if err != nil {
		return err
	}
	issued, err := authority.Issue(id, csr, names, lifetime)
	if err != nil {
		return err
	}
	return node.Install(issued)
}

// Check says whether a key still bears the name that its certificate says.
func (r *Registrar) Check(ctx context.Context, id ID, peer crypto.PublicKey) error {
	presented, err := keyHash(peer)
	if err != nil {
		return err
	}
	known, err := r.node(ctx, id)
	if err != nil {
		return err
	}
	return known.check(id, presented)
}

// Renew issues a fresh certificate to a node that proved, by TLS and by the
// request, that it holds the key that joined under its name.
func (r *Registrar) Renew(ctx context.Context, id ID, peer crypto.PublicKey, csr []byte) (*weirv1.Credentials, error) {
	if err := r.Check(ctx, id, peer); err != nil {
		return nil, err
	}
	hash, err := requestKeyHash(csr)
	if err != nil {
		return nil, err
	}
	if presented, err := keyHash(peer); err != nil || !bytes.Equal(presented, hash) {
		return nil, fmt.Errorf("renew %s: %w: the request is by another key than the connection", id, ErrRequest)
	}
	authority, err := r.refresh(ctx)
	if err != nil {
		return nil, err
	}
	issued, err := authority.Issue(id, csr, Names{}, r.lifetime)
	if err != nil {
		return nil, err
	}
	// A rotation waits until each node was given something of its epoch.
	err = r.updateNode(ctx, id, func(was *nodeRecord) (*nodeRecord, error) {
		if err := was.check(id, hash); err != nil {
			return nil, err
		}
		return was.at(authority.epoch), nil
	})
	if err != nil {
		return nil, err
	}
	return issued, nil
}
