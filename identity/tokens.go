package identity

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/identity/record"
)

// Tokens makes and checks tokens. Only hashes of their secrets are stored; the
// secrets are random enough for one round of SHA-256 to hide them.
type Tokens struct {
	records     Records
	fingerprint func() string
	// read is the admin token that was read last: most calls bear the same.
	read atomic.Pointer[readToken]
}

// readToken is a record and the bytes that it was read from. It is not changed.
type readToken struct {
	value  []byte
	record *tokenRecord
}

// tokenRecord is a token, for joining or for the admin API.
type tokenRecord struct {
	Hash    []byte    `json:"hash"`
	Role    Role      `json:"role,omitempty"`
	Name    string    `json:"name,omitempty"` // whose an admin token is
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
	By      string    `json:"by,omitempty"`
	// Tenant and Service are whom the sidecars that it admits speak for.
	Tenant  string `json:"tenant,omitempty"`
	Service string `json:"service,omitempty"`
	// Uses is how many nodes a join token admits, 0: any number. Used are those
	// that it has; where any number may come, their own records say so.
	Uses    int       `json:"uses,omitempty"`
	Used    []use     `json:"used,omitempty"`
	Revoked time.Time `json:"revoked,omitzero"`
}

// use is a node that a token has admitted.
type use struct {
	Node    string    `json:"node"` // role and name
	KeyHash []byte    `json:"keyHash"`
	Time    time.Time `json:"time"`
}

const (
	// MaxJoinTTL bounds how long a join token may be good for.
	MaxJoinTTL = 30 * 24 * time.Hour
	// MaxJoinUses bounds how many nodes a token may admit, other than any number.
	MaxJoinUses = 1000
	// tokenMemory is how long one that is good for nothing any more is remembered,
	// so that whoever comes too late can be told.
	tokenMemory = 24 * time.Hour
)

// JoinTokenConfig says what a join token is for.
type JoinTokenConfig struct {
	Role Role
	// Tenant and Service are whom a sidecar speaks for; for other roles empty.
	Tenant, Service string
	// TTL is how long it is good for.
	TTL time.Duration
	// Uses is how many nodes it admits. 0: any number.
	Uses int
	// By is who makes it.
	By string
}

// Validate says what is wrong with it.
func (c JoinTokenConfig) Validate() error {
	switch {
	case !c.Role.Valid():
		return fmt.Errorf("role %q is none of server, edge, sidecar", c.Role)
	case c.Role != RoleSidecar && c.Tenant+c.Service != "":
		return fmt.Errorf("a token for a node of role %s is for no service", c.Role)
	case c.TTL <= 0 || c.TTL > MaxJoinTTL:
		return fmt.Errorf("ttl %s is not between 0 and %s", c.TTL, MaxJoinTTL)
	case c.Uses < 0 || c.Uses > MaxJoinUses:
		return fmt.Errorf("uses %d is not between 0 (any number) and %d", c.Uses, MaxJoinUses)
	}
	if c.Role == RoleSidecar {
		return ValidService(c.Tenant, c.Service)
	}
	return nil
}

// CreateJoin makes a join token. It is the only time that its secret is seen.
func (t *Tokens) CreateJoin(ctx context.Context, c JoinTokenConfig) (token Token, expires time.Time, err error) {
	if err := c.Validate(); err != nil {
		return Token{}, time.Time{}, fmt.Errorf("create join token: %w", err)
	}
	now := time.Now().UTC()
	expires = now.Add(c.TTL)
	made := Token{ID: newID(), Secret: newSecret(), Fingerprint: t.fingerprint()}
	r := tokenRecord{Hash: hashSecret(made.Secret), Role: c.Role, Created: now, Expires: expires, By: c.By, Uses: c.Uses,
		Tenant: c.Tenant, Service: c.Service}
	if err := t.create(ctx, TableJoinToken, made.ID, r); err != nil {
		return Token{}, time.Time{}, fmt.Errorf("create join token: %w", err)
	}
	return made, expires, nil
}

// JoinToken is what may be told of a join token.
type JoinToken struct {
	ID               string
	Role             Role
	Tenant, Service  string // of a sidecar
	By               string
	Created, Expires time.Time
	Revoked          time.Time // zero: it is not
	// Uses is how many nodes it admits, 0: any number. Made is how many it has.
	Uses, Made int
}

// Refusal is why the token admits nobody any more, or nil.
func (j JoinToken) Refusal() error {
	switch {
	case !j.Revoked.IsZero():
		return ErrTokenRevoked
	case !time.Now().Before(j.Expires):
		return fmt.Errorf("%w on %s", ErrTokenExpired, j.Expires.UTC().Format(time.RFC3339))
	case j.Uses > 0 && j.Made >= j.Uses:
		return ErrTokenUsed
	}
	return nil
}

func (r *tokenRecord) told(id string) JoinToken {
	return JoinToken{ID: id, Role: r.Role, By: r.By, Created: r.Created, Expires: r.Expires, Revoked: r.Revoked,
		Uses: r.Uses, Made: len(r.Used), Tenant: r.Tenant, Service: r.Service}
}

