package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The tables in which the cluster keeps what this package must remember.
const (
	TableAuthority  = "authority"
	TableJoinToken  = "join-token"
	TableAdminToken = "admin-token"
	TableNode       = "node"
)

// Records is where those tables are: the cluster's state, so that every member
// knows them.
type Records interface {
	// Get returns nil where there is no such key.
	Get(ctx context.Context, table, key string) ([]byte, error)
	// Put stores a value. With create it fails with [ErrExists] when the key is
	// there already.
	Put(ctx context.Context, table, key string, value []byte, create bool) error
}

// ErrExists is what Records.Put returns for a key that is there already.
var ErrExists = errors.New("exists already")

// ErrToken is the cause when a token is refused. The reason beside it is for
// the log: whoever presented the token learns only that it was refused.
var ErrToken = errors.New("token refused")

const (
	joinPrefix  = "weir1"
	adminPrefix = "weira1"
	idBytes     = 6
	secretBytes = 32
)

// Token is a join token, taken apart: `weir1.<id>.<secret>.<fingerprint>`. The
// server knows it by id and secret, the joining node knows the server by the
// fingerprint of its root.
type Token struct {
	ID          string
	Secret      string
	Fingerprint string
}

// String is the token as it is given away.
func (t Token) String() string {
	return strings.Join([]string{joinPrefix, t.ID, t.Secret, t.Fingerprint}, ".")
}

// ParseToken takes a join token apart.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(s), ".")
	if parts[0] == adminPrefix {
		return Token{}, errors.New("parse join token: this one is for the admin API (WEIR_TOKEN of an admin.env?); " +
			"make one with weir join-token create")
	}
	if len(parts) != 4 || parts[0] != joinPrefix {
		return Token{}, fmt.Errorf("parse join token: want %s.<id>.<secret>.<fingerprint>", joinPrefix)
	}
	t := Token{ID: parts[1], Secret: parts[2], Fingerprint: parts[3]}
	if !isHex(t.ID, idBytes) || !isBase64(t.Secret, secretBytes) || !isBase64(t.Fingerprint, sha256.Size) {
		return Token{}, errors.New("parse join token: it is damaged or cut short")
	}
	return t, nil
}

func isHex(s string, n int) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == n && hex.EncodeToString(b) == s
}

func isBase64(s string, n int) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == n
}

// Tokens makes and checks tokens. Only hashes of their secrets are stored; the
// secrets are random enough for one round of SHA-256 to hide them.
type Tokens struct {
	records     Records
	fingerprint string
}

// NewTokens keeps tokens in records; fingerprint is the authority's.
func NewTokens(records Records, fingerprint string) *Tokens {
	return &Tokens{records: records, fingerprint: fingerprint}
}

type tokenRecord struct {
	Hash    []byte    `json:"hash"`
	Role    Role      `json:"role,omitempty"`
	Name    string    `json:"name,omitempty"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
}

// MaxJoinTTL bounds how long a join token may be good for.
const MaxJoinTTL = 30 * 24 * time.Hour

// CreateJoin makes a join token for nodes of a role.
func (t *Tokens) CreateJoin(ctx context.Context, role Role, ttl time.Duration) (token string, expires time.Time, err error) {
	if !role.Valid() {
		return "", time.Time{}, fmt.Errorf("create join token: role %q is none of server, edge, sidecar", role)
	}
	if ttl <= 0 || ttl > MaxJoinTTL {
		return "", time.Time{}, fmt.Errorf("create join token: ttl %s is not between 0 and %s", ttl, MaxJoinTTL)
	}
	now := time.Now().UTC()
	expires = now.Add(ttl)
	made := Token{ID: newID(), Secret: newSecret(), Fingerprint: t.fingerprint}
	record := tokenRecord{Hash: hashSecret(made.Secret), Role: role, Created: now, Expires: expires}
	if err := t.put(ctx, TableJoinToken, made.ID, record); err != nil {
		return "", time.Time{}, fmt.Errorf("create join token: %w", err)
	}
	return made.String(), expires, nil
}

// CheckJoin returns the role that a token admits to.
func (t *Tokens) CheckJoin(ctx context.Context, token string) (Role, error) {
	parsed, err := ParseToken(token)
	if err != nil {
		return "", fmt.Errorf("check join token: %w: %w", ErrToken, err)
	}
	record, err := t.check(ctx, TableJoinToken, parsed.ID, parsed.Secret)
	if err != nil {
		return "", fmt.Errorf("check join token %s: %w", parsed.ID, err)
	}
	return record.Role, nil
}

// CreateAdmin makes a token for the admin API; name says whose it is. The token
// is good once keep, which is called first, has put it where it will be found.
func (t *Tokens) CreateAdmin(ctx context.Context, name string, keep func(token string) error) error {
	id, secret := newID(), newSecret()
	if err := keep(strings.Join([]string{adminPrefix, id, secret}, ".")); err != nil {
		return fmt.Errorf("create admin token: %w", err)
	}
	record := tokenRecord{Hash: hashSecret(secret), Name: name, Created: time.Now().UTC()}
	if err := t.put(ctx, TableAdminToken, id, record); err != nil {
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
	record, err := t.check(ctx, TableAdminToken, parts[1], parts[2])
	if err != nil {
		return "", fmt.Errorf("check admin token %s: %w", parts[1], err)
	}
	return record.Name, nil
}

func (t *Tokens) put(ctx context.Context, table, id string, record tokenRecord) error {
	value, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return t.records.Put(ctx, table, id, value, true)
}

func (t *Tokens) check(ctx context.Context, table, id, secret string) (tokenRecord, error) {
	value, err := t.records.Get(ctx, table, id)
	if err != nil {
		return tokenRecord{}, err
	}
	if value == nil {
		return tokenRecord{}, fmt.Errorf("not known: %w", ErrToken)
	}
	var record tokenRecord
	if err := json.Unmarshal(value, &record); err != nil {
		return tokenRecord{}, fmt.Errorf("read record: %w", err)
	}
	if subtle.ConstantTimeCompare(record.Hash, hashSecret(secret)) != 1 {
		return tokenRecord{}, fmt.Errorf("wrong secret: %w", ErrToken)
	}
	if !record.Expires.IsZero() && !time.Now().Before(record.Expires) {
		return tokenRecord{}, fmt.Errorf("expired at %s: %w", record.Expires.Format(time.RFC3339), ErrToken)
	}
	return record, nil
}

func newID() string {
	var b [idBytes]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func newSecret() string {
	var b [secretBytes]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}
