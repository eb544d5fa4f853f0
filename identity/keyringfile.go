package identity

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/weirmesh/weir/internal/durable"
)

// A keyring file is a line that says so and a line for each key, the one that
// seals first: 64 hexadecimal digits and, since version 2, when it was made.
const (
	keyringHead1 = "weir keyring 1"
	keyringHead  = "weir keyring 2"
	maxKeys      = 64
)

// keyringCredential is the name under which systemd hands a keyring over
// (LoadCredential=, LoadCredentialEncrypted=).
const keyringCredential = "weir-keyring"

// LocateKeyring returns where the keyring is: what systemd hands over if it
// does, else the file named keyring in a data directory.
func LocateKeyring(dir string) string {
	if credentials := os.Getenv("CREDENTIALS_DIRECTORY"); credentials != "" {
		path := filepath.Join(credentials, keyringCredential)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return filepath.Join(dir, "keyring")
}

// OpenKeyring reads a keyring file, or makes one with a fresh key where there
// is none.
func OpenKeyring(path string) (*Keyring, error) {
	k, err := ReadKeyring(path)
	if errors.Is(err, fs.ErrNotExist) {
		return CreateKeyring(path)
	}
	return k, err
}

// ReadKeyring reads a keyring file that must be there.
func ReadKeyring(path string) (*Keyring, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	k := &Keyring{path: path, given: isCredential(path)}
	// What systemd hands over it guards by itself, in its own way.
	if info, err := os.Stat(path); err == nil && !k.given && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("open keyring %s: mode %04o lets others read it; it must be 0600", path, info.Mode().Perm())
	}
	keys, err := parseKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("open keyring %s: %w", path, err)
	}
	k.keys.Store(&keys)
	return k, nil
}

func isCredential(path string) bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	return dir != "" && filepath.Dir(path) == filepath.Clean(dir)
}

// CreateKeyring makes a keyring file with a fresh key where there is none.
func CreateKeyring(path string) (*Keyring, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("create keyring %s: %w", path, fs.ErrExist)
	}
	return writeKeyring(path, []sealKey{makeSealKey()})
}

func writeKeyring(path string, keys []sealKey) (*Keyring, error) {
	if err := durable.WriteFile(path, formatKeyring(keys)); err != nil {
		return nil, fmt.Errorf("create keyring: %w", err)
	}
	k := &Keyring{path: path}
	k.keys.Store(&keys)
	return k, nil
}

// InstallKeyring keeps at path what another server's [Keyring.Export] gave. A
// keyring that is there already may only be the same cluster's: it gets what it
// lacks. Anything else is left alone and refused.
func InstallKeyring(path string, exported []byte) (*Keyring, error) {
	keys, err := parseKeyring(exported)
	if err != nil {
		return nil, fmt.Errorf("install keyring: %w", err)
	}
	k, err := ReadKeyring(path)
	if errors.Is(err, fs.ErrNotExist) {
		return writeKeyring(path, keys)
	}
	if err != nil {
		return nil, fmt.Errorf("install keyring: %w", err)
	}
	if !slices.ContainsFunc(keys, func(key sealKey) bool { _, held := k.key(key.name()); return held }) {
		return nil, fmt.Errorf("install keyring: %s has another cluster's key (%s) than the one to install (%s): "+
			"move that file away if this server is to leave its cluster", path, k.ID(), keys[0].name())
	}
	return k, k.install(keys)
}

// Add makes a key and puts it behind those that are there: what an operator
// does to a file that he then hands to every server himself.
func (k *Keyring) Add() (id string, err error) {
	key := makeSealKey()
	return key.name(), k.install([]sealKey{key})
}

// Export is the keyring as its file has it: every secret of it.
func (k *Keyring) Export() []byte { return formatKeyring(k.all()) }

func formatKeyring(keys []sealKey) []byte {
	var out bytes.Buffer
	fmt.Fprintln(&out, keyringHead)
	for _, key := range keys {
		out.WriteString(hex.EncodeToString(key.raw[:]))
		if !key.created.IsZero() {
			out.WriteString(" " + key.created.Format(time.RFC3339))
		}
		out.WriteByte('\n')
	}
	return out.Bytes()
}