// ListJoin lists the join tokens, those that were good until a short while ago
// among them.
func (t *Tokens) ListJoin(ctx context.Context) ([]JoinToken, error) {
	entries, err := t.records.List(ctx, TableJoinToken)
	if err != nil {
		return nil, fmt.Errorf("list join tokens: %w", err)
	}
	nodes, err := t.records.List(ctx, TableNode)
	if err != nil {
		return nil, fmt.Errorf("list join tokens: %w", err)
	}
	admitted := map[string]int{}
	for _, e := range nodes {
		if n, err := record.Decode[nodeRecord](e.Value); err == nil && n.Token != "" {
			admitted[n.Token]++
		}
	}
	var list []JoinToken
	for _, e := range entries {
		r, err := record.Decode[tokenRecord](e.Value)
		if err != nil {
			return nil, fmt.Errorf("list join tokens: %s: %w", e.Key, err)
		}
		told := r.told(e.Key)
		if told.Uses == 0 {
			told.Made = admitted[e.Key]
		}
		list = append(list, told)
	}
	return list, nil
}

// ErrNoToken is the cause when there is no token of an id.
var ErrNoToken = errors.New("there is no such token")

// RevokeJoin makes a join token good for nothing. Nodes that have joined with
// it stay.
func (t *Tokens) RevokeJoin(ctx context.Context, id string) error {
	if !isHex(id, idBytes) {
		return fmt.Errorf("revoke join token: %q is not a token's id: %w", id, ErrNoToken)
	}
	err := record.Update(ctx, t.records, TableJoinToken, id, func(value []byte) ([]byte, error) {
		r, err := record.Decode[tokenRecord](value)
		if err != nil || r == nil {
			return nil, errors.Join(err, ErrNoToken)
		}
		if r.Revoked.IsZero() {
			r.Revoked = time.Now().UTC()
		}
		return record.Encode(r), nil
	})
	if err != nil {
		return fmt.Errorf("revoke join token %s: %w", id, err)
	}
	return nil
}

// sweep forgets the join tokens whose time was over a while ago.
func (t *Tokens) sweep(ctx context.Context, now time.Time) error {
	entries, err := t.records.List(ctx, TableJoinToken)
	if err != nil {
		return fmt.Errorf("sweep join tokens: %w", err)
	}
	for _, e := range entries {
		r, err := record.Decode[tokenRecord](e.Value)
		if err == nil && now.Before(r.Expires.Add(tokenMemory)) {
			continue
		}
		err = t.records.Change(ctx, record.Change{Table: TableJoinToken, Key: e.Key, Was: e.Value})
		if err != nil && !errors.Is(err, ErrConflict) {
			return fmt.Errorf("sweep join token %s: %w", e.Key, err)
		}
	}
	return nil
}

// CreateAdmin makes a token for the admin API; name says whose it is. The token
// is good once keep, which is called first, has put it where it will be found.
func (t *Tokens) CreateAdmin(ctx context.Context, name string, keep func(token string) error) error {
	id, secret := newID(), newSecret()
	if err := keep(strings.Join([]string{adminPrefix, id, secret}, ".")); err != nil {
		return fmt.Errorf("create admin token: %w", err)
	}
	r := tokenRecord{Hash: hashSecret(secret), Name: name, Created: time.Now().UTC()}
	if err := t.create(ctx, TableAdminToken, id, r); err != nil {
		return fmt.Errorf("create admin token: %w", err)
	}
	return nil
}

// CheckAdmin returns whose token it is.
func (t *Tokens) CheckAdmin(ctx context.Context, token string) (name string, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[0] != adminPrefix || !isHex(parts[1], idBytes) || !isBase64(parts[2], secretBytes) {
		return "", fmt.Errorf("check admin token: not an admin token: %w", ErrToken)
	}
	r, _, err := t.find(ctx, TableAdminToken, parts[1], parts[2])
	if err != nil {
		return "", fmt.Errorf("check admin token %s: %w", parts[1], err)
	}
	if !r.Expires.IsZero() && !time.Now().Before(r.Expires) {
		return "", fmt.Errorf("check admin token %s: expired at %s: %w", parts[1], r.Expires.Format(time.RFC3339), ErrToken)
	}
	return r.Name, nil
}

func (t *Tokens) create(ctx context.Context, table, id string, r tokenRecord) error {
	return t.records.Change(ctx, record.Change{Table: table, Key: id, Is: record.Encode(r)})
}

// find returns the token of that id if the secret is its own, and the record's
// bytes.
func (t *Tokens) find(ctx context.Context, table, id, secret string) (*tokenRecord, []byte, error) {
	value, err := t.records.Get(ctx, table, id)
	if err != nil {
		return nil, nil, err
	}
	r, err := t.decode(table, value)
	switch {
	case err != nil:
		return nil, nil, err
	case r == nil:
		return nil, nil, fmt.Errorf("not known: %w", ErrToken)
	case subtle.ConstantTimeCompare(r.Hash, hashSecret(secret)) != 1:
		return nil, nil, fmt.Errorf("wrong secret: %w", ErrToken)
	}
	return r, value, nil
}

// decode reads a record. Nobody may change an admin token's.
func (t *Tokens) decode(table string, value []byte) (*tokenRecord, error) {
	if table != TableAdminToken {
		return record.Decode[tokenRecord](value)
	}
	if last := t.read.Load(); last != nil && bytes.Equal(last.value, value) {
		return last.record, nil
	}
	r, err := record.Decode[tokenRecord](value)
	if err == nil && r != nil {
		t.read.Store(&readToken{value, r})
	}
	return r, err
}
