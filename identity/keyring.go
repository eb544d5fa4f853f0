package identity

import (
	"bufio"
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/weirmesh/weir/internal/durable"
)

// keyringHead is the first line of a keyring file.
const keyringHead = "weir keyring 1"

const (
	keyIDSize  = 4
	sealedHead = 1 + keyIDSize + chacha20poly1305.NonceSizeX
	sealedV1   = 1
)

// Keyring holds the keys that seal what is at rest: of a cluster, for what
// goes through the log, or of one node, for its own files. The first key
// seals; every key opens, so that a new one can be put in front of an old one.
type Keyring struct {
	path string
	keys []sealKey
}

type sealKey struct {
	id   [keyIDSize]byte
	raw  [chacha20poly1305.KeySize]byte
	aead cipher.AEAD
}

// OpenKeyring reads a keyring file, or makes one with a fresh key where there
// is none.
func OpenKeyring(path string) (*Keyring, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createKeyring(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("open keyring %s: mode %04o lets others read it; it must be 0600", path, info.Mode().Perm())
	}
	k, err := parseKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("open keyring %s: %w", path, err)
	}
	k.path = path
	return k, nil
}

func createKeyring(path string) (*Keyring, error) {
	var raw [chacha20poly1305.KeySize]byte
	rand.Read(raw[:])
	text := fmt.Sprintf("%s\n%s\n", keyringHead, hex.EncodeToString(raw[:]))
	if err := durable.WriteFile(path, []byte(text)); err != nil {
		return nil, fmt.Errorf("create keyring: %w", err)
	}
	k, err := parseKeyring([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("create keyring: %w", err)
	}
	k.path = path
	return k, nil
}

func parseKeyring(data []byte) (*Keyring, error) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	if !lines.Scan() || lines.Text() != keyringHead {
		return nil, fmt.Errorf("not a keyring: the first line is not %q", keyringHead)
	}
	k := new(Keyring)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		raw, err := hex.DecodeString(line)
		if err != nil || len(raw) != chacha20poly1305.KeySize {
			// The line itself stays out of the error: it may be most of a key.
			return nil, fmt.Errorf("key %d is not %d hexadecimal digits", len(k.keys)+1, 2*chacha20poly1305.KeySize)
		}
		key, err := newSealKey(raw)
		if err != nil {
			return nil, err
		}
		k.keys = append(k.keys, key)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(k.keys) == 0 {
		return nil, errors.New("it holds no key")
	}
	return k, nil
}

func newSealKey(raw []byte) (sealKey, error) {
	aead, err := chacha20poly1305.NewX(raw)
	if err != nil {
		return sealKey{}, err
	}
	key := sealKey{aead: aead}
	copy(key.raw[:], raw)
	// A key's name gives nothing of the key away.
	sum := sha256.Sum256(append([]byte("weir key id "), raw...))
	copy(key.id[:], sum[:])
	return key, nil
}

// Seal encrypts data so that only this keyring opens it, and only for the same
// purpose: a sealed thing put in another's place does not open.
func (k *Keyring) Seal(purpose string, data []byte) []byte {
	key := k.keys[0]
	out := make([]byte, sealedHead, sealedHead+len(data)+key.aead.Overhead())
	out[0] = sealedV1
	copy(out[1:], key.id[:])
	rand.Read(out[1+keyIDSize : sealedHead])
	return key.aead.Seal(out, out[1+keyIDSize:sealedHead], data, []byte(purpose))
}

// ErrSealed is the cause when something sealed does not open.
var ErrSealed = errors.New("cannot be opened")

// Open decrypts what Seal made for the purpose.
func (k *Keyring) Open(purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) < sealedHead || sealed[0] != sealedV1 {
		return nil, fmt.Errorf("open %s: not something sealed: %w", purpose, ErrSealed)
	}
	id := [keyIDSize]byte(sealed[1:])
	for _, key := range k.keys {
		if key.id != id {
			continue
		}
		data, err := key.aead.Open(nil, sealed[1+keyIDSize:sealedHead], sealed[sealedHead:], []byte(purpose))
		if err != nil {
			return nil, fmt.Errorf("open %s: it was altered or belongs elsewhere: %w", purpose, ErrSealed)
		}
		return data, nil
	}
	return nil, fmt.Errorf("open %s: keyring %s does not hold key %x: %w", purpose, k.path, id, ErrSealed)
}

// Derive makes 32 secret bytes that stay the same as long as the keyring does,
// such as a key that must survive a restart.
func (k *Keyring) Derive(purpose string) [32]byte {
	key, err := hkdf.Key(sha256.New, k.keys[0].raw[:], nil, "weir "+purpose, 32)
	if err != nil {
		panic(err) // only for lengths that SHA-256 cannot give
	}
	return [32]byte(key)
}