func parseKeyring(data []byte) ([]sealKey, error) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	if !lines.Scan() || lines.Text() != keyringHead && lines.Text() != keyringHead1 {
		return nil, fmt.Errorf("not a keyring: the first line is not %q", keyringHead)
	}
	var keys []sealKey
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := parseKey(line)
		if err != nil {
			// The line itself stays out of the error: it may be most of a key.
			return nil, fmt.Errorf("key %d %w", len(keys)+1, err)
		}
		if slices.ContainsFunc(keys, func(other sealKey) bool { return other.id == key.id }) {
			return nil, fmt.Errorf("key %s is there twice", key.name())
		}
		if keys = append(keys, key); len(keys) > maxKeys {
			return nil, fmt.Errorf("it holds more than %d keys", maxKeys)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, errors.New("it holds no key")
	}
	return keys, nil
}

func parseKey(line string) (sealKey, error) {
	digits, moment, dated := strings.Cut(line, " ")
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) != chacha20poly1305.KeySize {
		return sealKey{}, fmt.Errorf("is not %d hexadecimal digits", 2*chacha20poly1305.KeySize)
	}
	var created time.Time
	if dated {
		if created, err = time.Parse(time.RFC3339, strings.TrimSpace(moment)); err != nil {
			return sealKey{}, errors.New("is not followed by when it was made, such as 2006-01-02T15:04:05Z")
		}
		if created = created.UTC(); created.Year() < 1970 || created.Year() > 9999 {
			return sealKey{}, errors.New("is followed by a time that cannot be")
		}
	}
	return newSealKey(raw, created)
}

// ErrReadOnly is the cause when a keyring cannot be changed from here: systemd
// hands it over, or its file system is mounted so.
var ErrReadOnly = errors.New("the keyring is read-only here")

// edit replaces the keys, in the file first. Changes that only order them are
// made in memory even where the file cannot be written: what seals is the
// cluster's decision.
func (k *Keyring) edit(next func([]sealKey) []sealKey) error {
	k.change.Lock()
	defer k.change.Unlock()
	before := k.all()
	after := next(slices.Clone(before))
	same := func(a, b sealKey) bool { return a.id == b.id }
	if slices.EqualFunc(before, after, same) {
		return nil
	}
	err := k.save(after)
	if err != nil {
		onlyOrder := len(before) == len(after)
		for _, key := range after {
			_, held := k.key(key.name())
			onlyOrder = onlyOrder && held
		}
		if !onlyOrder || !errors.Is(err, ErrReadOnly) {
			return err
		}
	}
	k.keys.Store(&after)
	return nil
}

func (k *Keyring) save(keys []sealKey) error {
	if k.given {
		return fmt.Errorf("change keyring %s: %w: systemd hands it over", k.path, ErrReadOnly)
	}
	err := durable.WriteFile(k.path, formatKeyring(keys))
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("change keyring %s: %w: %w", k.path, ErrReadOnly, err)
	}
	if err != nil {
		return fmt.Errorf("change keyring %s: %w", k.path, err)
	}
	return nil
}

// install adds the keys that are missing. None of them seals by that.
func (k *Keyring) install(keys []sealKey) error {
	return k.edit(func(now []sealKey) []sealKey {
		for _, key := range keys {
			if !slices.ContainsFunc(now, func(held sealKey) bool { return held.id == key.id }) {
				now = append(now, key)
			}
		}
		return now
	})
}

// prefer makes a key that is held the one that seals.
func (k *Keyring) prefer(id string) error {
	return k.edit(func(now []sealKey) []sealKey {
		at := slices.IndexFunc(now, func(key sealKey) bool { return key.name() == id })
		if at <= 0 {
			return now
		}
		key := now[at]
		return slices.Insert(slices.Delete(now, at, at+1), 0, key)
	})
}

// forget drops a key, unless it seals.
func (k *Keyring) forget(id string) error {
	return k.edit(func(now []sealKey) []sealKey {
		at := slices.IndexFunc(now, func(key sealKey) bool { return key.name() == id })
		if at <= 0 {
			return now
		}
		return slices.Delete(now, at, at+1)
	})
}
