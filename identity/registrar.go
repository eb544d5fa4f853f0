package identity

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Registrar admits nodes: it checks tokens, remembers which key bears which
// name, and has the authority sign.
type Registrar struct {
	authority *Authority
	tokens    *Tokens
	records   Records
}

// OpenRegistrar reads the cluster's authority from its records, and makes it
// where there is none. Of two members that make one at the same time, one
// wins, and both use that.
func OpenRegistrar(ctx context.Context, records Records, keyring *Keyring) (*Registrar, error) {
	authority, err := readAuthority(ctx, records, keyring)
	if err == nil && authority == nil {
		authority, err = createAuthority(ctx, records, keyring)
	}
	if err != nil {
		return nil, err
	}
	return &Registrar{authority: authority, tokens: NewTokens(records, authority.Fingerprint()), records: records}, nil
}

const authorityKey = "root"

func readAuthority(ctx context.Context, records Records, keyring *Keyring) (*Authority, error) {
	sealed, err := records.Get(ctx, TableAuthority, authorityKey)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	if sealed == nil {
		return nil, nil
	}
	return OpenAuthority(keyring, sealed)
}

func createAuthority(ctx context.Context, records Records, keyring *Keyring) (*Authority, error) {
	authority, err := NewAuthority(newTrustDomain())
	if err != nil {
		return nil, err
	}
	sealed, err := authority.Seal(keyring)
	if err != nil {
		return nil, err
	}
	err = records.Put(ctx, TableAuthority, authorityKey, sealed, true)
	if errors.Is(err, ErrExists) {
		return readAuthority(ctx, records, keyring)
	}
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
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

// Authority is the cluster's.
func (r *Registrar) Authority() *Authority { return r.authority }

// Tokens are the cluster's.
func (r *Registrar) Tokens() *Tokens { return r.tokens }

// nodeRecord remembers the key behind a name. It is what lets a node renew
// long after its certificate ran out, and what is deleted to shut one out.
type nodeRecord struct {
	KeyHash []byte    `json:"keyHash"`
	Joined  time.Time `json:"joined"`
}

// Join admits a node: the token says as what, the node says under which name.
// A name goes to the newcomer, whose token proves that it may join and who may
// be the same machine with a new disk; the key that bore the name before is
// then good for nothing. While a node of that name is in use, it keeps it.
func (r *Registrar) Join(ctx context.Context, token, name string, csr []byte, inUse func(ID) bool) (ID, *weirv1.Credentials, error) {
	role, err := r.tokens.CheckJoin(ctx, token)
	if err != nil {
		return ID{}, nil, err
	}
	id := ID{TrustDomain: r.authority.trustDomain, Role: role, Name: name}
	issued, err := r.authority.Issue(id, csr, Names{})
	if err != nil {
		return ID{}, nil, err
	}
	known, err := r.knows(ctx, id, csr)
	if err == nil && !known {
		if inUse(id) {
			return ID{}, nil, fmt.Errorf("join as %s: %w", id, ErrInUse)
		}
		err = r.record(ctx, id, csr)
	}
	if err != nil {
		return ID{}, nil, err
	}
	return id, issued, nil
}

// Enrol admits a node without a token: the server that runs the registrar
// itself. Names are where it is reached.
func (r *Registrar) Enrol(ctx context.Context, role Role, name string, csr []byte, names Names) (*weirv1.Credentials, error) {
	id := ID{TrustDomain: r.authority.trustDomain, Role: role, Name: name}
	issued, err := r.authority.Issue(id, csr, names)
	if err != nil {
		return nil, err
	}
	known, err := r.knows(ctx, id, csr)
	if err == nil && !known {
		err = r.record(ctx, id, csr)
	}
	if err != nil {
		return nil, err
	}
	return issued, nil
}

// knows tells whether the key of a request is the one that bears the name.
func (r *Registrar) knows(ctx context.Context, id ID, csr []byte) (bool, error) {
	hash, err := requestKeyHash(csr)
	if err != nil {
		return false, err
	}
	known, err := r.node(ctx, id)
	return known != nil && subtle.ConstantTimeCompare(known.KeyHash, hash) == 1, err
}

func (r *Registrar) record(ctx context.Context, id ID, csr []byte) error {
	hash, err := requestKeyHash(csr)
	if err != nil {
		return err
	}
	value, err := json.Marshal(nodeRecord{KeyHash: hash, Joined: time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("record node %s: %w", id, err)
	}
	if err := r.records.Put(ctx, TableNode, nodeKey(id), value, false); err != nil {
		return fmt.Errorf("record node %s: %w", id, err)
	}
	return nil
}

// Check says whether a key still bears the name that its certificate says.
func (r *Registrar) Check(ctx context.Context, id ID, peer crypto.PublicKey) error {
	presented, err := keyHash(peer)
	if err != nil {
		return err
	}
	known, err := r.node(ctx, id)
	switch {
	case err != nil:
		return err
	case known == nil:
		return fmt.Errorf("check %s: %w", id, ErrRemoved)
	case subtle.ConstantTimeCompare(known.KeyHash, presented) != 1:
		return fmt.Errorf("check %s: %w", id, ErrSuperseded)
	}
	return nil
}

// Renew issues a fresh certificate to a node that proved, by TLS and by the
// request, that it holds the key that joined under its name.
func (r *Registrar) Renew(ctx context.Context, id ID, peer crypto.PublicKey, csr []byte) (*weirv1.Credentials, error) {
	if err := r.Check(ctx, id, peer); err != nil {
		return nil, err
	}
	same, err := r.knows(ctx, id, csr)
	if err != nil {
		return nil, err
	}
	if !same {
		return nil, fmt.Errorf("renew %s: %w: the request is by another key than the connection", id, ErrRequest)
	}
	return r.authority.Issue(id, csr, Names{})
}

// Why a node is not admitted, or no longer.
var (
	ErrInUse      = errors.New("a node of that name is connected now")
	ErrRemoved    = errors.New("the node was removed; it must join again")
	ErrSuperseded = errors.New("another node has joined under that name since")
)

func (r *Registrar) node(ctx context.Context, id ID) (*nodeRecord, error) {
	value, err := r.records.Get(ctx, TableNode, nodeKey(id))
	if err != nil {
		return nil, fmt.Errorf("read node %s: %w", id, err)
	}
	if value == nil {
		return nil, nil
	}
	record := new(nodeRecord)
	if err := json.Unmarshal(value, record); err != nil {
		return nil, fmt.Errorf("read node %s: %w", id, err)
	}
	return record, nil
}

func nodeKey(id ID) string { return string(id.Role) + "/" + id.Name }

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
