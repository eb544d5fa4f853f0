package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// ErrToken is the cause when a token is refused. The reason beside it is for
// the log, except where it is one of those below.
var ErrToken = errors.New("token refused")

// Why a token is refused that was good once. Only he who presents the token's
// own secret gets so far, so he may be told.
var (
	ErrTokenExpired = fmt.Errorf("%w: the join token has expired", ErrToken)
	ErrTokenRevoked = fmt.Errorf("%w: the join token was revoked", ErrToken)
	ErrTokenUsed    = fmt.Errorf("%w: the join token is used up", ErrToken)
)

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
